"""Presence: whether the files of a published version still lie there, looked at for a bounded time in each run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from tilesync.errors import DestinationError
from tilesync.jobs.versions.lifecycle import find_intact
from tilesync.model import StoredFile, Version
from tilesync.protocols import Catalog, Clock, StoredFiles

PRESENCE_CHECK_TIME = timedelta(seconds=2)
"""How long a run that has nothing to do looks at files. The next run goes on where it stopped: of few files all are
looked at each time, of very many all within some runs.
"""

PROGRESS_KEY = "looked at {}"
"""Under which key the catalog keeps how many files of a version were found since the look began, and where it goes on.
"""


class PresenceResult(NamedTuple):
    """How many files were looked at, and whether nothing tells of a lost one."""

    files: int
    is_sound: bool


class PresenceCheck:
    """Looks at the files of versions that are held, as far as one run has time for that. Blocks."""

    def __init__(
        self, catalog: Catalog, files: StoredFiles, clock: Clock, *, max_time: timedelta = PRESENCE_CHECK_TIME
    ) -> None:
        self._catalog = catalog
        self._files = files
        self._clock = clock
        self._max_time_s = max_time.total_seconds()

    def check_next_files(self, version: Version) -> PresenceResult:
        """Look at the next files of a version, a few at least. One that is gone or changed ends the look: it is not
        sound then, and the next look begins at the start.
        """
        key = PROGRESS_KEY.format(version.name)
        count, _, place = (self._catalog.get_value(key) or "").partition(" ")
        found = int(count) if count.isdecimal() else 0
        self._catalog.set_value(key, "")
        try:
            look = self._check_from(version, key, found, place)
            if look.files or not look.is_sound:
                return look
        except DestinationError:
            if not place:
                raise
        return self._check_from(
            version, key, 0, ""
        )  # that was the end, or a place that the store does not know any more

    def _check_from(self, version: Version, key: str, found: int, cursor: str) -> PresenceResult:
        until, looked = self._clock.monotonic() + self._max_time_s, 0
        for glance in self._files.presence_pages(version, self._catalog, cursor):
            for start in range(len(glance.doubtful)):
                if not self._is_sound(version, glance.doubtful[start : start + 1]):
                    return PresenceResult(looked, is_sound=False)
                if self._clock.monotonic() >= until and start + 1 < len(glance.doubtful):
                    self._catalog.set_value(key, f"{found} {cursor}")
                    return PresenceResult(looked + start + 1, is_sound=True)
            found, looked, cursor = found + glance.files, looked + glance.files, glance.cursor
            if not cursor:
                return PresenceResult(looked, is_sound=found >= version.files)
            if self._clock.monotonic() >= until:
                break
        self._catalog.set_value(key, f"{found} {cursor}")
        return PresenceResult(looked, is_sound=True)

    def _is_sound(self, version: Version, stored: Sequence[StoredFile]) -> bool:
        """Whether a file that looks changed has the right bytes; it is known by its new look then."""
        sound = find_intact(version, stored, self._files)
        self._catalog.update_stamps(version, sound)
        return bool(sound)
