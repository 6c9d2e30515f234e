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

from tests.support.azure_destination import silent
from tests.support.s3 import BucketRoad, BucketServer, Mishap, Request, bucket_objects, error
from tilesync.core.http_headers import Serving
from tilesync.errors import DestinationError, NotAuthorised, Unavailable
from tilesync.stores.object_store.destination import open_objects
from tilesync.stores.object_store.lock import HeldElsewhere
from tilesync.stores.s3.client import S3Objects
from tilesync.stores.s3.lease import LOCK, ObjectLease

TERM = timedelta(seconds=60)


class Clock:
    """A clock that one turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def objects(bucket_server: BucketServer, bucket: str) -> Iterator[S3Objects]:
    with bucket_objects(bucket_server.url, bucket, prefix="p/") as found:
        yield found


def lease(objects: S3Objects, clock: Clock | None = None) -> ObjectLease:
    return ObjectLease(objects, objects, term=TERM, monotonic=clock or Clock())


def beats(request: Request) -> bool:
    return request.method == "PUT" and request.target.endswith(LOCK)


def test_one_at_a_time(objects: S3Objects) -> None:
    """Whoever takes it first has it; another is refused until it is given back, then has it at once."""
    mine, other = lease(objects), lease(objects)
    assert mine.take("me")
    assert not other.take("you")
    assert mine.keep("me")
    assert not other.keep("you")
    mine.leave("me")
    assert other.take("you")
    assert not mine.keep("me")


def test_its_owner_takes_it_up_at_once(objects: S3Objects) -> None:
    """Who was killed finds its own id there, and goes on without waiting; what it left behind can beat no more."""
    killed, again = lease(objects), lease(objects)
    assert killed.take("me")
    assert again.take("me")
    assert again.keep("me")
    assert not lease(objects).take("you")


def test_it_is_taken_over_after_a_term_of_silence(objects: S3Objects) -> None:
    """Another's that did not move for a whole term, seen by one's own clock, is free; its owner has lost it then."""
    clock = Clock()
    killed, other = lease(objects), lease(objects, clock)
    assert killed.take("me")
    assert not other.take("you")
    clock.now += 59.9
    assert not other.take("you")
    clock.now += 0.2
    assert other.take("you")
    assert not killed.keep("me")
    killed.leave("me")
    assert other.keep("you")


def test_it_is_not_taken_over_while_it_beats(objects: S3Objects) -> None:
    """Each beat begins the term anew, also one that comes just before the other would take it."""
    clock = Clock()
    mine, other = lease(objects), lease(objects, clock)
    assert mine.take("me")
    for _ in range(5):
        assert not other.take("you")
        clock.now += 40
        assert mine.keep("me")
    assert not other.take("you")
    clock.now += 60
    assert other.take("you")


def test_an_owner_that_begins_again_is_seen_to_move(objects: S3Objects) -> None:
    """What two runs of one owner leave there is never the same, so that no one takes the second for the first."""
    clock = Clock()
    other = lease(objects, clock)
    assert lease(objects).take("me")
    assert not other.take("you")
    objects.delete([LOCK])
    clock.now += 60
    assert lease(objects).take("me")
    assert not other.take("you")


def test_a_beat_between_look_and_grasp_wins(bucket_server: BucketServer, bucket: str, objects: S3Objects) -> None:
    """Where its owner beats in the moment in which another takes it over, it stays the owner's."""
    clock, mine = Clock(), lease(objects)
    assert mine.take("me")
    with BucketRoad(bucket_server) as road, bucket_objects(road.url, bucket, prefix="p/") as far:
        other = lease(far, clock)
        assert not other.take("you")
        clock.now += 60

        def late(target: str) -> str:
            if road.passed[-1].method == "PUT":
                assert mine.keep("me")
            return target

        road.rewrite = late
        assert not other.take("you")
    assert mine.keep("me")


@pytest.mark.parametrize("lost", [1, 3, 9])
def test_a_lost_answer_locks_nobody_out(bucket_server: BucketServer, bucket: str, lost: int) -> None:
    """Beats that were counted there and whose answers never came are known as one's own, within a call or later."""
    mishap = Mishap(beats, lost=True, times=lost, skip=3)  # after taking, and the proof that conditions hold
    budget = timedelta(seconds=0.4)
    with (
        BucketRoad(bucket_server, mishap) as road,
        bucket_objects(road.url, bucket, budget=budget) as objects,
    ):
        mine = lease(objects)
        assert mine.take("me")
        for _ in range(20):
            try:
                assert mine.keep("me")
                if mishap.hits == lost:
                    break
            except Unavailable:
                continue
        assert mine.keep("me")
        mine.leave("me")
        assert lease(objects).take("you")


