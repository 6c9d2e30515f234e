"""Which versions go, and which exports the service deletes next."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tilesync.core.retention import (
    KEEP_ALL_VERSIONS,
    RetentionPolicy,
    find_next_deleted,
    find_retirable,
    sort_newest_first,
)
from tilesync.model import Export, Version

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
SPAN = timedelta(hours=48)


def version(number: int, **changes: Any) -> Version:
    """The version of day `number`, exported, begun and finished that day, and left the next."""
    day = f"2026-03-{number:02d}T08:30:00Z"
    left = f"2026-03-{number + 1:02d}T08:30:00Z"
    made = Version(
        number, f"v{number}", f"e{number}", "i", None, day, {}, published_at=day, started_at=day, replaced_at=left
    )
    return replace(made, **changes)


HISTORY = [version(number) for number in range(1, 9)]


def names(versions: list[tuple[Version, str]]) -> list[str]:
    return [each.name for each, _ in versions]


def test_by_default_nothing_goes() -> None:
    """Without a number of versions all are kept, unfinished ones too."""
    assert find_retirable([*HISTORY, version(1, published_at=None)], KEEP_ALL_VERSIONS, NOW, ()) == []


def test_only_what_exceeds_both_goes() -> None:
    """The newest stay, and so does what was current within the span; the others go, each with its reason."""
    found = find_retirable(HISTORY, RetentionPolicy(2, SPAN), NOW, ())
    assert names(found) == ["v6", "v5", "v4", "v3", "v2", "v1"]
    assert names(find_retirable(HISTORY, RetentionPolicy(2, timedelta(days=5)), NOW, ())) == ["v4", "v3", "v2", "v1"]
    assert found[0][1] == "number 3 of the newest, 2 are kept; current until 2026-03-07T08:30:00Z"


def test_what_the_pointer_names_stays() -> None:
    """A spared version does not go, and takes no place of another one."""
    assert names(find_retirable(HISTORY, RetentionPolicy(2, SPAN), NOW, {"v1", "v5"})) == ["v6", "v4", "v3", "v2"]


def test_the_span_counts_from_when_the_pointer_left() -> None:
    """One that was current until an hour ago stays, however old it is; one that never was counts from its finishing."""
    old = version(1, replaced_at="2026-03-10T11:00:00Z")
    never = version(2, replaced_at=None, published_at="2026-03-09T12:00:01Z")
    assert names(find_retirable([old, never, *HISTORY[2:]], RetentionPolicy(1, SPAN), NOW, ())) == [
        "v7",
        "v6",
        "v5",
        "v4",
        "v3",
    ]
    assert (
        "mirrored 2026"
        in find_retirable([version(1, replaced_at=None), HISTORY[2]], RetentionPolicy(1, SPAN), NOW, ())[0][1]
    )


@pytest.mark.parametrize(("hours", "goes"), [(47.9, False), (48.0, False), (48.1, True)])
def test_the_span_to_the_minute(hours: float, goes: bool) -> None:
    """Exactly the span is not longer than the span."""
    left = (NOW - timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert bool(find_retirable([version(1, replaced_at=left), version(2)], RetentionPolicy(1, SPAN), NOW, ())) is goes


def test_what_was_never_finished_goes_when_it_is_old() -> None:
    """A version that nothing resumed for longer than the span goes; one that was begun lately stays."""
    stale = version(1, published_at=None)
    fresh = version(2, published_at=None, started_at="2026-03-10T11:00:00Z")
    assert names(find_retirable([stale, fresh], RetentionPolicy(5, SPAN), NOW, ())) == ["v1"]


def test_the_order_is_that_of_the_exports() -> None:
    """An old export that was mirrored late is no new version."""
    late = version(1, published_at="2026-03-10T00:00:00Z")
    assert [each.name for each in sort_newest_first([late, version(3), version(2)])] == ["v3", "v2", "v1"]
    unknown = [version(number, modified="") for number in (1, 2)]
    assert [each.name for each in sort_newest_first(unknown)] == ["v2", "v1"]


def export(number: int, imodel: str = "i", status: str = "Complete") -> Export:
    return Export(f"e{number}", status, imodel=imodel, modified=f"2026-03-{number:02d}T08:30:00Z")


def test_the_service_deletes_the_oldest_of_five() -> None:
    """With five exports of an iModel the oldest goes next, with four none does; other iModels do not count."""
    five = [export(number) for number in (5, 4, 3, 2, 1)]
    assert [row.id for row in find_next_deleted(five)] == ["e1"]
    assert find_next_deleted(five[:4]) == []
    assert find_next_deleted([*five[:4], export(9, "other")]) == []
    assert [row.id for row in find_next_deleted([export(6), *five])] == ["e1", "e2"]
    assert [row.id for row in find_next_deleted([replace(row, modified="") for row in five])] == ["e1"]
