"""The lock of a destination in an object store: held by one run, and kept alive as long as that runs."""

from __future__ import annotations

import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from tilesync.errors import DestinationBusy, DestinationError, TilesyncError, Transient, Unavailable
from tilesync.protocols import Lease
from tilesync.runtime.os_errors import translate_os_errors, translate_read_errors
from tilesync.runtime.threads import STOP_EVENT
from tilesync.stores.local.directory_handles import DirectoryTree
from tilesync.stores.local.fs import read_regular, replace_file_durably
from tilesync.stores.local.lock_file import busy_message
from tilesync.stores.lock_holder import parse_holder

OWNER_FILE = "owner"

_RENEWALS_PER_TERM = 3
"""Times that a lease is renewed within its term."""

_REQUEST_TERM_DIVISOR = 6
_RETRY_TERM_DIVISOR = 12
"""What part of its term an unanswered beat may take, and how long after it comes the next: two such lose nothing."""

_ANNOUNCE_DELAY_S = 1.0
"""Seconds after which it is said who holds a lease: a run that is over by then needs no request for that."""

_MAX_RENEW_ATTEMPTS = 3
"""Times that one beats to be sure of it: the first may have waited longer than it proves."""


def lease_request_timeout(term: timedelta) -> timedelta:
    """How long a request about a lease may take, and be tried again, before the next beat."""
    return term / _REQUEST_TERM_DIVISOR


class HeldElsewhere(DestinationBusy):
    """Another machine holds it, or did until it was killed: that shows when a term is over."""


def monotonic_seconds() -> float:
    """Seconds on a clock that never goes back, and that a machine's sleep does not stop, where there is such a one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


class LeaseRenewer:
    """A lease that a thread keeps alive."""

    def __init__(self, lease: Lease, owner: str, shown: str) -> None:
        self._lease = lease
        self._owner = owner
        self._shown = shown
        self._term = lease.term.total_seconds()
        self._stop = threading.Event()
        self._renew_lock = threading.Lock()
        self._lost = False
        self._renewed_at = monotonic_seconds()
        self._thread = threading.Thread(target=self._renew_until_stopped, name="tilesync-lock", daemon=True)

    def start(self) -> None:
        """Keep it alive from here on."""
        self._thread.start()

    def require_held(self) -> None:
        """Raise DestinationBusy where the lease is another's by now, Transient where nobody knows. Does not block."""
        if self._lost:
            raise DestinationBusy(
                f"the lock of {self._shown} was lost: another run holds it, or did",
                hint="run the same command again when that has ended: it continues where this one stopped",
            )
        if monotonic_seconds() - self._renewed_at > self._term:
            raise Transient(f"the lock of {self._shown} could not be renewed for {self._term:.0f} s")

    def ensure_renewed(self) -> None:
        """Return when the lease is this run's for sure. Raises DestinationBusy, Unavailable."""
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
            began = monotonic_seconds()
            self._lost = self._lost or not self._lease.renew(self._owner)
            self._renewed_at = began if not self._lost else self._renewed_at

    def _renew_until_stopped(self) -> None:
        STOP_EVENT.set(self._stop)
        pause = self._term / _RENEWALS_PER_TERM
        if not self._stop.wait(min(_ANNOUNCE_DELAY_S, pause)):
            with suppress(TilesyncError):  # it is for a message only
                self._lease.record_holder(self._owner)
        while not self._lost and not self._stop.wait(pause):
            pause = self._term / _RETRY_TERM_DIVISOR
            with suppress(TilesyncError):  # not reached: the next beat tries again, and `demand` knows the time
                self._renew()
                pause = self._term / _RENEWALS_PER_TERM

    def release(self) -> None:
        """Give it back. Where that cannot be said, the lease ends by itself."""
        self._stop.set()
        self._thread.join()
        if not self._lost:
            with suppress(TilesyncError):
                self._lease.release(self._owner)


@contextmanager
def hold_lease(
    lease: Lease, state: Path, shown: str, find_owner: Callable[[], str | None] = lambda: None
) -> Iterator[LeaseRenewer]:
    """The lease, as long as the context is open. Raises HeldElsewhere at once when another has it; `of` says whose the
    place is, for that sentence.

    Its owner is told by the state folder: who was killed there takes it up again at once.
    """
    owner = read_or_create_owner_id(state)
    lock = LeaseRenewer(lease, owner, shown)  # its time counts from before the lease is asked for
    if not lease.acquire(owner):
        raise _busy_error(lease, shown, find_owner)
    lock.start()
    try:
        yield lock
    finally:
        lock.release()


def _busy_error(lease: Lease, shown: str, find_owner: Callable[[], str | None]) -> HeldElsewhere:
    holder, owner = None, None
    with suppress(TilesyncError):  # it says less then
        holder, owner = parse_holder(lease.read_holder()), find_owner()
    return HeldElsewhere(busy_message(shown, holder, owner), hint="wait for the other run to end")


def read_or_create_owner_id(state: Path) -> str:
    """The id by which runs with this state folder hold leases: a UUID, written down before it is first used."""
    path = state / OWNER_FILE
    with translate_read_errors(f"cannot read {path}"):
        folder = DirectoryTree(state).folder()
        entry = folder.entry(OWNER_FILE)
        known = read_regular(entry) if entry.find_stat() is not None else None
    if known is not None:
        try:
            return str(uuid.UUID(known.decode().strip()))
        except ValueError:
            raise DestinationError(f"{path} holds no id", hint="delete it, when no run is under way") from None
    with translate_os_errors(f"cannot write {path}"):
        owner = str(uuid.uuid4())
        replace_file_durably(folder.entry(f"{OWNER_FILE}.new"), entry, [owner.encode()])
    return owner
