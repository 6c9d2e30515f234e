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
from tilesync.runtime.os_errors import mapped, reading
from tilesync.runtime.threads import STOP
from tilesync.stores.local.directory_handles import Tree
from tilesync.stores.local.fs import place, read_regular
from tilesync.stores.local.lock_file import busy
from tilesync.stores.lock_holder import read_holder

OWNER = "owner"

_BEATS = 3
"""Times that a lease is renewed within its term."""

_PATIENCE = 6
_PAUSE = 12
"""What part of its term an unanswered beat may take, and how long after it comes the next: two such lose nothing."""

_SHORT = 1.0
"""Seconds after which it is said who holds a lease: a run that is over by then needs no request for that."""

_TURNS = 3
"""Times that one beats to be sure of it: the first may have waited longer than it proves."""


def patience_of(term: timedelta) -> timedelta:
    """How long a request about a lease may take, and be tried again, before the next beat."""
    return term / _PATIENCE


class HeldElsewhere(DestinationBusy):
    """Another machine holds it, or did until it was killed: that shows when a term is over."""


def now() -> float:
    """Seconds on a clock that never goes back, and that a machine's sleep does not stop, where there is such a one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


class Lock:
    """A lease that a thread keeps alive."""

    def __init__(self, lease: Lease, owner: str, shown: str) -> None:
        self._lease = lease
        self._owner = owner
        self._shown = shown
        self._term = lease.term.total_seconds()
        self._ended = threading.Event()
        self._beating = threading.Lock()
        self._lost = False
        self._kept_at = now()
        self._thread = threading.Thread(target=self._keep, name="tilesync-lock", daemon=True)

    def start(self) -> None:
        """Keep it alive from here on."""
        self._thread.start()

    def demand(self) -> None:
        """Raise DestinationBusy where the lease is another's by now, Transient where nobody knows. Does not block."""
        if self._lost:
            raise DestinationBusy(
                f"the lock of {self._shown} was lost: another run holds it, or did",
                hint="run the same command again when that has ended: it continues where this one stopped",
            )
        if now() - self._kept_at > self._term:
            raise Transient(f"the lock of {self._shown} could not be renewed for {self._term:.0f} s")

    def secure(self) -> None:
        """Return when the lease is this run's for sure. Raises DestinationBusy, Unavailable."""
        for _ in range(_TURNS):
            if self._lost or now() - self._kept_at <= self._term / 2:
                break
            self._beat()
        try:
            self.demand()
        except Transient as error:
            raise Unavailable(
                str(error), hint="run the same command again: it continues where this one stopped"
            ) from error

    def _beat(self) -> None:
        with self._beating:
            began = now()
            self._lost = self._lost or not self._lease.keep(self._owner)
            self._kept_at = began if not self._lost else self._kept_at

    def _keep(self) -> None:
        STOP.set(self._ended)
        pause = self._term / _BEATS
        if not self._ended.wait(min(_SHORT, pause)):
            with suppress(TilesyncError):  # it is for a message only
                self._lease.announce(self._owner)
        while not self._lost and not self._ended.wait(pause):
            pause = self._term / _PAUSE
            with suppress(TilesyncError):  # not reached: the next beat tries again, and `demand` knows the time
                self._beat()
                pause = self._term / _BEATS

    def release(self) -> None:
        """Give it back. Where that cannot be said, the lease ends by itself."""
        self._ended.set()
        self._thread.join()
        if not self._lost:
            with suppress(TilesyncError):
                self._lease.leave(self._owner)


@contextmanager
def locked(lease: Lease, state: Path, shown: str, of: Callable[[], str | None] = lambda: None) -> Iterator[Lock]:
    """The lease, as long as the context is open. Raises HeldElsewhere at once when another has it; `of` says whose the
    place is, for that sentence.

    Its owner is told by the state folder: who was killed there takes it up again at once.
    """
    owner = owner_of(state)
    lock = Lock(lease, owner, shown)  # its time counts from before the lease is asked for
    if not lease.take(owner):
        raise _kept_out(lease, shown, of)
    lock.start()
    try:
        yield lock
    finally:
        lock.release()


def _kept_out(lease: Lease, shown: str, of: Callable[[], str | None]) -> HeldElsewhere:
    holder, owner = None, None
    with suppress(TilesyncError):  # it says less then
        holder, owner = read_holder(lease.holder()), of()
    return HeldElsewhere(busy(shown, holder, owner), hint="wait for the other run to end")


def owner_of(state: Path) -> str:
    """The id by which runs with this state folder hold leases: a UUID, written down before it is first used."""
    path = state / OWNER
    with reading(f"cannot read {path}"):
        folder = Tree(state).folder()
        entry = folder.entry(OWNER)
        known = read_regular(entry) if entry.find() is not None else None
    if known is not None:
        try:
            return str(uuid.UUID(known.decode().strip()))
        except ValueError:
            raise DestinationError(f"{path} holds no id", hint="delete it, when no run is under way") from None
    with mapped(f"cannot write {path}"):
        owner = str(uuid.uuid4())
        place(folder.entry(f"{OWNER}.new"), entry, [owner.encode()])
    return owner
