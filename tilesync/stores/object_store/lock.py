"""Hold the lock of an object-store destination: a lease that a thread renews while the run lasts."""

from __future__ import annotations

import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from tilesync.errors import DestinationBusy, DestinationError, TilesyncError, Transient, Unavailable
from tilesync.events import Notice
from tilesync.protocols import Lease, Observer
from tilesync.runtime.os_errors import translate_os_errors, translate_read_errors
from tilesync.runtime.threads import STOP_EVENT
from tilesync.stores.local.directory_handles import DirectoryTree
from tilesync.stores.local.fs import read_regular, replace_file_durably
from tilesync.stores.local.lock_file import busy_message
from tilesync.stores.status_files import parse_holder

T = TypeVar("T")

OWNER_FILE = "owner"

LOCK_POLL_S = 1.0
"""Seconds between two attempts to acquire the lock."""

_RENEWALS_PER_TERM = 3
"""Renewals of a lease within its term."""

_REQUEST_TERM_DIVISOR = 6
_RETRY_TERM_DIVISOR = 12
"""An unanswered renewal may take a sixth of the term, and the next one starts a twelfth later: so two renewals in a row
may fail, and the lease is still held.
"""

_ANNOUNCE_DELAY_S = 1.0
"""Seconds until the holder is recorded: a run that ends earlier saves that request."""

_MAX_RENEW_ATTEMPTS = 3
"""Maximum renewals before a write: the time that a renewal proves may be over when a slow one returns."""


def lease_request_timeout(term: timedelta) -> timedelta:
    """Return how long a renewal request and its retries may take."""
    return term / _REQUEST_TERM_DIVISOR


class HeldElsewhere(DestinationBusy):
    """The lock is held by another machine, or by a dead run. It cannot be told which until the term ends."""


def wait_for_lock(acquire: Callable[[], T], term: timedelta, observe: Observer) -> T:
    """Call `acquire` until the lock is free, and return its result: the lock of a killed run expires after `term`.

    Gives up a second after that term, or at once if the caller no longer wants the result. Raises HeldElsewhere then.
    """
    stop = STOP_EVENT.get() or threading.Event()
    deadline: float | None = None
    while True:
        try:
            return acquire()
        except HeldElsewhere as error:
            if deadline is None:
                wait_s = term.total_seconds() + LOCK_POLL_S
                deadline = time.monotonic() + wait_s
                observe(Notice(f"{error}; waiting up to {wait_s:.0f} s until that run ends or its lock expires"))
            if time.monotonic() > deadline or stop.wait(LOCK_POLL_S):
                raise


def monotonic_seconds() -> float:
    """Return seconds on a monotonic clock that also counts while the machine sleeps, if the system has one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


class LeaseRenewer:
    """A lease that a thread renews."""

    def __init__(self, lease: Lease, owner: str, display_name: str) -> None:
        self._lease = lease
        self._owner = owner
        self._display_name = display_name
        self._term = lease.term.total_seconds()
        self._stop = threading.Event()
        self._renew_lock = threading.Lock()
        self._lost = False
        self._renewed_at = monotonic_seconds()
        self._thread = threading.Thread(target=self._renew_until_stopped, name="tilesync-lock", daemon=True)

    def start(self) -> None:
        """Start the thread that renews the lease."""
        self._thread.start()

    def require_held(self) -> None:
        """Raise DestinationBusy if another run has the lease, Transient if that is unknown. Does not block."""
        if self._lost:
            raise DestinationBusy(
                f"the lock of {self._display_name} was lost: another run holds it, or did",
                hint="run the same command again when the other run has ended: it continues where this one stopped",
            )
        if monotonic_seconds() - self._renewed_at > self._term:
            raise Transient(f"the lock of {self._display_name} could not be renewed for {self._term:.0f} s")

    def ensure_renewed(self) -> None:
        """Renew the lease if needed, and return once this run surely holds it. Raises DestinationBusy, Unavailable.

        A renewal younger than half a term is proof enough: the other half is left for the write that follows.
        """
        for _ in range(_MAX_RENEW_ATTEMPTS):
            if self._lost or monotonic_seconds() - self._renewed_at <= self._term / 2:
                break
            self._renew()
        try:
            self.require_held()
        except Transient as error:
            raise Unavailable(
                str(error), hint="run the same command again: it continues where this one stopped"
            ) from error

    def _renew(self) -> None:
        with self._renew_lock:
            started = monotonic_seconds()  # the term counts from before the request, so it is never overestimated
            self._lost = self._lost or not self._lease.renew(self._owner)
            self._renewed_at = started if not self._lost else self._renewed_at

    def _renew_until_stopped(self) -> None:
        STOP_EVENT.set(self._stop)
        pause = self._term / _RENEWALS_PER_TERM
        if not self._stop.wait(min(_ANNOUNCE_DELAY_S, pause)):
            with suppress(TilesyncError):  # the record is only for a message
                self._lease.record_holder(self._owner)
        while not self._lost and not self._stop.wait(pause):
            pause = self._term / _RETRY_TERM_DIVISOR
            with suppress(TilesyncError):  # the next renewal tries again; `require_held` knows the time
                self._renew()
                pause = self._term / _RENEWALS_PER_TERM

    def release(self) -> None:
        """Stop the thread and release the lease. If the request fails, the lease ends by itself."""
        self._stop.set()
        self._thread.join()
        if not self._lost:
            with suppress(TilesyncError):
                self._lease.release(self._owner)


@contextmanager
def hold_lease(
    lease: Lease, state: Path, display_name: str, find_owner: Callable[[], str | None] = lambda: None
) -> Iterator[LeaseRenewer]:
    """Hold the lease while the context is open. Raises HeldElsewhere at once when another run has it.

    `find_owner` returns whose exports the destination holds, for that message. The owner id of the lease comes from
    the state folder: after a crash the next run with the same folder acquires the lease at once.
    """
    owner = read_or_create_owner_id(state)
    lock = LeaseRenewer(lease, owner, display_name)  # the term counts from before `acquire`
    if not lease.acquire(owner):
        raise _busy_error(lease, display_name, find_owner)
    lock.start()
    try:
        yield lock
    finally:
        lock.release()


def _busy_error(lease: Lease, display_name: str, find_owner: Callable[[], str | None]) -> HeldElsewhere:
    holder, owner = None, None
    with suppress(TilesyncError):  # then the message has no details
        holder, owner = parse_holder(lease.read_holder()), find_owner()
    return HeldElsewhere(busy_message(display_name, holder, owner), hint="wait for the other run to end")


def read_or_create_owner_id(state: Path) -> str:
    """Return the owner id of leases of this state folder: a UUID, stored before its first use."""
    path = state / OWNER_FILE
    with translate_read_errors(f"cannot read {path}"):
        folder = DirectoryTree(state).folder()
        entry = folder.entry(OWNER_FILE)
        known = read_regular(entry) if entry.find_stat() is not None else None
    if known is not None:
        try:
            return str(uuid.UUID(known.decode().strip()))
        except ValueError:
            raise DestinationError(f"{path} is not a UUID", hint="delete it while no run is active") from None
    with translate_os_errors(f"cannot write {path}"):
        owner = str(uuid.uuid4())
        replace_file_durably(folder.entry(f"{OWNER_FILE}.new"), entry, [owner.encode()])
    return owner
