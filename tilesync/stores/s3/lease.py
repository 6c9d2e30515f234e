"""The lock of a destination in S3: one object, replaced by conditional writes.

S3 has no leases. The object `.tilesync/lock` names the owner, and each renewal changes it. A run that has seen the same
object for a whole term, by its own clock, takes it over; the condition of that write fails if a renewal came first. No
clocks of two machines are compared. Source: Amazon S3 User Guide, "How to prevent object overwrites with conditional
writes".
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final, NamedTuple

from tilesync.core.foreign_json import parse_json, read_count, read_mapping, read_text
from tilesync.errors import ConditionFailed, DestinationError
from tilesync.model.storage import ObjectHeaders
from tilesync.protocols import Objects
from tilesync.stores.local.lock_file import current_holder

LOCK_OBJECT_NAME: Final = ".tilesync/lock"
LEASE_TERM: Final = timedelta(seconds=60)
"""The same term as that of a lease in Azure."""

MAX_LOCK_BYTES: Final = 1 << 16
"""Maximum size of the lock object; it has some hundred bytes."""

_LOCK_HEADERS: Final = ObjectHeaders("application/json", None, "no-cache")
_NONEXISTENT_ETAG: Final = "0" * 32
"""A well-formed ETag that no object has."""

_MAX_RENEW_ATTEMPTS: Final = 3
"""Attempts of one renewal while the object changes at the same moment."""


class LockState(NamedTuple):
    """State of the lock object: ETag ("" if it is missing), owner id ("" if it is free), record of the holder."""

    etag: str
    owner: str
    beat: int
    holder: object = None


class ObjectLease:
    """The lock. It remembers since when it has seen the object of another owner. Used by one thread at a time.

    `renewal_store` is the same store with shorter time limits, for renewals.
    """

    def __init__(
        self,
        store: Objects,
        renewal_store: Objects,
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
        """Acquire the lock if it is free, this owner's, or unchanged for a term; return whether that succeeded."""
        seen = self._read_state(self._store)
        self._holder = seen.holder
        if seen.owner not in {"", owner} and not self._has_expired(seen.etag):
            return False
        if not self._replace_state(self._store, owner, seen):
            return False
        self._verify_conditional_writes(owner)
        return True

    def record_holder(self, owner: str) -> None:
        """Do nothing: the object already names its holder."""

    def read_holder(self) -> object:
        """Return the record of the holder that `acquire` found."""
        return self._holder

    def renew(self, owner: str) -> bool:
        """Renew the lock, and return whether that succeeded.

        A renewal whose response was lost is recognised by its owner, and a deleted object is written again.
        """
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
        """Mark the lock as free. A lock of another owner is left alone."""
        seen = self._own_state
        if seen.owner != owner or not self._replace_state(self._renewal_store, "", seen):
            seen = self._read_state(self._renewal_store)
            if seen.owner == owner:
                self._replace_state(self._renewal_store, "", seen)
        self._own_state = LockState("", "", 0)

    def _read_state(self, store: Objects) -> LockState:
        stored = store.read(LOCK_OBJECT_NAME)
        if stored is None:
            return LockState("", "", 0)
        try:
            record = read_mapping(parse_json(b"".join(stored.chunks), max_bytes=MAX_LOCK_BYTES))
            owner, beat = read_text(record["owner"]), read_count(record["beat"])
            return LockState(stored.info.etag, owner, beat, record.get("holder"))
        except (ValueError, KeyError):
            raise DestinationError(
                f"{LOCK_OBJECT_NAME} in {self._store.display_name} is not a lock of tilesync",
                hint="delete it while no run is active",
            ) from None

    def _has_expired(self, etag: str) -> bool:
        """Return whether this state has been seen for a whole term.

        The holder counts its term from before it wrote the state, so it stops writing before this returns True.
        """
        now = self._monotonic()
        if etag != self._other_etag:
            self._other_etag, self._other_seen_at = etag, now
        return now - self._other_seen_at >= self.term.total_seconds()

    def _replace_state(self, store: Objects, owner: str, seen: LockState) -> bool:
        """Replace the seen state, and return whether it was still current. All bodies, and so all ETags, differ."""
        mine = LockState("", owner, seen.beat + 1)
        holder = {"holder": self._own_record} if owner else {}
        body = json.dumps({"owner": owner, "beat": mine.beat, "at": time.time_ns(), **holder}).encode()
        try:
            found = store.write(LOCK_OBJECT_NAME, [body], _LOCK_HEADERS, expected_etag=seen.etag)
        except ConditionFailed:
            return False
        self._own_state = mine._replace(etag=found.etag)
        return True

    def _verify_conditional_writes(self, owner: str) -> None:
        """Raise DestinationError if the server ignores conditions: then the lock would protect nothing."""
        for etag in ("", _NONEXISTENT_ETAG):
            if self._replace_state(self._store, owner, LockState(etag, owner, self._own_state.beat)):
                raise DestinationError(
                    f"{self._store.display_name} cannot be locked: the server ignores the conditions of writes",
                    hint="the server must support conditional writes (If-None-Match, If-Match)",
                )
