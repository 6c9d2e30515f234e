"""Progress of a fleet: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.fleet_service import Fleet, fill_fleet
from tests.support.fleets import FleetFolder
from tests.support.simulator import Simulator
from tests.support.terminal import resize, run_in_terminal
from tilesync.cli.output.fleet_progress import FleetProgressDisplay
from tilesync.fleets.monitor import FleetMonitor
from tilesync.fleets.outcome import MirrorOutcome, Result

LONG_NAME = "A bridge {over} a river, seen from the north"


class TerminalFleet:
    """A fleet of four iModels, run on a terminal; each request takes a while."""

    def __init__(self, sim: Simulator, folder: Path) -> None:
        self.sim, self.folder = sim, FleetFolder(folder, sim)
        self.fleet: Fleet = fill_fleet(sim, 4)
        self.folder.write_models(self.fleet)
        text = self.folder.file.read_text().replace('name = "m3"', f'name = "{LONG_NAME}"')
        self.folder.file.write_text(text)
        sim.delay_s = 0.15

    def run(self, *options: object, **how: Any) -> str:
        """Run it; return the output."""
        code, shown = run_in_terminal(
            "fleet", self.folder.file, *options, sim=self.sim, FLEET_TOKEN=self.sim.token, **how
        )
        assert code == 0, shown
        return shown


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[TerminalFleet]:
    """Start a simulator with a fleet."""
    with Simulator() as sim:
        yield TerminalFleet(sim, tmp_path)


def frames(shown: str) -> list[str]:
    """Split the output into what was drawn, without the movements of the cursor."""
    return [part for part in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "\n", shown)) if part.strip()]


def test_a_bar_for_the_fleet_and_one_for_each_running_mirror(fleet: TerminalFleet) -> None:
    """The first line is about the fleet, the next ones about the mirrors that run; at the end the table stays."""
    shown = fleet.run("--jobs", "2", size=(24, 120))
    drawn = frames(shown)
    lines = [
        frame for frame in drawn if re.match(r"fleet +\|[# ]{20}\| +\d+% \d of 4 mirrors done, \d running,", frame)
    ]
    assert len(lines) > 3
    assert any(" 2 running," in line for line in lines)
    assert not any(" 3 running," in line for line in lines)
    bars = [frame for frame in drawn if re.match(r"  \S.* \|[# ]{20}\| +\d+% \d/\d files", frame)]
    assert {bar.split()[0] for bar in bars} >= {"m0", "m1", "m2"}
    assert any("…" in bar and "north" in bar for bar in bars), "a long name is cut at its start"
    table = drawn.index(next(frame for frame in drawn if frame.startswith("mirror ")))
    assert [frame.split()[0] for frame in drawn[table : table + 6]] == ["mirror", "A", "m0", "m1", "m2", "4"]
    assert drawn[table + 5].startswith("4 mirrors: 4 updated; ")
    assert shown.count("\n") < 400, "rows that nothing is shown in are not drawn"


@pytest.mark.parametrize("columns", [20, 60, 200])
def test_the_bars_fit(fleet: TerminalFleet, columns: int) -> None:
    """No line of the bars reaches the last column, where the terminal would wrap."""
    drawn = frames(fleet.run("--jobs", "2", size=(24, columns)))
    lines = [frame for frame in drawn if re.search(r"mirrors? done|of 4 mirr|\d+% \d", frame)]
    assert len(lines) > 3
    assert max(len(line) for line in lines) < columns


@pytest.mark.parametrize("rows", [2, 4, 0])
def test_a_terminal_with_few_rows(fleet: TerminalFleet, rows: int) -> None:
    """With few rows or an unknown height, the fleet has its line, and mirrors have theirs where there is room."""
    drawn = frames(fleet.run("--jobs", "3", size=(rows, 100)))
    assert any("of 4 mirrors done" in frame for frame in drawn)
    has_bars = any(re.match(r"  \S.*\|[# ]{20}\|", frame) for frame in drawn)
    assert has_bars == (rows in {4, 0})


def test_a_terminal_that_shrinks(fleet: TerminalFleet) -> None:
    """After the terminal has become narrower, every line fits it."""
    at: list[int] = []

    def shrink(terminal: int, shown: bytes) -> None:
        if not at and shown.count(b"running") > 2:
            at.append(len(shown))
            resize(terminal, 24, 40)

    shown = fleet.run("--jobs", "2", size=(24, 120), on_output=shrink)
    later = frames(shown[at[0] :])
    drawn = [frame for frame in later if re.match(r"\d of 4 mirrors done|  \S.* \|", frame)]
    drawn = drawn[next(n for n, frame in enumerate(drawn) if len(frame) < 40) :]
    assert len(drawn) > 3
    assert max(map(len, drawn)) < 40, "blanks count too"


def test_no_bars(fleet: TerminalFleet) -> None:
    """With -q and --no-progress no bar is drawn."""
    fleet.sim.delay_s = 0
    for option in ("-q", "--no-progress"):
        shown = fleet.run(option)
        assert "\r" not in shown.replace("\r\n", "\n")
        assert "running" not in shown


def test_messages_stay_above_the_bars(fleet: TerminalFleet) -> None:
    """The outcome of a mirror is a whole line of its own, which no bar overwrites."""
    drawn = frames(fleet.run("--jobs", "2"))
    assert {frame.split(":")[0] for frame in drawn if ": updated, 3 files fetched" in frame} == {
        "m0", "m1", "m2", LONG_NAME,
    }  # fmt: skip


def test_the_line_of_the_fleet() -> None:
    """The line says what is done, what runs, and how many problems there are."""
    monitor = FleetMonitor("fleet.toml")
    display = FleetProgressDisplay(monitor, bar=False, lines=True)
    assert display.format_line() == "listing the iModels"
    monitor.total = 3
    assert re.fullmatch(r"0 of 3 mirrors done, 0 running, 0 B fetched, 00:0\d", display.format_line())
    for name, exit_code in (("a", 0), ("b", 4)):
        line = {"exit": exit_code, "bytes": 500}
        monitor.add_outcome(MirrorOutcome(name, name, "/d", Result.UPDATED, line))
    runs: Any = {
        "c": SimpleNamespace(
            is_running=True,
            attempts=[SimpleNamespace(monitor=SimpleNamespace(stats=SimpleNamespace(transferred_bytes=7)))],
        )
    }
    monitor.runs = runs
    assert display.format_line().startswith("2 of 3 mirrors done (1 problem), 1 running, 1.0 kB fetched, 00:0")
