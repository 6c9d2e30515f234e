"""Test the Python API of fleets: the blocking function, the coroutine, and what they return."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import tilesync as ts
from tests.support.commandline import run_tilesync
from tests.support.fleet_service import fill_fleet
from tests.support.simulator import Simulator
from tilesync.events import Event, VersionPublished

CHANGING = {"seconds", "started", "finished", "host"}
"""Fields of lines that differ from run to run."""


def write_file(folder: Path, itwin: str) -> Path:
    """Write the fleet of an iTwin, with its state in the folder."""
    path = folder / "fleet.toml"
    path.write_text(
        f'[fleet]\nstate-dir = "state"\n[defaults]\nwait = "0s"\n[[mirror]]\nname = "campus"\nitwin = "{itwin}"\n'
        'dest = "tiles/{name}"\n'
    )
    return path


def stable(report: dict[str, Any]) -> dict[str, Any]:
    """Return a report without the fields that differ from run to run."""
    outcomes = [{name: line[name] for name in line.keys() - CHANGING} for line in report["outcomes"]]
    return {**{name: report[name] for name in report.keys() - CHANGING}, "outcomes": outcomes}


def test_a_fleet_returns_the_report_of_the_command(sim: Simulator, tmp_path: Path) -> None:
    """The outcomes and the report are what the command writes for the same night; events have names of mirrors."""
    fleet = fill_fleet(sim, 3)
    fleet.invalidate(1)
    file = write_file(tmp_path, fleet.itwins[0])
    service: dict[str, Any] = {"auth": ts.Token(sim.token), "api_url": sim.url}
    events: list[tuple[str, Event]] = []
    outcomes: list[ts.MirrorOutcome] = []
    first = ts.fleet(
        file,
        on_event=lambda name, event: events.append((name, event)),
        on_outcome=outcomes.append,
        **service,
    )
    assert (first.exit_code, first.ok, first.outcomes) == (4, False, tuple(outcomes))
    published = {name for name, event in events if isinstance(event, VersionPublished)}
    assert published == {"campus/Bridge 0000", "campus/Bridge 0002"}
    second = ts.fleet(file, **service)
    run_tilesync("fleet", file, "--report", tmp_path / "report.json", sim=sim)
    assert stable(second.to_dict()) == stable(json.loads((tmp_path / "report.json").read_text()))
    assert {each.name: each.exit_code for each in second.outcomes}["campus/Bridge 0001"] == 4


def test_a_fleet_in_a_running_loop_selects_mirrors(sim: Simulator, tmp_path: Path) -> None:
    """`tilesync.aio.fleet` takes the same arguments; `only` and `dry_run` are those of the command line."""
    fleet = fill_fleet(sim, 2)
    file = write_file(tmp_path, fleet.itwins[0])
    result = asyncio.run(ts.aio.fleet(file, only=["*0001"], dry_run=True, auth=ts.Token(sim.token), api_url=sim.url))
    assert (result.ok, [each.name for each in result.outcomes]) == (True, ["campus/Bridge 0001"])
    assert not (tmp_path / "tiles").exists()


def test_a_file_with_mistakes_is_refused_before_anything_runs(tmp_path: Path) -> None:
    """`check_fleet` returns the settings of a good file, and raises an error with each mistake of another."""
    file = write_file(tmp_path, "22222222-3333-4444-5555-666666666666")
    assert [entry.name for entry in ts.check_fleet(file).mirrors] == ["campus"]
    file.write_text('[fleet]\njobs = 0\n[[mirror]]\nname = "a"\n')
    with pytest.raises(ts.TilesyncError, match="jobs") as caught:
        ts.fleet(file)
    assert caught.value.exit_code == 2
    assert "no dest" in str(caught.value)
