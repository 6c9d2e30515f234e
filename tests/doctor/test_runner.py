"""Checks in order, and what is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tilesync.doctor.hosting_checks import MAX_SAMPLED_KINDS, choose_samples
from tilesync.doctor.result import CheckResult, CheckStatus
from tilesync.doctor.runner import Check, run_checks
from tilesync.errors import NoExport, TilesyncError, Unavailable
from tilesync.events import CheckCompleted, Event
from tilesync.model import Blob, StoredFile


def make_check(said: CheckResult | TilesyncError) -> Callable[[], Awaitable[CheckResult]]:
    async def look() -> CheckResult:
        if isinstance(said, TilesyncError):
            raise said
        return said

    return look


def test_what_needs_a_failed_check_is_skipped() -> None:
    """Also at second hand, with the one that failed named; a warning is good enough. The first failure decides."""
    heard: list[Event] = []
    probes = [
        Check("a", make_check(CheckResult("so so", CheckStatus.WARN, "mend"))),
        Check("b", make_check(Unavailable("down")), ("a",)),
        Check("c", make_check(CheckResult("never")), ("b",)),
        Check("d", make_check(CheckResult("never")), ("a", "c")),
        Check("e", make_check(NoExport("none", hint="make one"))),
        Check("f", make_check(CheckResult("well")), ("a",)),
    ]
    with pytest.raises(Unavailable, match="2 checks of 6 failed, first `b`: down"):
        asyncio.run(run_checks(probes, heard.append))
    told = [(event.name, event.result) for event in heard if isinstance(event, CheckCompleted)]
    assert told == [("a", "warn"), ("b", "fail"), ("c", "skipped"), ("d", "skipped"), ("e", "fail"), ("f", "ok")]
    assert heard[3] == CheckCompleted("d", "skipped", "not checked, because `b` failed")
    assert heard[4] == CheckCompleted("e", "fail", "none", "make one")


def test_all_is_well() -> None:
    """Then nothing is raised."""
    asyncio.run(run_checks([Check("a", make_check(CheckResult("well")))], lambda event: None))


def held(name: str, size: int = 10) -> StoredFile:
    return StoredFile(Blob(name, size), b"", 0)


def test_a_sample_of_each_kind() -> None:
    """The smallest of each, none that is empty; a name that must be quoted besides; not more than a few."""
    lines = [held("a.glb", 9), held("b.glb", 3), held("c.json"), held("d", 1), held("e.png", 0), held("f g.glb", 5)]
    chosen, odd = choose_samples(iter(lines))
    assert ([each.blob.name for each in chosen], odd) == (["b.glb", "c.json", "d", "f g.glb"], "f g.glb")
    many, none = choose_samples(held(f"a.{number}") for number in range(99))
    assert (len(many), none) == (MAX_SAMPLED_KINDS, None)
