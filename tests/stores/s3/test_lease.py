"""The lock of a bucket, on a real S3 server: time is told by a clock that one turns."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.azure_destination import ignore_event
from tests.support.s3 import BucketServer, S3Fault, S3Proxy, S3Request, bucket_objects, error_response
from tilesync.core.http_headers import CachePolicy
from tilesync.errors import DestinationError, NotAuthorised, Unavailable
from tilesync.stores.object_store.destination import open_objects
from tilesync.stores.object_store.lock import HeldElsewhere
from tilesync.stores.s3.client import S3Objects
from tilesync.stores.s3.lease import LOCK_OBJECT_NAME, ObjectLease

TERM = timedelta(seconds=60)


class ManualClock:
    """A clock that one turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def objects(bucket_server: BucketServer, bucket: str) -> Iterator[S3Objects]:
    with bucket_objects(bucket_server.url, bucket, prefix="p/") as found:
        yield found


def new_lease(objects: S3Objects, clock: ManualClock | None = None) -> ObjectLease:
    return ObjectLease(objects, objects, term=TERM, monotonic=clock or ManualClock())


def is_lock_write(request: S3Request) -> bool:
    return request.method == "PUT" and request.target.endswith(LOCK_OBJECT_NAME)


def test_one_at_a_time(objects: S3Objects) -> None:
    """Whoever takes it first has it; another is refused until it is given back, then has it at once."""
    mine, other = new_lease(objects), new_lease(objects)
    assert mine.acquire("me")
    assert not other.acquire("you")
    assert mine.renew("me")
    assert not other.renew("you")
    mine.release("me")
    assert other.acquire("you")
    assert not mine.renew("me")


def test_its_owner_takes_it_up_at_once(objects: S3Objects) -> None:
    """Who was killed finds its own id there, and goes on without waiting; what it left behind can beat no more."""
    killed, again = new_lease(objects), new_lease(objects)
    assert killed.acquire("me")
    assert again.acquire("me")
    assert again.renew("me")
    assert not new_lease(objects).acquire("you")


def test_it_is_taken_over_after_a_term_of_silence(objects: S3Objects) -> None:
    """Another's that did not move for a whole term, seen by one's own clock, is free; its owner has lost it then."""
    clock = ManualClock()
    killed, other = new_lease(objects), new_lease(objects, clock)
    assert killed.acquire("me")
    assert not other.acquire("you")
    clock.now += 59.9
    assert not other.acquire("you")
    clock.now += 0.2
    assert other.acquire("you")
    assert not killed.renew("me")
    killed.release("me")
    assert other.renew("you")


def test_it_is_not_taken_over_while_it_beats(objects: S3Objects) -> None:
    """Each beat begins the term anew, also one that comes just before the other would take it."""
    clock = ManualClock()
    mine, other = new_lease(objects), new_lease(objects, clock)
    assert mine.acquire("me")
    for _ in range(5):
        assert not other.acquire("you")
        clock.now += 40
        assert mine.renew("me")
    assert not other.acquire("you")
    clock.now += 60
    assert other.acquire("you")


def test_an_owner_that_begins_again_is_seen_to_move(objects: S3Objects) -> None:
    """What two runs of one owner leave there is never the same, so that no one takes the second for the first."""
    clock = ManualClock()
    other = new_lease(objects, clock)
    assert new_lease(objects).acquire("me")
    assert not other.acquire("you")
    objects.delete([LOCK_OBJECT_NAME])
    clock.now += 60
    assert new_lease(objects).acquire("me")
    assert not other.acquire("you")


def test_a_beat_between_look_and_grasp_wins(bucket_server: BucketServer, bucket: str, objects: S3Objects) -> None:
    """Where its owner beats in the moment in which another takes it over, it stays the owner's."""
    clock, mine = ManualClock(), new_lease(objects)
    assert mine.acquire("me")
    with S3Proxy(bucket_server) as road, bucket_objects(road.url, bucket, prefix="p/") as far:
        other = new_lease(far, clock)
        assert not other.acquire("you")
        clock.now += 60

        def late(target: str) -> str:
            if road.requests[-1].method == "PUT":
                assert mine.renew("me")
            return target

        road.rewrite = late
        assert not other.acquire("you")
    assert mine.renew("me")


@pytest.mark.parametrize("lost", [1, 3, 9])
def test_a_lost_answer_locks_nobody_out(bucket_server: BucketServer, bucket: str, lost: int) -> None:
    """Beats that were counted there and whose answers never came are known as one's own, within a call or later."""
    mishap = S3Fault(
        is_lock_write, lost=True, max_hits=lost, skip_first=3
    )  # after taking, and the proof that conditions hold
    budget = timedelta(seconds=0.4)
    with (
        S3Proxy(bucket_server, mishap) as road,
        bucket_objects(road.url, bucket, budget=budget) as objects,
    ):
        mine = new_lease(objects)
        assert mine.acquire("me")
        for _ in range(20):
            try:
                assert mine.renew("me")
                if mishap.hits == lost:
                    break
            except Unavailable:
                continue
        assert mine.renew("me")
        mine.release("me")
        assert new_lease(objects).acquire("you")


