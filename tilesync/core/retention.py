"""Retention of versions: the ones to keep, and the reason why each other one is retired."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta

from tilesync.model import Export, Version
from tilesync.values import dataclass

EXPORTS_KEPT_BY_SERVICE = 5
"""Number of exports per iModel that the service keeps; the next one replaces the oldest."""

TRASH_RETENTION = timedelta(days=7)
"""Time that retired versions and deleted files stay in the trash."""


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """Retention policy: keep the newest `versions` (None: all), and each one for `keep_for` after it was current.

    Only versions beyond both limits are retired, so viewers that stream a recent version are not cut off.
    """

    versions: int | None = None
    keep_for: timedelta = timedelta(hours=48)


KEEP_ALL_VERSIONS = RetentionPolicy()


def sort_newest_first(versions: Iterable[Version]) -> list[Version]:
    """Return the finished versions, newest first, by the export time of the service, else by publication time."""
    finished = (version for version in versions if version.is_published)
    return sorted(
        finished,
        key=lambda v: (v.facts.exported or v.summary.published_at or "", v.summary.published_at or "", v.serial),
        reverse=True,
    )


def find_next_deleted(exports: Sequence[Export]) -> list[Export]:
    """Return the exports that the service deletes when the next export of their iModel appears.

    `exports` are given newest first.
    """
    found: list[Export] = []
    for imodel in dict.fromkeys(export.imodel for export in exports):
        rows = [export for export in reversed(exports) if export.imodel == imodel]
        found += sorted(rows, key=lambda row: row.modified)[: max(0, len(rows) + 1 - EXPORTS_KEPT_BY_SERVICE)]
    return found


def find_retirable(
    versions: Sequence[Version], policy: RetentionPolicy, now: datetime, protected: Collection[str]
) -> list[tuple[Version, str]]:
    """Return the versions to retire, each with its reason; none that is in `protected`.

    An unfinished version is retired if no run has continued it for longer than `keep_for`.
    """
    if policy.versions is None:
        return []
    found: list[tuple[Version, str]] = []
    for rank, version in enumerate(sort_newest_first(versions), start=1):
        since = version.times.replaced_at or version.summary.published_at or ""
        if rank > policy.versions and version.name not in protected and _has_passed(since, policy.keep_for, now):
            verb = "current until" if version.times.replaced_at else "mirrored"
            found.append((version, f"number {rank} of the newest, {policy.versions} are kept; {verb} {since}"))
    unfinished = (v for v in versions if not v.is_published and v.name not in protected)
    stale = (v for v in unfinished if _has_passed(v.times.started_at, policy.keep_for, now))
    return found + [(version, f"never finished, last continued {version.times.started_at}") for version in stale]


def _has_passed(moment: str, span: timedelta, now: datetime) -> bool:
    """Return whether `span` has passed since a time; False if the time is unknown."""
    return bool(moment) and now - datetime.fromisoformat(moment) > span
