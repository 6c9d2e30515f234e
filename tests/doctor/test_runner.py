"""Checks in order, and what is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tilesync.doctor.hosting_checks import KINDS, choose
from tilesync.doctor.result import Result, Said
from tilesync.doctor.runner import Probe, examine
from tilesync.errors import NoExport, TilesyncError, Unavailable
from tilesync.events import Checked, Event
from tilesync.model import Blob, Held


def finds(said: Said | TilesyncError) -> Callable[[], Awaitable[Said]]:
    async def look() -> Said:
        if isinstance(said, TilesyncError):
            raise said
        return said

    return look


def test_what_needs_a_failed_check_is_skipped() -> None:
    """Also at second hand, with the one that failed named; a warning is good enough. The first failure decides."""
    heard: list[Event] = []
    probes = [
        Probe("a", finds(Said("so so", Result.WARN, "mend"))),
        Probe("b", finds(Unavailable("down")), ("a",)),
        Probe("c", finds(Said("never")), ("b",)),
        Probe("d", finds(Said("never")), ("a", "c")),
        Probe("e", finds(NoExport("none", hint="make one"))),
        Probe("f", finds(Said("well")), ("a",)),
    ]
    with pytest.raises(Unavailable, match="2 checks of 6 failed, first `b`: down"):
        asyncio.run(examine(probes, heard.append))
    told = [(event.name, event.result) for event in heard if isinstance(event, Checked)]
    assert told == [("a", "warn"), ("b", "fail"), ("c", "skipped"), ("d", "skipped"), ("e", "fail"), ("f", "ok")]
    assert heard[3] == Checked("d", "skipped", "not looked at, since `b` failed")
    assert heard[4] == Checked("e", "fail", "none", "make one")


def test_all_is_well() -> None:
    """Then nothing is raised."""
    asyncio.run(examine([Probe("a", finds(Said("well")))], lambda event: None))


def held(name: str, size: int = 10) -> Held:
    return Held(Blob(name, size), b"", 0)


def test_a_sample_of_each_kind() -> None:
    """The smallest of each, none that is empty; a name that must be quoted besides; not more than a few."""
    lines = [held("a.glb", 9), held("b.glb", 3), held("c.json"), held("d", 1), held("e.png", 0), held("f g.glb", 5)]
    chosen, odd = choose(iter(lines))
    assert ([each.blob.name for each in chosen], odd) == (["b.glb", "c.json", "d", "f g.glb"], "f g.glb")
    many, none = choose(held(f"a.{number}") for number in range(99))
    assert (len(many), none) == (KINDS, None)
