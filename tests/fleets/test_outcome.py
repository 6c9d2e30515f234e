"""Outcomes of mirrors: the gravest exit code, sums, order and JSON."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tilesync import errors
from tilesync.fleets.outcome import (
    COUNTED,
    GRAVITY,
    STALE_EXIT,
    STOPPED_EXIT,
    CopyOutcome,
    MirrorOutcome,
    Result,
    find_gravest,
    gravity_of,
    sort_problems_first,
    sum_counts,
)


def line(exit_code: int = 0, message: str = "", hint: str = "", **counts: int) -> dict[str, Any]:
    """Return the last JSON line of a run."""
    failure = {"error": "X", "message": message or f"failed {exit_code}", "hint": hint} if exit_code else {}
    return {"kind": "failed" if exit_code else "finished", "exit": exit_code, **failure, **counts}


def outcome(name: str = "a", exit_code: int = 0, result: Result | None = None, **more: Any) -> MirrorOutcome:
    result = result or (Result.FAILED if exit_code else Result.UPDATED)
    return MirrorOutcome(name, name, "/d", result, more.pop("line", line(exit_code)), **more)


def test_every_exit_code_has_a_place() -> None:
    """The order covers the exit code of each error that `mirror` ends with, and those of fleets, each once."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.RunError)]
    codes = {kind.exit_code for kind in kinds}
    codes |= {0, 1, errors.BlobError.exit_code, STALE_EXIT, STOPPED_EXIT, 129, 130, 143}
    assert {12, 14, 129, 130, 143} <= codes
    assert codes - set(GRAVITY) == {errors.VerifyFailed.exit_code}, "only `verify` ends with it"
    assert len(GRAVITY) == len(set(GRAVITY))
    assert GRAVITY[0] == 1
    assert GRAVITY[-1] == 0


def test_the_gravest() -> None:
    """The gravest exit code is the first in the order; an unknown one counts as a bug; none at all is good."""
    assert find_gravest([]) == 0
    assert find_gravest([0, 14, 0]) == 14
    assert find_gravest([4, 5, 6]) == 5
    assert find_gravest([5, 77]) == 77
    assert gravity_of(77) == gravity_of(1)
    for first, second in itertools.combinations(GRAVITY, 2):
        assert find_gravest([second, first]) == first


@pytest.mark.parametrize(
    ("run", "copy", "stale", "exit_code", "reason", "hint"),
    [
        (line(), line(), (), 0, "", ""),
        (line(4, "no export", "wait"), line(), (), 4, "no export", "wait"),
        (line(), line(8, "disk full", "free it"), (), 8, "disk full", "free it"),
        (line(4, "no export", "wait"), line(8, "disk full", "free it"), (), 8, "disk full", "free it"),
        (line(), line(), ("too old", "no success"), 12, "too old; no success", ""),
        (line(6, "down"), line(), ("too old",), 6, "down", ""),
        (line(14, "window"), line(), ("too old",), 12, "window", ""),
    ],
)
def test_one_mirror(
    run: dict[str, Any], copy: dict[str, Any], stale: tuple[str, ...], exit_code: int, reason: str, hint: str
) -> None:
    """The exit code, reason and hint of a mirror are those of its gravest run; its age counts too."""
    mirror = outcome(line=run, copies=(CopyOutcome("/c", copy),), stale=stale)
    assert (mirror.exit_code, mirror.reason, mirror.hint) == (exit_code, reason, hint)


def test_the_json_line() -> None:
    """The line has the counts of the run, and tells by its kind whether all its runs ended well."""
    good = outcome(line=line(fetched=3), stale=("too old",), endangered=("e9",), command="tilesync fleet f --only a")
    assert good.to_dict() == {
        "kind": "mirror-finished", "mirror": "a", "result": "updated", "exit": 12, "fetched": 3, "stale": ["too old"],
        "endangered": ["e9"], "copies": [], "command": "tilesync fleet f --only a",
        "planned_bytes": 0,
    }  # fmt: skip
    failed = outcome(exit_code=5).to_dict()
    assert (failed["kind"], failed["exit"], failed["message"]) == ("mirror-failed", 5, "failed 5")
    copied = outcome(copies=(CopyOutcome("/c", line(8)),)).to_dict()
    assert (copied["kind"], copied["exit"]) == ("mirror-failed", 8)
    assert copied["message"] == line(8)["message"]
    assert copied["copies"] == [{"dest": "/c", **line(8)}]


def test_problems_come_first() -> None:
    """The gravest come first, then what changed, then what did not; each by name without case."""
    outcomes = [
        outcome("b", result=Result.UNCHANGED),
        outcome("B2"),
        outcome("a", 14, Result.STOPPED),
        outcome("c", 5),
        outcome("A", 5),
        outcome("a2"),
        outcome("old", stale=("too old",)),
    ]
    assert [each.name for each in sort_problems_first(outcomes)] == ["A", "c", "old", "a", "a2", "B2", "b"]


def test_sums() -> None:
    """Counts are summed over the runs that download; a line without a count, as of an early failure, adds none."""
    copy = CopyOutcome("/c", line(fetched=100))
    outcomes = [outcome(line=line(fetched=3, bytes=10), copies=(copy,)), outcome(line=line(4, fetched=2)), outcome()]
    assert sum_counts(outcomes) == {**dict.fromkeys(COUNTED, 0), "fetched": 5, "bytes": 10}
    assert sum_counts([]) == dict.fromkeys(COUNTED, 0)
