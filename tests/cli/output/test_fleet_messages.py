"""What a fleet prints for people: events, outcomes, the table, and the last sentences."""

from __future__ import annotations

from typing import Any

import pytest

from tilesync.cli.output.fleet_messages import (
    MAX_GOOD_ROWS,
    FleetMessagePrinter,
    format_fleet_summary,
    format_fleet_table,
)
from tilesync.events import Event, ExportFailed, FileStored, ForecastMade, Notice, Planned, Waiting, Warned
from tilesync.fleets.monitor import FleetMonitor
from tilesync.fleets.outcome import CopyOutcome, MirrorOutcome, Result

COUNTS = {
    "export": "e1234567-89", "listed": 3, "fetched": 3, "reused": 0, "kept": 0, "failed": 0, "deleted": 0,
    "bytes": 1500, "renewals": 0, "retries": 0, "seconds": 2.04,
}  # fmt: skip

FORECAST = ForecastMade(3, 0, 0, 0, "3 mirrors: nothing to move")


def outcome(name: str = "a", result: Result = Result.UPDATED, exit_code: int = 0, **more: Any) -> MirrorOutcome:
    failure = {"message": "no export", "hint": "wait for one"} if exit_code else {}
    counts = dict.fromkeys(COUNTS, 0) if result is Result.UNCHANGED else COUNTS
    line = {"kind": "x", "exit": exit_code, **counts, **failure, **more.pop("line", {})}
    return MirrorOutcome(name, name, f"/d/{name}", result, line, **more)


def print_events(*events: tuple[str, Event], verbose: bool = False, quiet: bool = False) -> list[str]:
    """Return the lines that are printed for events of mirrors."""
    lines: list[str] = []
    printer = FleetMessagePrinter(lines.append, verbose=verbose, quiet=quiet)
    for name, event in events:
        printer(name, event)
    return lines


def print_outcome(each: MirrorOutcome, *, verbose: bool = False, quiet: bool = False) -> list[str]:
    lines: list[str] = []
    FleetMessagePrinter(lines.append, verbose=verbose, quiet=quiet).print_outcome(each)
    return lines


def test_events_have_the_name_of_their_mirror() -> None:
    """Of mirrors, warnings are printed, with the name; with -v every event; the fleet speaks without a name."""
    events: list[tuple[str, Event]] = [
        ("", FORECAST),
        ("", Notice("stops at 6")),
        ("", Warned("the disk is small")),
        ("a", Warned("a link is old")),
        ("a", Notice("something")),
        ("b", ExportFailed("e1", "NoExport", "the model has no geometry")),
        ("b", FileStored("0.glb", 132)),
    ]
    usual = print_events(*events)
    assert usual[:4] == [
        "3 mirrors: nothing to move", "stops at 6", "warning: the disk is small", "a: warning: a link is old",
    ]  # fmt: skip
    assert usual[4].startswith("b: ")
    assert "no geometry" in usual[4]
    assert len(usual) == 5
    verbose = print_events(*events, verbose=True)
    assert "a: something" in verbose
    assert "b: stored 0.glb (132 B)" in verbose
    assert print_events(*events, quiet=True) == usual[2:]


def test_planned_actions() -> None:
    """With -v the plan of a mirror is printed, an action a line, with its reason; else not."""
    event = Planned("fetch", "0.glb", 132, "not stored yet")
    assert print_events(("a", event), verbose=True) == ["a: fetch 0.glb (132 B): not stored yet"]
    assert print_events(("a", event)) == []


def test_each_mirror_waits_by_itself() -> None:
    """A message of waiting is printed once for each mirror, though the mirrors wait in turn."""
    waiting = [(name, Waiting("the export is InProgress", "", 15.0)) for name in ("a", "b")]
    lines = print_events(*waiting, *waiting, *waiting, verbose=True)
    assert [line.partition(":")[0] for line in lines] == ["a", "b"]


