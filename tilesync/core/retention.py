"""Which versions are kept, and why the others go."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tilesync.model import Export, Version

EXPORTS_KEPT_BY_SERVICE = 5
"""How many exports of an iModel the service keeps: the next one takes the place of the oldest."""

TRASH_RETENTION = timedelta(days=7)
"""How long what was given up lies in the trash."""


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """How much of a history is kept: the newest `versions` (None: all), and each for `span` after the pointer left it.

    Only what exceeds both goes: viewers that stream a version that is no longer current are not cut off.
    """

    versions: int | None = None
    keep_for: timedelta = timedelta(hours=48)


KEEP_ALL_VERSIONS = RetentionPolicy()


def sort_newest_first(versions: Iterable[Version]) -> list[Version]:
    """The finished versions, by the time that the service gives for their exports; else by when they were finished."""
    finished = (version for version in versions if version.published_at is not None)
    return sorted(
        finished, key=lambda v: (v.exported or v.published_at or "", v.published_at or "", v.serial), reverse=True
    )


def find_next_deleted(exports: Sequence[Export]) -> list[Export]:
    """The exports, given newest first, that the service deletes when the next one of their iModel is there."""
    found: list[Export] = []
    for imodel in dict.fromkeys(export.imodel for export in exports):
        rows = [export for export in reversed(exports) if export.imodel == imodel]
        found += sorted(rows, key=lambda row: row.modified)[: max(0, len(rows) + 1 - EXPORTS_KEPT_BY_SERVICE)]
    return found


def find_retirable(
    versions: Sequence[Version], policy: RetentionPolicy, now: datetime, protected: Collection[str]
) -> list[tuple[Version, str]]:
    """The versions that go, each with the reason; none whose name is `spared`.

    A version that was never finished goes when no run took it up for longer than the span.
    """
    if policy.versions is None:
        return []
    found: list[tuple[Version, str]] = []
    for place, version in enumerate(sort_newest_first(versions), start=1):
        since = version.replaced_at or version.published_at or ""
        if place > policy.versions and version.name not in protected and _has_passed(since, policy.keep_for, now):
            verb = "current until" if version.replaced_at else "mirrored"
            found.append((version, f"number {place} of the newest, {policy.versions} are kept; {verb} {since}"))
    unfinished = (v for v in versions if v.published_at is None and v.name not in protected)
    stale = (v for v in unfinished if _has_passed(v.started_at, policy.keep_for, now))
    return found + [(version, f"never finished, and last taken up {version.started_at}") for version in stale]


def _has_passed(moment: str, span: timedelta, now: datetime) -> bool:
    """Whether `span` has passed since a moment; never since one that is not known."""
    return bool(moment) and now - datetime.fromisoformat(moment) > span
