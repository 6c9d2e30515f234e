"""Presence: whether the files of a published version still lie there, looked at for a bounded time in each run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from tilesync.errors import DestinationError
from tilesync.jobs.versions.lifecycle import proven
from tilesync.model import Held, Version
from tilesync.protocols import Catalog, Clock, HeldFiles

SPAN = timedelta(seconds=2)
"""How long a run that has nothing to do looks at files. The next run goes on where it stopped: of few files all are
looked at each time, of very many all within some runs.
"""

PLACE = "looked at {}"
"""Under which key the catalog keeps how many files of a version were found since the look began, and where it goes on.
"""


class Look(NamedTuple):
    """How many files were looked at, and whether nothing tells of a lost one."""

    files: int
    sound: bool


class Presence:
    """Looks at the files of versions that are held, as far as one run has time for that. Blocks."""

    def __init__(self, catalog: Catalog, files: HeldFiles, clock: Clock, *, span: timedelta = SPAN) -> None:
        self._catalog = catalog
        self._files = files
        self._clock = clock
        self._span = span.total_seconds()

    def look(self, version: Version) -> Look:
        """Look at the next files of a version, a few at least. One that is gone or changed ends the look: it is not
        sound then, and the next look begins at the start.
        """
        key = PLACE.format(version.name)
        count, _, place = (self._catalog.recall(key) or "").partition(" ")
        found = int(count) if count.isdecimal() else 0
        self._catalog.remember(key, "")
        try:
            look = self._go_on(version, key, found, place)
            if look.files or not look.sound:
                return look
        except DestinationError:
            if not place:
                raise
        return self._go_on(version, key, 0, "")  # that was the end, or a place that the store does not know any more

    def _go_on(self, version: Version, key: str, found: int, place: str) -> Look:
        until, looked = self._clock.monotonic() + self._span, 0
        for glance in self._files.glances(version, self._catalog, place):
            for start in range(len(glance.doubtful)):
                if not self._is_sound(version, glance.doubtful[start : start + 1]):
                    return Look(looked, sound=False)
                if self._clock.monotonic() >= until and start + 1 < len(glance.doubtful):
                    self._catalog.remember(key, f"{found} {place}")
                    return Look(looked + start + 1, sound=True)
            found, looked, place = found + glance.files, looked + glance.files, glance.place
            if not place:
                return Look(looked, sound=found >= version.files)
            if self._clock.monotonic() >= until:
                break
        self._catalog.remember(key, f"{found} {place}")
        return Look(looked, sound=True)

    def _is_sound(self, version: Version, held: Sequence[Held]) -> bool:
        """Whether a file that looks changed has the right bytes; it is known by its new look then."""
        sound = proven(version, held, self._files)
        self._catalog.retrace(version, sound)
        return bool(sound)