def test_a_lock_that_is_gone_is_made_anew(objects: S3Objects) -> None:
    """Where someone deleted it, and nobody else took it, its owner keeps it."""
    mine = lease(objects)
    assert mine.take("me")
    objects.delete([LOCK])
    assert mine.keep("me")
    assert not lease(objects).take("you")
    objects.delete([LOCK])
    assert lease(objects).take("you")
    assert not mine.keep("me")


def test_what_it_is_not(objects: S3Objects, bucket_server: BucketServer, bucket: str) -> None:
    """An object that says no owner is no lock, and is left alone."""
    for body in (b"?", b"[]", b"{}", json.dumps({"owner": "me", "beat": "x"}).encode()):
        bucket_server.client.put_object(Bucket=bucket, Key=f"p/{LOCK}", Body=body)
        with pytest.raises(DestinationError, match="is not a lock"):
            lease(objects).take("me")


@pytest.mark.parametrize("headers", [("if-match", "if-none-match"), ("if-match",), ("if-none-match",)])
def test_a_server_without_conditions_is_refused(
    bucket_server: BucketServer, bucket: str, headers: tuple[str, ...]
) -> None:
    """Where objects are overwritten whatever the condition, there is no lock, and that is said."""
    deaf = Mishap(lambda request: True, strip=headers, times=1000)
    with (
        BucketRoad(bucket_server, deaf) as road,
        bucket_objects(road.url, bucket) as objects,
        pytest.raises(DestinationError, match="cannot be locked") as raised,
    ):
        lease(objects).take("me")
    assert "conditional writes" in raised.value.hint


def test_an_outage_ends_a_beat_soon(bucket_server: BucketServer, bucket: str) -> None:
    """A beat, and giving it back, are not tried for as long as all else: others come, or it ends by itself."""
    down = Mishap(beats, answer=error(503, "SlowDown"), times=10_000, skip=3)
    with (
        BucketRoad(bucket_server, down) as road,
        bucket_objects(road.url, bucket, budget=timedelta(seconds=60), term=timedelta(seconds=3)) as objects,
    ):
        mine = objects.lease()
        assert mine.take("me")
        for ask in (mine.keep, mine.leave):
            began = time.monotonic()
            with pytest.raises(Unavailable):
                ask("me")
            assert time.monotonic() - began < 10


def test_a_refusal_is_told(bucket_server: BucketServer, bucket: str) -> None:
    """Who may not write there is told so."""
    with (
        BucketRoad(bucket_server, Mishap(beats, answer=error(403, "AccessDenied"))) as road,
        bucket_objects(road.url, bucket) as objects,
        pytest.raises(NotAuthorised),
    ):
        lease(objects).take("me")


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
            open_objects(mine, tmp_path / "mine", Serving(), silent),
            pytest.raises(HeldElsewhere, match=rf": process {os.getpid()} on {socket.gethostname()}, since 20"),
            open_objects(yours, tmp_path / "yours", Serving(), silent),
        ):
            pass
        with open_objects(yours, tmp_path / "yours", Serving(), silent):
            pass
        assert mine.lease().take("killed")
        clock = Clock()
        yours.lease()._monotonic = clock
        for _ in range(2):
            with pytest.raises(HeldElsewhere), open_objects(yours, tmp_path / "yours", Serving(), silent):
                pass
        clock.now += 3
        with open_objects(yours, tmp_path / "yours", Serving(), silent):
            pass


def test_a_lease_that_another_had_meanwhile_is_lost(bucket_server: BucketServer, bucket: str) -> None:
    """Though that one gave it back: what was written in between is not known here."""
    term = timedelta(seconds=0.3)
    opening = [bucket_objects(bucket_server.url, bucket, term=term) for _ in range(2)]
    with opening[0] as one, opening[1] as two:
        mine, yours = one.lease(), two.lease()
        assert mine.take("me")
        assert not yours.take("you")
        time.sleep(0.4)
        assert yours.take("you")
        yours.leave("you")
        assert not mine.keep("me")
