"""Check runner, and the choice of sample files."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tilesync.checks.hosting_checks import MAX_SAMPLED_KINDS, choose_samples
from tilesync.checks.result import CheckResult, CheckStatus
from tilesync.checks.runner import Check, run_checks
from tilesync.errors import NoExport, TilesyncError, Unavailable
from tilesync.events import CheckCompleted, Event
from tilesync.model import Blob, StoredFile


def make_check(outcome: CheckResult | TilesyncError) -> Callable[[], Awaitable[CheckResult]]:
    async def look() -> CheckResult:
        if isinstance(outcome, TilesyncError):
            raise outcome
        return outcome

    return look


def test_checks_that_require_a_failed_one_are_skipped() -> None:
    """Checks that depend on a failed one, even indirectly, are skipped; a warning is no failure.

    The first failure decides the class of the error.
    """
    events: list[Event] = []
    checks = [
        Check("a", make_check(CheckResult("so so", CheckStatus.WARN, "mend"))),
        Check("b", make_check(Unavailable("down")), ("a",)),
        Check("c", make_check(CheckResult("never")), ("b",)),
        Check("d", make_check(CheckResult("never")), ("a", "c")),
        Check("e", make_check(NoExport("none", hint="make one"))),
        Check("f", make_check(CheckResult("well")), ("a",)),
    ]
    with pytest.raises(Unavailable, match="2 checks of 6 failed, first `b`: down"):
        asyncio.run(run_checks(checks, events.append))
    results = [(event.name, event.result) for event in events if isinstance(event, CheckCompleted)]
    assert results == [("a", "warn"), ("b", "fail"), ("c", "skipped"), ("d", "skipped"), ("e", "fail"), ("f", "ok")]
    assert events[3] == CheckCompleted("d", "skipped", "not checked, because `b` failed")
    assert events[4] == CheckCompleted("e", "fail", "none", "make one")


def test_no_failure_raises_nothing() -> None:
    """Without a failed check nothing is raised."""
    asyncio.run(run_checks([Check("a", make_check(CheckResult("well")))], lambda event: None))


def make_stored_file(name: str, size: int = 10) -> StoredFile:
    return StoredFile(Blob(name, size), b"", 0)


def test_a_sample_of_each_kind() -> None:
    """Samples are the smallest non-empty file of each kind, up to the limit, and one with a percent-encoded name."""
    lines = [
        make_stored_file("a.glb", 9),
        make_stored_file("b.glb", 3),
        make_stored_file("c.json"),
        make_stored_file("d", 1),
        make_stored_file("e.png", 0),
        make_stored_file("f g.glb", 5),
    ]
    chosen, quoted_name = choose_samples(iter(lines))
    assert ([each.blob.name for each in chosen], quoted_name) == (["b.glb", "c.json", "d", "f g.glb"], "f g.glb")
    many, none = choose_samples(make_stored_file(f"a.{number}") for number in range(99))
    assert (len(many), none) == (MAX_SAMPLED_KINDS, None)
