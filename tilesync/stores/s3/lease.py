"""The right to write below a prefix of a bucket: one object, replaced only where it is still as it was seen.

S3 knows no leases. What stands in `.tilesync/lock` says who holds it, and changes with each beat; whoever saw the very
same one for a whole term by its own clock takes it over, by a condition that fails where a beat came after all. No two
clocks are compared. Source: Amazon S3 User Guide, "How to prevent object overwrites with conditional writes".
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Final, NamedTuple, Protocol

from tilesync.core.foreign_json import count, loads, mapping, text
from tilesync.errors import ConditionFailed, DestinationError
from tilesync.model.storage import Found, Label
from tilesync.protocols import Stored
from tilesync.stores.local.lock_file import this_process

LOCK: Final = ".tilesync/lock"
TERM: Final = timedelta(seconds=60)
"""As long as that of a lease in Azure."""

LONGEST: Final = 1 << 16
"""Bytes of a lock at most; it has some hundred."""

_LABEL: Final = Label("application/json", None, "no-cache")
_NO_ETAG: Final = "0" * 32
"""As an ETag looks, and no object's."""

_TURNS: Final = 3
"""Times in a row that one looks again because it changed at that moment."""


class Place(Protocol):
    """Where the object lies."""

    shown: str

    def read(self, name: str, *, offset: int = 0) -> Stored | None:
        """An object and its bytes; None when there is none."""

    def write(self, name: str, data: Iterable[bytes], label: Label, *, instead_of: str | None = None) -> Found:
        """Put it in place where the one with this ETag stands, or none; else raise ConditionFailed."""


class Seen(NamedTuple):
    """What stands there: its ETag, empty where nothing does; whose it is, empty where nobody's; what that one says of
    itself.
    """

    etag: str
    owner: str
    beat: int
    holder: object = None


class ObjectLease:
    """The lease; what it saw of another's it keeps, however often it is asked for. One at a time uses it. `beating` is
    the same place, for beats.
    """

    def __init__(
        self,
        place: Place,
        beating: Place,
        *,
        term: timedelta = TERM,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._place = place
        self._beating = beating
        self._monotonic = monotonic
        self._mine = Seen("", "", 0)
        self._other = ""
        self._holder: object = None
        self._said = this_process().record()
        self._since = 0.0
        self.term = term

    def take(self, owner: str) -> bool:
        """Take it where it is free, this owner's, or another's that has not moved for a term."""
        seen = self._look(self._place)
        self._holder = seen.holder
        if seen.owner not in {"", owner} and not self._ended(seen.etag):
            return False
        if not self._put(self._place, owner, seen):
            return False
        self._prove(owner)
        return True

    def announce(self, owner: str) -> None:
        """Nothing: it stands in the object."""

    def holder(self) -> object:
        """What stood in the object when this one wanted to take it."""
        return self._holder

    def keep(self, owner: str) -> bool:
        """A beat. One whose answer was lost stands there, and is known as this owner's."""
        seen = self._mine
        for _ in range(_TURNS):
            if seen.owner == owner and self._put(self._beating, owner, seen):
                return True
            seen = self._look(self._beating)
            if not seen.etag:
                seen = seen._replace(owner=owner)
            if seen.owner != owner:
                return False
        return False

    def leave(self, owner: str) -> None:
        """Mark it free. One that others have by now stays theirs."""
        seen = self._mine
        if seen.owner != owner or not self._put(self._beating, "", seen):
            seen = self._look(self._beating)
            if seen.owner == owner:
                self._put(self._beating, "", seen)
        self._mine = Seen("", "", 0)

    def _look(self, place: Place) -> Seen:
        stored = place.read(LOCK)
        if stored is None:
            return Seen("", "", 0)
        try:
            said = mapping(loads(b"".join(stored.chunks), most=LONGEST))
            return Seen(stored.found.etag, text(said["owner"]), count(said["beat"]), said.get("holder"))
        except (ValueError, KeyError):
            raise DestinationError(
                f"{LOCK} in {self._place.shown} is not a lock of tilesync",
                hint="delete it, when no run is under way",
            ) from None

    def _ended(self, etag: str) -> bool:
        """Whether this one has been seen for a whole term. Its holder counts from before it wrote it: less."""
        now = self._monotonic()
        if etag != self._other:
            self._other, self._since = etag, now
        return now - self._since >= self.term.total_seconds()

    def _put(self, place: Place, owner: str, seen: Seen) -> bool:
        """Replace what was seen; whether it was there still. No two bodies are alike, so that no two ETags are."""
        mine = Seen("", owner, seen.beat + 1)
        said = {"holder": self._said} if owner else {}
        body = json.dumps({"owner": owner, "beat": mine.beat, "at": time.time_ns(), **said}).encode()
        try:
            found = place.write(LOCK, [body], _LABEL, instead_of=seen.etag)
        except ConditionFailed:
            return False
        self._mine = mine._replace(etag=found.etag)
        return True

    def _prove(self, owner: str) -> None:
        """Raise DestinationError where the store takes no heed of conditions: then this is no lock."""
        for etag in ("", _NO_ETAG):
            if self._put(self._place, owner, Seen(etag, owner, self._mine.beat)):
                raise DestinationError(
                    f"{self._place.shown} cannot be locked: the server overwrites objects that it was told to leave"
                    " alone",
                    hint="the server must know conditional writes (If-None-Match, If-Match)",
                )
