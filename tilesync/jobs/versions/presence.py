"""Presence check: verify for a bounded time per run that the files of a published version are still there."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from tilesync.catalog.catalog import Catalog
from tilesync.errors import DestinationError
from tilesync.jobs.versions.lifecycle import find_intact
from tilesync.model import StoredFile, Version
from tilesync.protocols import Clock, StoredFiles

PRESENCE_CHECK_TIME = timedelta(seconds=2)
"""Time that a run without changes spends on the check. The next run continues where it stopped, so a small version is
checked completely in each run, and a very large one within several runs.
"""

PROGRESS_KEY = "looked at {}"
"""Catalog key for the progress of a check: the number of files found so far, and the cursor to continue at."""


class PresenceResult(NamedTuple):
    """Number of checked files, and whether none of them is lost."""

    files: int
    is_sound: bool


class PresenceCheck:
    """Checks that stored files are still there, as far as the time of one run allows. Blocks."""

    def __init__(
        self, catalog: Catalog, files: StoredFiles, clock: Clock, *, max_time: timedelta = PRESENCE_CHECK_TIME
    ) -> None:
        self._catalog = catalog
        self._files = files
        self._clock = clock
        self._max_time_s = max_time.total_seconds()

    def check_next_files(self, version: Version) -> PresenceResult:
        """Check the next files of a version, at least a few.

        A file that is gone or changed ends the check with `is_sound` False, and the next check begins at the start.
        """
        key = PROGRESS_KEY.format(version.name)
        count, _, cursor = (self._catalog.get_value(key) or "").partition(" ")
        found = int(count) if count.isdecimal() else 0
        self._catalog.set_value(key, "")
        try:
            result = self._check_from(version, key, found, cursor)
            if result.files or not result.is_sound:
                return result
        except DestinationError:
            if not cursor:
                raise
        # The cursor was at the end, or the store does not know it any more.
        return self._check_from(version, key, 0, "")

    def _check_from(self, version: Version, key: str, found: int, cursor: str) -> PresenceResult:
        deadline, checked = self._clock.monotonic() + self._max_time_s, 0
        for page in self._files.presence_pages(version, self._catalog, cursor):
            for start in range(len(page.doubtful)):
                if not self._is_sound(version, page.doubtful[start : start + 1]):
                    return PresenceResult(checked, is_sound=False)
                if self._clock.monotonic() >= deadline and start + 1 < len(page.doubtful):
                    self._catalog.set_value(key, f"{found} {cursor}")
                    return PresenceResult(checked + start + 1, is_sound=True)
            found, checked, cursor = found + page.files, checked + page.files, page.cursor
            if not cursor:
                return PresenceResult(checked, is_sound=found >= version.summary.files)
            if self._clock.monotonic() >= deadline:
                break
        self._catalog.set_value(key, f"{found} {cursor}")
        return PresenceResult(checked, is_sound=True)

    def _is_sound(self, version: Version, stored: Sequence[StoredFile]) -> bool:
        """Return whether a file with a changed stamp has the right bytes; then record the new stamp."""
        intact = find_intact(version, stored, self._files)
        self._catalog.update_stamps(version, intact)
        return bool(intact)
