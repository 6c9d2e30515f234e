"""Retention of versions, and the exports that the service deletes next."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tilesync.core.retention import (
    KEEP_ALL_VERSIONS,
    RetentionPolicy,
    find_next_deleted,
    find_retirable,
    sort_newest_first,
)
from tilesync.model import Export, ExportFacts, Version, VersionSummary, VersionTimes

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
SPAN = timedelta(hours=48)


def version(number: int, modified: str | None = None, published_at: str | None = "", **times: str | None) -> Version:
    """Make the version of day `number`: exported, started and finished that day, and replaced the next."""
    day = f"2026-03-{number:02d}T08:30:00Z"
    left = f"2026-03-{number + 1:02d}T08:30:00Z"
    made = Version(
        number,
        f"v{number}",
        f"e{number}",
        facts=ExportFacts(imodel="i", modified=day if modified is None else modified),
        summary=VersionSummary(published_at=day if published_at == "" else published_at),
        times=VersionTimes(started_at=day, replaced_at=left),
    )
    return made.with_times(**times)


HISTORY = [version(number) for number in range(1, 9)]


def names(versions: list[tuple[Version, str]]) -> list[str]:
    return [each.name for each, _ in versions]


def test_by_default_nothing_is_retired() -> None:
    """Without a number of versions all are kept, even unfinished ones."""
    assert find_retirable([*HISTORY, version(1, published_at=None)], KEEP_ALL_VERSIONS, NOW, ()) == []


def test_only_versions_beyond_both_limits_are_retired() -> None:
    """The newest are kept, and so are those current within the span; the others are retired, each with its reason."""
    result = find_retirable(HISTORY, RetentionPolicy(2, SPAN), NOW, ())
    assert names(result) == ["v6", "v5", "v4", "v3", "v2", "v1"]
    assert names(find_retirable(HISTORY, RetentionPolicy(2, timedelta(days=5)), NOW, ())) == ["v4", "v3", "v2", "v1"]
    assert result[0][1] == "number 3 of the newest, 2 are kept; current until 2026-03-07T08:30:00Z"


def test_protected_versions_are_kept() -> None:
    """A protected version is never retired, but its rank counts."""
    assert names(find_retirable(HISTORY, RetentionPolicy(2, SPAN), NOW, {"v1", "v5"})) == ["v6", "v4", "v3", "v2"]


def test_the_span_starts_when_a_version_is_replaced() -> None:
    """A version that was current an hour ago is kept, however old; one that never was counts from its publication."""
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


@pytest.mark.parametrize(("hours", "is_retired"), [(47.9, False), (48.0, False), (48.1, True)])
def test_the_span_to_the_minute(hours: float, is_retired: bool) -> None:
    """A version is retired only after more than the span."""
    replaced_at = (NOW - timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert (
        bool(find_retirable([version(1, replaced_at=replaced_at), version(2)], RetentionPolicy(1, SPAN), NOW, ()))
        is is_retired
    )


def test_old_unfinished_versions_are_retired() -> None:
    """A version that no run continued for longer than the span is retired; one started recently is kept."""
    stale = version(1, published_at=None)
    fresh = version(2, published_at=None, started_at="2026-03-10T11:00:00Z")
    assert names(find_retirable([stale, fresh], RetentionPolicy(5, SPAN), NOW, ())) == ["v1"]


def test_order_is_by_export_time() -> None:
    """An old export that was mirrored late does not count as a new version."""
    late = version(1, published_at="2026-03-10T00:00:00Z")
    assert [each.name for each in sort_newest_first([late, version(3), version(2)])] == ["v3", "v2", "v1"]
    unknown = [version(number, modified="") for number in (1, 2)]
    assert [each.name for each in sort_newest_first(unknown)] == ["v2", "v1"]


def export(number: int, imodel: str = "i", status: str = "Complete") -> Export:
    return Export(f"e{number}", status, imodel=imodel, modified=f"2026-03-{number:02d}T08:30:00Z")


def test_the_service_deletes_the_oldest_of_five() -> None:
    """With five exports of an iModel the oldest is deleted next, with four none is; other iModels do not count."""
    five = [export(number) for number in (5, 4, 3, 2, 1)]
    assert [row.id for row in find_next_deleted(five)] == ["e1"]
    assert find_next_deleted(five[:4]) == []
    assert find_next_deleted([*five[:4], export(9, "other")]) == []
    assert [row.id for row in find_next_deleted([export(6), *five])] == ["e1", "e2"]
    assert [row.id for row in find_next_deleted([replace(row, modified="") for row in five])] == ["e1"]
