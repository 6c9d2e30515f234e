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

from tilesync.core.foreign_json import parse_json, read_count, read_mapping, read_text
from tilesync.errors import ConditionFailed, DestinationError
from tilesync.model.storage import ObjectHeaders, ObjectInfo
from tilesync.protocols import ObjectStream
from tilesync.stores.local.lock_file import current_holder

LOCK_OBJECT_NAME: Final = ".tilesync/lock"
LEASE_TERM: Final = timedelta(seconds=60)
"""As long as that of a lease in Azure."""

MAX_LOCK_BYTES: Final = 1 << 16
"""Bytes of a lock at most; it has some hundred."""

_LOCK_HEADERS: Final = ObjectHeaders("application/json", None, "no-cache")
_NONEXISTENT_ETAG: Final = "0" * 32
"""As an ETag looks, and no object's."""

_MAX_RENEW_ATTEMPTS: Final = 3
"""Times in a row that one looks again because it changed at that moment."""


class LockStore(Protocol):
    """Where the object lies."""

    display_name: str

    def read(self, name: str, *, offset: int = 0) -> ObjectStream | None:
        """An object and its bytes; None when there is none."""

    def write(
        self, name: str, data: Iterable[bytes], label: ObjectHeaders, *, expected_etag: str | None = None
    ) -> ObjectInfo:
        """Put it in place where the one with this ETag stands, or none; else raise ConditionFailed."""


class LockState(NamedTuple):
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
        store: LockStore,
        renewal_store: LockStore,
        *,
        term: timedelta = LEASE_TERM,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._renewal_store = renewal_store
        self._monotonic = monotonic
        self._own_state = LockState("", "", 0)
        self._other_etag = ""
        self._holder: object = None
        self._own_record = current_holder().to_record()
        self._other_seen_at = 0.0
        self.term = term

    def acquire(self, owner: str) -> bool:
        """Take it where it is free, this owner's, or another's that has not moved for a term."""
        seen = self._read_state(self._store)
        self._holder = seen.holder
        if seen.owner not in {"", owner} and not self._has_expired(seen.etag):
            return False
        if not self._replace_state(self._store, owner, seen):
            return False
        self._verify_conditional_writes(owner)
        return True

    def record_holder(self, owner: str) -> None:
        """Nothing: it stands in the object."""

    def read_holder(self) -> object:
        """What stood in the object when this one wanted to take it."""
        return self._holder

    def renew(self, owner: str) -> bool:
        """A beat. One whose answer was lost stands there, and is known as this owner's."""
        seen = self._own_state
        for _ in range(_MAX_RENEW_ATTEMPTS):
            if seen.owner == owner and self._replace_state(self._renewal_store, owner, seen):
                return True
            seen = self._read_state(self._renewal_store)
            if not seen.etag:
                seen = seen._replace(owner=owner)
            if seen.owner != owner:
                return False
        return False

    def release(self, owner: str) -> None:
        """Mark it free. One that others have by now stays theirs."""
        seen = self._own_state
        if seen.owner != owner or not self._replace_state(self._renewal_store, "", seen):
            seen = self._read_state(self._renewal_store)
            if seen.owner == owner:
                self._replace_state(self._renewal_store, "", seen)
        self._own_state = LockState("", "", 0)

    def _read_state(self, store: LockStore) -> LockState:
        stored = store.read(LOCK_OBJECT_NAME)
        if stored is None:
            return LockState("", "", 0)
        try:
            said = read_mapping(parse_json(b"".join(stored.chunks), max_bytes=MAX_LOCK_BYTES))
            return LockState(stored.info.etag, read_text(said["owner"]), read_count(said["beat"]), said.get("holder"))
        except (ValueError, KeyError):
            raise DestinationError(
                f"{LOCK_OBJECT_NAME} in {self._store.display_name} is not a lock of tilesync",
                hint="delete it, when no run is under way",
            ) from None

    def _has_expired(self, etag: str) -> bool:
        """Whether this one has been seen for a whole term. Its holder counts from before it wrote it: less."""
        now = self._monotonic()
        if etag != self._other_etag:
            self._other_etag, self._other_seen_at = etag, now
        return now - self._other_seen_at >= self.term.total_seconds()

    def _replace_state(self, store: LockStore, owner: str, seen: LockState) -> bool:
        """Replace what was seen; whether it was there still. No two bodies are alike, so that no two ETags are."""
        mine = LockState("", owner, seen.beat + 1)
        said = {"holder": self._own_record} if owner else {}
        body = json.dumps({"owner": owner, "beat": mine.beat, "at": time.time_ns(), **said}).encode()
        try:
            found = store.write(LOCK_OBJECT_NAME, [body], _LOCK_HEADERS, expected_etag=seen.etag)
        except ConditionFailed:
            return False
        self._own_state = mine._replace(etag=found.etag)
        return True

    def _verify_conditional_writes(self, owner: str) -> None:
        """Raise DestinationError where the store takes no heed of conditions: then this is no lock."""
        for etag in ("", _NONEXISTENT_ETAG):
            if self._replace_state(self._store, owner, LockState(etag, owner, self._own_state.beat)):
                raise DestinationError(
                    f"{self._store.display_name} cannot be locked: the server overwrites objects that it was told to leave"
                    " alone",
                    hint="the server must know conditional writes (If-None-Match, If-Match)",
                )