def test_a_lock_that_is_gone_is_made_anew(objects: S3Objects) -> None:
    """Where someone deleted it, and nobody else took it, its owner keeps it."""
    mine = new_lease(objects)
    assert mine.acquire("me")
    objects.delete([LOCK_OBJECT_NAME])
    assert mine.renew("me")
    assert not new_lease(objects).acquire("you")
    objects.delete([LOCK_OBJECT_NAME])
    assert new_lease(objects).acquire("you")
    assert not mine.renew("me")


def test_what_it_is_not(objects: S3Objects, bucket_server: BucketServer, bucket: str) -> None:
    """An object that says no owner is no lock, and is left alone."""
    for body in (b"?", b"[]", b"{}", json.dumps({"owner": "me", "beat": "x"}).encode()):
        bucket_server.client.put_object(Bucket=bucket, Key=f"p/{LOCK_OBJECT_NAME}", Body=body)
        with pytest.raises(DestinationError, match="is not a lock"):
            new_lease(objects).acquire("me")


@pytest.mark.parametrize("headers", [("if-match", "if-none-match"), ("if-match",), ("if-none-match",)])
def test_a_server_without_conditions_is_refused(
    bucket_server: BucketServer, bucket: str, headers: tuple[str, ...]
) -> None:
    """Where objects are overwritten whatever the condition, there is no lock, and that is said."""
    deaf = S3Fault(lambda request: True, removed_headers=headers, max_hits=1000)
    with (
        S3Proxy(bucket_server, deaf) as road,
        bucket_objects(road.url, bucket) as objects,
        pytest.raises(DestinationError, match="cannot be locked") as raised,
    ):
        new_lease(objects).acquire("me")
    assert "conditional writes" in raised.value.hint


def test_an_outage_ends_a_beat_soon(bucket_server: BucketServer, bucket: str) -> None:
    """A beat, and giving it back, are not tried for as long as all else: others come, or it ends by itself."""
    down = S3Fault(is_lock_write, answer=error_response(503, "SlowDown"), max_hits=10_000, skip_first=3)
    with (
        S3Proxy(bucket_server, down) as road,
        bucket_objects(road.url, bucket, budget=timedelta(seconds=60), term=timedelta(seconds=3)) as objects,
    ):
        mine = objects.lease()
        assert mine.acquire("me")
        for ask in (mine.renew, mine.release):
            began = time.monotonic()
            with pytest.raises(Unavailable):
                ask("me")
            assert time.monotonic() - began < 10


def test_a_refusal_is_told(bucket_server: BucketServer, bucket: str) -> None:
    """Who may not write there is told so."""
    with (
        S3Proxy(bucket_server, S3Fault(is_lock_write, answer=error_response(403, "AccessDenied"))) as road,
        bucket_objects(road.url, bucket) as objects,
        pytest.raises(NotAuthorised),
    ):
        new_lease(objects).acquire("me")


def test_a_destination_is_locked_by_it(bucket_server: BucketServer, bucket: str, tmp_path: Path) -> None:
    """While a run is under way another machine is refused, and told who runs; what it saw counts when it asks again:
    after a term without a beat the destination is its own.
    """
    with (
        bucket_objects(bucket_server.url, bucket, term=timedelta(seconds=3)) as mine,
        bucket_objects(bucket_server.url, bucket, term=timedelta(seconds=3)) as yours,
    ):
        assert mine.lease() is mine.lease()
        with (
            open_objects(mine, tmp_path / "mine", CachePolicy(), ignore_event),
            pytest.raises(HeldElsewhere, match=rf": process {os.getpid()} on {socket.gethostname()}, since 20"),
            open_objects(yours, tmp_path / "yours", CachePolicy(), ignore_event),
        ):
            pass
        with open_objects(yours, tmp_path / "yours", CachePolicy(), ignore_event):
            pass
        assert mine.lease().acquire("killed")
        clock = ManualClock()
        yours.lease()._monotonic = clock
        for _ in range(2):
            with pytest.raises(HeldElsewhere), open_objects(yours, tmp_path / "yours", CachePolicy(), ignore_event):
                pass
        clock.now += 3
        with open_objects(yours, tmp_path / "yours", CachePolicy(), ignore_event):
            pass


def test_a_lease_that_another_had_meanwhile_is_lost(bucket_server: BucketServer, bucket: str) -> None:
    """Though that one gave it back: what was written in between is not known here."""
    term = timedelta(seconds=0.3)
    opening = [bucket_objects(bucket_server.url, bucket, term=term) for _ in range(2)]
    with opening[0] as one, opening[1] as two:
        mine, yours = one.lease(), two.lease()
        assert mine.acquire("me")
        assert not yours.acquire("you")
        time.sleep(0.4)
        assert yours.acquire("you")
        yours.release("you")
        assert not mine.renew("me")
