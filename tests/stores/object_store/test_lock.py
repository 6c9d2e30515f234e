"""The lock of a destination in an object store, on a real lease."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from azure.storage.blob import BlobLeaseClient

from tests.support.azure_destination import LEASE_TERM, azure_objects, ignore_event
from tests.support.azurite import AzureProxy, Azurite, ProxiedRequest, RefusedResponse, new_container
from tilesync.errors import DestinationBusy, DestinationError, Transient, Unavailable
from tilesync.events import Event, Notice
from tilesync.model.storage import ObjectHeaders
from tilesync.protocols import Lease, Objects
from tilesync.runtime.threads import without_retries
from tilesync.stores.azure.lease import LOCK_BLOB_NAME
from tilesync.stores.object_store import lock as lock_module
from tilesync.stores.object_store.lock import (
    HeldElsewhere,
    LeaseRenewer,
    hold_lease,
    read_or_create_owner_id,
    wait_for_lock,
)


@pytest.fixture
def objects(azurite: Azurite) -> Iterator[Objects]:
    with azure_objects(new_container(azurite)) as result:
        yield result


def states(tmp_path: Path) -> tuple[Path, Path]:
    """Return the state folders of two machines."""
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        folder.mkdir()
    return folders


def test_one_run_at_a_time(objects: Objects, tmp_path: Path) -> None:
    """The holder of the lock keeps other runs out until it ends."""
    one, two = states(tmp_path)
    with hold_lease(objects.lease(), one, "x") as lock:
        lock.require_held()
        with pytest.raises(HeldElsewhere), hold_lease(objects.lease(), two, "x"):
            pass
    with hold_lease(objects.lease(), two, "x") as lock:
        lock.require_held()


def test_the_error_names_process_host_and_time(objects: Objects, tmp_path: Path) -> None:
    """A refused run learns who holds the lock, since when, and for which iModel.

    Without a record, as older releases left none, it learns only that another run holds it.
    """
    one, two = states(tmp_path)
    deadline, message = time.monotonic() + 10, ""
    with hold_lease(objects.lease(), one, "x"):
        while "process" not in message and time.monotonic() < deadline:  # it is written while the run goes on
            with pytest.raises(HeldElsewhere) as error, hold_lease(objects.lease(), two, "x", lambda: "imodel-1"):
                pass
            message = str(error.value)
    name = f"another run holds x, for the iModel imodel-1: process {os.getpid()} on {socket.gethostname()}, since 20"
    assert message.startswith(name)
    objects.write(LOCK_BLOB_NAME, [b""], ObjectHeaders("", None, ""))
    assert objects.lease().acquire(read_or_create_owner_id(one))
    with pytest.raises(HeldElsewhere, match=r"another run holds x$"), hold_lease(objects.lease(), two, "x"):
        pass


def test_a_killed_owner_acquires_its_lease_at_once(objects: Objects, tmp_path: Path) -> None:
    """A lease that was not released is acquired by the same state folder at once, and by no other."""
    one, two = states(tmp_path)
    assert objects.lease().acquire(read_or_create_owner_id(one))
    with pytest.raises(HeldElsewhere), hold_lease(objects.lease(), two, "x"):
        pass
    with hold_lease(objects.lease(), one, "x") as lock:
        lock.require_held()


@pytest.mark.scale
def test_a_dead_lease_is_acquired_after_a_term(objects: Objects, tmp_path: Path) -> None:
    """Another state folder waits for the end of the term, and no longer."""
    one, two = states(tmp_path)
    assert objects.lease().acquire(read_or_create_owner_id(one))
    started, lease = time.monotonic(), objects.lease()
    while not lease.acquire(read_or_create_owner_id(two)):
        time.sleep(0.2)
        assert time.monotonic() - started < 2 * LEASE_TERM.total_seconds()
    assert not objects.lease().renew(read_or_create_owner_id(one))


class ScriptedLease:
    """A lease with a short term and scripted results of its renewals."""

    term = timedelta(seconds=0.3)

    def __init__(self, *answers: bool | Exception) -> None:
        self.answers = list(answers)
        self.released = threading.Event()

    def acquire(self, owner: str) -> bool:
        return True

    def record_holder(self, owner: str) -> None:
        pass

    def read_holder(self) -> object:
        return None

    def renew(self, owner: str) -> bool:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def release(self, owner: str) -> None:
        self.released.set()


def start_renewer(lease: Lease) -> LeaseRenewer:
    lock = LeaseRenewer(lease, str(uuid.uuid4()), "x")
    lock.start()
    return lock


def wait_for_error(lock: LeaseRenewer, error: type[Exception]) -> None:
    """Return when `require_held` raises this error."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            lock.require_held()
        except error:
            return
        time.sleep(0.01)
    raise AssertionError(f"{error.__name__} was never raised")


def test_a_lost_lease_stops_writes() -> None:
    """After another run acquired the lease, writes raise, and the lease is not released."""
    lease = ScriptedLease(True, False)
    lock = start_renewer(lease)
    wait_for_error(lock, DestinationBusy)
    with pytest.raises(DestinationBusy):
        lock.ensure_renewed()
    lock.release()
    assert not lease.released.is_set()


def test_an_outage_longer_than_the_term_stops_writes_until_it_ends() -> None:
    """Writes stop while the store does not answer, and go on once it says that nobody acquired the lease."""
    lease = ScriptedLease(Unavailable("no answer"))
    lock = start_renewer(lease)
    wait_for_error(lock, Transient)
    with pytest.raises(Unavailable):
        lock.ensure_renewed()
    lease.answers = [True]
    lock.ensure_renewed()
    lock.require_held()
    lock.release()
    assert lease.released.is_set()


