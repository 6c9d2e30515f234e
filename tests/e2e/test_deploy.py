"""Test the crontabs of scripts/deploy, also with a store as DEST."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commandline import run_tilesync
from tests.support.deploy import DEPLOY, make_machine, read_deploy_file, run_cron_line, write_fleet, write_settings
from tests.support.fleet_service import fill_fleet
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


def test_the_example_of_a_fleet_has_no_mistakes() -> None:
    """`--check` accepts the file as it is, without a service, an identity or the folders that it names."""
    checked = run_tilesync("fleet", DEPLOY / "fleet.toml", "--check")
    assert (checked.exit_code, checked.stdout) == (0, "")
    assert "2 [[mirror]] tables, no mistakes" in checked.stderr


def test_the_line_of_cron_for_a_fleet_fills_its_folders(machine: Path, sim: Simulator) -> None:
    """The line prints nothing, writes its report and JSON lines, and keeps the state of the fleet in its folder."""
    fleet = fill_fleet(sim, 3)
    write_fleet(machine, fleet)
    ended = run_cron_line(machine, "tilesync-fleet.cron")
    assert (ended.stdout, ended.stderr) == ("", ""), (machine / "var/log/tilesync/fleet.log").read_text()
    assert (machine / "srv/tiles/office/tileset.json").exists()
    assert {path.name for path in (machine / "srv/tiles/campus").iterdir()} == {each.id for each in fleet.models[1:]}
    report = json.loads((machine / "var/log/tilesync/fleet.json").read_text())
    assert (report["exit"], report["updated"]) == (0, 3)
    assert json.loads((machine / "var/log/tilesync/fleet.log").read_text().splitlines()[-1]).items() <= report.items()
    assert len(list((machine / "var/lib/tilesync/fleets").iterdir())) == 1


def test_the_line_of_cron_for_a_fleet_is_silent_when_the_window_ends(machine: Path, sim: Simulator) -> None:
    """A mirror that hangs until the end of the window makes exit 14, which is not printed; the next night continues."""
    fleet = fill_fleet(sim, 3)
    fleet.hang_container(1)
    write_fleet(machine, fleet, head='max-duration = "4s"')
    ended = run_cron_line(machine, "tilesync-fleet.cron")
    report = json.loads((machine / "var/log/tilesync/fleet.json").read_text())
    assert (ended.stdout, report["exit"], report["stopped"], report["updated"]) == ("", 14, 1, 2)
    fleet.release_hanging()
    assert run_cron_line(machine, "tilesync-fleet.cron").stdout == ""
    report = json.loads((machine / "var/log/tilesync/fleet.json").read_text())
    assert (report["exit"], report["updated"], report["unchanged"]) == (0, 1, 2)


def test_no_line_of_a_crontab_has_a_percent_sign() -> None:
    """Cron reads an unescaped percent sign as a line break, so no job has one."""
    for path in DEPLOY.glob("*.cron"):
        (job,) = [line for line in read_deploy_file(path.name).splitlines() if line[:1].isdigit()]
        assert "%" not in job