@pytest.mark.parametrize(
    ("each", "line"),
    [
        (outcome(), "a: updated, 3 files fetched, 1.5 kB in 2.0 s"),
        (outcome(result=Result.PLANNED), "a: planned, 3 files to fetch, 0 B"),
        (outcome(result=Result.FAILED, exit_code=4), "a: failed (4): no export\n  wait for one"),
        (outcome(result=Result.STOPPED, exit_code=14), "a: stopped: no export\n  wait for one"),
        (outcome(stale=("published 9 d ago",)), "a: updated, but stale: published 9 d ago"),
        (
            outcome(copies=(CopyOutcome("/c", {"exit": 8, "message": "full", "hint": "free it"}),)),
            "a: updated, copy failed: full\n  free it",
        ),
        (
            outcome(stale=("old",), copies=(CopyOutcome("/c", {"exit": 8, "message": "full", "hint": "free it"}),)),
            "a: updated, copy failed: full\n  free it",
        ),
    ],
)
def test_outcomes(each: MirrorOutcome, line: str) -> None:
    """An outcome is one line, a problem with its reason and what to do; -q prints only problems."""
    assert print_outcome(each) == [line]
    assert print_outcome(each, quiet=True) == ([line] if each.exit_code else [])


def test_an_unchanged_mirror_is_silent() -> None:
    """That nothing changed is printed only with -v."""
    unchanged = outcome(result=Result.UNCHANGED)
    assert print_outcome(unchanged) == []
    assert print_outcome(unchanged, verbose=True) == ["a: unchanged, 0 files fetched, 0 B in 0.0 s"]


def test_the_table() -> None:
    """The table has a row for each mirror, problems first, with reason and hint."""
    rows = format_fleet_table([outcome("b"), outcome("a", Result.FAILED, 4)], width=None).splitlines()
    assert [row.split() for row in rows] == [
        ["mirror", "outcome", "export", "files", "size", "seconds", "reason"],
        ["a", "failed", "(4)", "e1234567", "3", "1.5", "kB", "2.0", "no", "export", "->", "wait", "for", "one"],
        ["b", "updated", "e1234567", "3", "1.5", "kB", "2.0"],
    ]
    assert format_fleet_table([], width=None) == ""


def test_a_large_fleet() -> None:
    """Of a large fleet the table leaves out what did not change, and says how many; -v shows all."""
    outcomes = [outcome(f"m{n:03}", Result.UNCHANGED) for n in range(MAX_GOOD_ROWS + 5)]
    outcomes += [outcome("changed"), outcome("bad", Result.FAILED, 5), outcome("old", Result.UNCHANGED, stale=("x",))]
    rows = format_fleet_table(outcomes, width=None).splitlines()
    assert [row.split()[0] for row in rows] == ["mirror", "bad", "old", "changed", "…"]
    assert rows[-1] == "… and 45 mirrors unchanged"
    assert len(format_fleet_table(outcomes, width=None, verbose=True).splitlines()) == len(outcomes) + 1


def test_the_table_fits_the_terminal() -> None:
    """On a terminal, long names and reasons are cut to its width."""
    long = outcome("a" * 60, Result.FAILED, 4, line={"message": "why " * 60})
    assert max(map(len, format_fleet_table([long], width=80).splitlines())) <= 80


def test_a_mirror_that_never_ran() -> None:
    """An outcome without an export, as of an iTwin that could not be listed, has an empty column."""
    row = format_fleet_table([outcome("p1", Result.FAILED, 5, line={"export": None})], width=None).splitlines()[1]
    assert row.split()[:4] == ["p1", "failed", "(5)", "3"]


def test_the_summary() -> None:
    """The summary counts mirrors by their result, and names the exports that the service deletes next."""
    monitor = FleetMonitor("fleet.toml")
    assert format_fleet_summary(monitor).startswith("0 mirrors: nothing to do; 0 files fetched, 0 B in ")
    for each in (
        outcome("a"),
        outcome("b", Result.UNCHANGED, stale=("old",), endangered=("e7", "e8")),
        outcome("c", Result.FAILED, 4),
    ):
        monitor.add_outcome(each)
    first, *rest = format_fleet_summary(monitor).splitlines()
    assert first.startswith("3 mirrors: 1 updated, 1 unchanged, 1 failed, 1 too old; 6 files fetched, 3.0 kB in ")
    assert first.endswith("; 0 API calls")
    assert rest[0].startswith("2 exports that no destination holds will be deleted by the service")
    assert rest[1:] == ["  b: export e7", "  b: export e8"]