def test_a_slow_renewal_is_repeated() -> None:
    """A renewal slower than the term proves nothing; if all are slow, Unavailable is raised."""

    class Slow(ScriptedLease):
        seconds = 0.4

        def renew(self, owner: str) -> bool:
            time.sleep(self.seconds)
            return super().renew(owner)

    lease = Slow(True)
    lock = LeaseRenewer(lease, str(uuid.uuid4()), "x")
    time.sleep(0.2)
    with pytest.raises(Unavailable, match="could not be renewed"):
        lock.ensure_renewed()
    lease.seconds = 0.0
    lock.ensure_renewed()


@pytest.mark.long
@pytest.mark.scale
def test_a_hanging_renewal_loses_nothing(azurite: Azurite, tmp_path: Path) -> None:
    """It times out early enough for the next one, so the lease is kept and writes go on."""
    url = new_container(azurite)
    with AzureProxy(azurite) as proxy:
        hung, over = threading.Event(), threading.Event()

        def intercept(passing: ProxiedRequest) -> None:
            if passing.headers.get("x-ms-lease-action") == "renew" and not hung.is_set():
                hung.set()
                over.wait(60)

        proxy.intercept = intercept
        proxied_url = url.replace(azurite.url, proxy.url)
        with azure_objects(proxied_url) as objects, hold_lease(objects.lease(), tmp_path, "x") as lock:
            assert hung.wait(LEASE_TERM.total_seconds())
            until = time.monotonic() + LEASE_TERM.total_seconds()
            while time.monotonic() < until:
                lock.require_held()
                time.sleep(0.05)
            over.set()


def test_a_broken_lease_is_lost(objects: Objects, tmp_path: Path, azurite: Azurite) -> None:
    """A lease that somebody breaks stops this run."""
    with hold_lease(objects.lease(), tmp_path, "x") as lock:
        container = azurite.service.get_container_client(objects.canonical_url.rstrip("/").rpartition("/")[2])
        BlobLeaseClient(
            container.get_blob_client(LOCK_BLOB_NAME), lease_id=read_or_create_owner_id(tmp_path)
        ).break_lease(0)
        lock._renew()
        with pytest.raises(DestinationBusy):
            lock.require_held()


def test_one_failed_renewal_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next renewal makes up for one that failed."""
    now, renewed = [0.0], threading.Semaphore(0)

    class Timed(ScriptedLease):
        def renew(self, owner: str) -> bool:
            now[0] += self.term.total_seconds() * 2 / 3
            renewed.release()
            return super().renew(owner)

    monkeypatch.setattr(lock_module, "monotonic_seconds", lambda: now[0])
    lease = Timed(Unavailable("no answer"), True)
    lock = start_renewer(lease)
    for _ in range(4):
        assert renewed.acquire(timeout=30)
    lock.release()
    lock.require_held()
    assert lease.released.is_set()


def test_the_owner_id_is_stored_once(tmp_path: Path) -> None:
    """The id is a UUID, the same each time; a file with something else is not overwritten."""
    owner = read_or_create_owner_id(tmp_path)
    assert str(uuid.UUID(owner)) == owner == read_or_create_owner_id(tmp_path)
    (tmp_path / "owner").write_text("mine")
    with pytest.raises(DestinationError):
        read_or_create_owner_id(tmp_path)
    assert (tmp_path / "owner").read_text() == "mine"


def test_an_unknown_response_is_a_destination_error(azurite: Azurite, tmp_path: Path) -> None:
    """An unknown error code does not count as a lock that another run holds."""
    with AzureProxy(azurite) as proxy:
        url = new_container(azurite).replace(azurite.url, proxy.url)
        proxy.intercept = lambda passing: (
            RefusedResponse(409, "Strange") if passing.query.get("comp") == "lease" else None
        )
        with azure_objects(url) as objects, pytest.raises(DestinationError), hold_lease(objects.lease(), tmp_path, "x"):
            pass


def test_a_run_waits_for_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy lock is tried again until it is free, with one notice; then its holder can work."""
    monkeypatch.setattr("tilesync.stores.object_store.lock.LOCK_POLL_S", 0.01)
    outcomes: list[bool] = [False, False, True]
    events: list[Event] = []

    def acquire() -> str:
        if not outcomes.pop(0):
            raise HeldElsewhere("another run holds x")
        return "held"

    assert wait_for_lock(acquire, timedelta(seconds=60), events.append) == "held"
    assert [type(event) for event in events] == [Notice]
    assert "waiting up to" in str(events)


def test_waiting_for_the_lock_ends_with_the_term(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that is still busy after its term, which a dead holder cannot renew, ends the run."""
    monkeypatch.setattr("tilesync.stores.object_store.lock.LOCK_POLL_S", 0.01)

    def acquire() -> None:
        raise HeldElsewhere("another run holds x")

    with pytest.raises(HeldElsewhere):
        wait_for_lock(acquire, timedelta(), ignore_event)


def test_a_cancelled_run_stops_waiting_for_the_lock() -> None:
    """A caller that no longer wants the result does not wait for the next attempt."""
    attempts: list[int] = []

    def acquire() -> None:
        attempts.append(1)
        raise HeldElsewhere("another run holds x")

    async def give_up() -> None:
        await without_retries(lambda: wait_for_lock(acquire, timedelta(seconds=60), ignore_event))

    with pytest.raises(HeldElsewhere):
        asyncio.run(give_up())
    assert len(attempts) == 1
