"""Test the files of scripts/deploy, as far as they can run here, also with a store as DEST."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.builders import IMODEL
from tests.support.s3 import ENVIRONMENT, BucketServer
from tests.support.simulator import Simulator

DEPLOY = Path(__file__).resolve().parents[2] / "scripts" / "deploy"


def read_deploy_file(name: str) -> str:
    """Write a file and its folders."""
    return (DEPLOY / name).read_text(encoding="utf-8")


def relocate_paths(words: str, root: Path) -> str:
    """Replace the machine's folders in a text by folders of the test."""
    for folder in ("/etc/tilesync", "/var/log", "/var/lib", "/srv/tiles", "/opt/tilesync"):
        words = words.replace(folder, f"{root}{folder}")
    return words


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Make the folders that the files expect, with tilesync installed there."""
    for folder in ("etc/tilesync", "var/log/tilesync", "var/lib/tilesync", "srv/tiles", "opt/tilesync/bin"):
        (tmp_path / folder).mkdir(parents=True)
    program = tmp_path / "opt/tilesync/bin/tilesync"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tilesync "$@"\n')
    program.chmod(0o755)
    return tmp_path


def write_settings(machine: Path, dest: str, sim: Simulator, **more: str) -> None:
    """Write the settings of a mirror from the example."""
    named = {
        "TILESYNC_SOURCE": IMODEL,
        "TILESYNC_DEST": dest,
        "TILESYNC_API_URL": sim.url,
        "TILESYNC_TOKEN": sim.token,
        "TILESYNC_RETRY_FOR": "10s",
        **more,
    }
    lines = "".join(f"{name}='{value}'\n" for name, value in named.items())
    (machine / "etc/tilesync/office.env").write_text(lines)


def run_cron_line(machine: Path) -> subprocess.CompletedProcess[str]:
    """Run the cron line with /bin/sh, HOME and the variables of the file only, as cron does."""
    crontab = relocate_paths(read_deploy_file("tilesync.cron"), machine)
    environment = dict(re.findall(r"^([A-Z_]+)=(.*)$", crontab, re.MULTILINE))
    (line,) = re.findall(r"^17 2 \* \* \*  tilesync  (.*)$", crontab, re.MULTILINE)
    home = {"HOME": "/nonexistent", "LOGNAME": "tilesync", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    shell = [environment["SHELL"], "-c", line]
    return subprocess.run(shell, env={**home, **environment}, capture_output=True, text=True, timeout=120, check=False)


def test_the_line_of_cron_fills_a_folder(machine: Path, sim: Simulator) -> None:
    """The cron line prints nothing, writes its report, and keeps the state in the folder."""
    sim.offer_export()
    write_settings(machine, f"{machine}/srv/tiles/office", sim)
    ended = run_cron_line(machine)
    assert (ended.stdout, ended.stderr) == ("", ""), (machine / "var/log/tilesync/office.log").read_text()
    assert (machine / "srv/tiles/office/tileset.json").exists()
    assert (machine / "srv/tiles/office/.tilesync").is_dir()
    assert json.loads((machine / "var/log/tilesync/office.json").read_text())["exit"] == 0


def test_the_line_of_cron_fills_a_store(machine: Path, sim: Simulator, bucket_server: BucketServer) -> None:
    """The state of a store is in the configured folder, without a home folder; a failed run prints its exit code."""
    sim.offer_export()
    place = f"s3://{bucket_server.new_bucket()}/office"
    write_settings(machine, place, sim, **ENVIRONMENT, AWS_ENDPOINT_URL=bucket_server.url)
    ended = run_cron_line(machine)
    assert (ended.stdout, ended.stderr) == ("", ""), (machine / "var/log/tilesync/office.log").read_text()
    assert len(list((machine / "var/lib/tilesync/destinations").iterdir())) == 1
    write_settings(machine, "gs://nowhere", sim)
    assert "tilesync mirror office: exit 2" in run_cron_line(machine).stdout


def test_the_service_of_systemd_has_a_folder_for_the_state() -> None:
    """The state is in the folder of StateDirectory; a missing /srv/tiles does not stop the service."""
    unit = read_deploy_file("tilesync@.service")
    assert "\nStateDirectory=tilesync\n" in unit
    assert "\nEnvironment=XDG_STATE_HOME=%S\n" in unit
    assert "\nReadWritePaths=-/srv/tiles\n" in unit


def test_the_job_of_kubernetes_has_a_volume_for_the_state() -> None:
    """With a read-only root file system all files are written to volumes; no report is served."""
    job = read_deploy_file("kubernetes.yaml")
    mounts = dict(re.findall(r"\{name: (\w+), mountPath: (\S+)\}", job))
    assert mounts.keys() == set(re.findall(r"- name: (\w+)$", job.partition("volumes:\n")[2], re.MULTILINE))
    environment = dict(re.findall(r"- name: (\w+)\n +value: (\S+)", job))
    assert environment["XDG_STATE_HOME"] in mounts.values()
    (report,) = re.findall(r"--report, ([^\]]+)\]", job)
    assert str(Path(report).parent) in mounts.values()
    assert not Path(environment["TILESYNC_DEST"]).is_relative_to(Path(report).parent)
