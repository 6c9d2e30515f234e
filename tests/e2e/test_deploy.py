"""Test the crontabs of scripts/deploy, also with a store as DEST."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.deploy import DEPLOY, make_machine, read_deploy_file, run_cron_line, write_settings
from tests.support.s3 import ENVIRONMENT, BucketServer
from tests.support.simulator import Simulator


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Make the folders that the files expect, with tilesync installed there."""
    return make_machine(tmp_path)


def test_the_line_of_cron_fills_a_folder(machine: Path, sim: Simulator) -> None:
    """The cron line prints nothing, writes its report, and keeps the state in the folder."""
    sim.offer_export()
    write_settings(machine, f"{machine}/srv/tiles/office", sim)
    ended = run_cron_line(machine, "tilesync.cron")
    assert (ended.stdout, ended.stderr) == ("", ""), (machine / "var/log/tilesync/office.log").read_text()
    assert (machine / "srv/tiles/office/tileset.json").exists()
    assert (machine / "srv/tiles/office/.tilesync").is_dir()
    assert json.loads((machine / "var/log/tilesync/office.json").read_text())["exit"] == 0


def test_the_line_of_cron_fills_a_store(machine: Path, sim: Simulator, bucket_server: BucketServer) -> None:
    """The state of a store is in the configured folder, without a home folder; a failed run prints its exit code."""
    sim.offer_export()
    place = f"s3://{bucket_server.new_bucket()}/office"
    write_settings(machine, place, sim, **ENVIRONMENT, AWS_ENDPOINT_URL=bucket_server.url)
    ended = run_cron_line(machine, "tilesync.cron")
    assert (ended.stdout, ended.stderr) == ("", ""), (machine / "var/log/tilesync/office.log").read_text()
    assert len(list((machine / "var/lib/tilesync/destinations").iterdir())) == 1
    write_settings(machine, "gs://nowhere", sim)
    assert "tilesync mirror office: exit 2" in run_cron_line(machine, "tilesync.cron").stdout


@pytest.mark.parametrize(("code", "printed"), [(0, ""), (14, ""), (12, "exit 12, see"), (143, "exit 143, see")])
def test_the_line_of_cron_for_a_fleet_prints_what_needs_a_person(machine: Path, code: int, printed: str) -> None:
    """The end of the window (14) is no failure; every other code but 0 is printed, and the output is in the log."""
    (machine / "opt/tilesync/bin/tilesync").write_text(f'#!/bin/sh\necho "$@" "$LINK"\nexit {code}\n')
    (machine / "etc/tilesync/fleet.env").write_text("LINK='https://account/container?a=1&b=2'\n")
    ended = run_cron_line(machine, "tilesync-fleet.cron")
    assert ended.stderr == ""
    assert (printed in ended.stdout) if printed else ended.stdout == ""
    log = (machine / "var/log/tilesync/fleet.log").read_text()
    assert log.startswith(f"fleet {machine}/etc/tilesync/fleet.toml --json --report {machine}/var/log/tilesync/")
    assert log.endswith("https://account/container?a=1&b=2\n")


def test_no_line_of_a_crontab_has_a_percent_sign() -> None:
    """Cron reads an unescaped percent sign as a line break, so no job has one."""
    for path in DEPLOY.glob("*.cron"):
        (job,) = [line for line in read_deploy_file(path.name).splitlines() if line[:1].isdigit()]
        assert "%" not in job
