"""Large objects on their way into a bucket, on a real S3 server."""

from __future__ import annotations

import asyncio
import hashlib
import random
import tracemalloc
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

import pytest

from tests.support.s3 import BucketRoad, BucketServer, Mishap, Request, bucket_objects, error
from tilesync.errors import DestinationError, NotAuthorised, Transient
from tilesync.events import Event, Notice
from tilesync.model.storage import Found, Label
from tilesync.stores.s3.client import S3Objects
from tilesync.stores.s3.multipart import PART, etag_of, part_of
from tilesync.stores.s3.upload import S3Upload

LABEL = Label("model/gltf-binary")
BIG = random.Random(2).randbytes(3 * PART + 5)
STEP = 3_000_000


def begins(request: Request) -> bool:
    return request.method == "POST" and request.query == "uploads"


def part(request: Request) -> bool:
    return "partNumber" in request.query


def completes(request: Request) -> bool:
    return request.method == "POST" and request.query.startswith("uploadId")


async def insist(work: Callable[[], Awaitable[Found | None]]) -> Found | None:
    """Do it again until it is done, as the jobs do."""
    for _ in range(5):
        try:
            return await work()
        except Transient:
            continue
    return await work()


async def send(upload: S3Upload, data: bytes) -> Found:
    for start in range(0, len(data), STEP):
        await insist(partial(upload.append, data[start : start + STEP]))
    found = await insist(lambda: upload.finish(hashlib.md5(data).digest()))
    assert found is not None
    return found


def content(objects: S3Objects, name: str) -> bytes:
    stored = objects.read(name)
    assert stored is not None
    return b"".join(stored.chunks)


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 2 * PART, len(BIG)])
def test_any_size_comes_whole(bucket_server: BucketServer, bucket: str, size: int) -> None:
    """The object has the bytes, is what `find` tells, and what fits into a part goes in one request."""
    with BucketRoad(bucket_server) as road, bucket_objects(road.url, bucket, prefix="p/") as objects:
        found = asyncio.run(send(objects.begin("a", size, LABEL), BIG[:size]))
        puts = [request for request in road.passed if request.method == "PUT"]
        assert len(puts) == max(1, -(-size // PART))
        assert any(map(part, puts)) == (size > PART)
        assert (found.name, found.size) == ("p/a", size)
        assert objects.find("a") == found._replace(name="a")
        assert content(objects, "a") == BIG[:size]


def test_it_is_not_there_before_it_is_whole(bucket_server: BucketServer, bucket: str) -> None:
    """Until it is finished nothing is there, or what was there before; given up it leaves nothing to pay for."""

    async def work(objects: S3Objects) -> None:
        upload = objects.begin("a", len(BIG), LABEL)
        await upload.append(BIG)
        assert bucket_server.uploads(bucket) == ["a"]
        assert content(objects, "a") == b"old"
        await upload.abort()
        await upload.abort()
        assert bucket_server.uploads(bucket) == []
        await send(upload, BIG[: PART + 1])

    with bucket_objects(bucket_server.url, bucket) as objects:
        objects.write("a", [b"old"], LABEL)
        asyncio.run(work(objects))
        assert content(objects, "a") == BIG[: PART + 1]
    assert bucket_server.uploads(bucket) == []


@pytest.mark.parametrize("when", [begins, part, completes])
@pytest.mark.parametrize("how", ["lost", "503"])
def test_each_step_may_be_done_again(
    bucket_server: BucketServer, bucket: str, when: Callable[[Request], bool], how: str
) -> None:
    """A step that failed, or was done and its answer lost, is done again, and the whole is right; nothing stays."""
    mishap = Mishap(when, lost=True) if how == "lost" else Mishap(when, answer=error(503, "SlowDown"))
    second = Mishap(when, lost=True, skip=1) if how == "lost" and when is part else None
    with (
        BucketRoad(bucket_server, *filter(None, [mishap, second])) as road,
        bucket_objects(road.url, bucket) as objects,
    ):
        upload = objects.begin("a", len(BIG), LABEL)
        found = asyncio.run(send(upload, BIG))
        assert objects.find("a") == found
        assert content(objects, "a") == BIG
    assert bucket_server.uploads(bucket) == []


def test_a_completed_upload_is_known(bucket_server: BucketServer, bucket: str) -> None:
    """Where the answer was lost and the server has forgotten the upload, what lies there tells; another object does
    not pass for it.
    """
    gone = Mishap(completes, answer=error(404, "NoSuchUpload"))
    with (
        BucketRoad(bucket_server, Mishap(completes, lost=True), gone) as road,
        bucket_objects(road.url, bucket) as objects,
    ):
        found = asyncio.run(send(objects.begin("a", len(BIG), LABEL), BIG))
        parts = [hashlib.md5(BIG[start : start + PART]).digest() for start in range(0, len(BIG), PART)]
        assert found.etag == etag_of(parts)
    other = Mishap(completes, answer=error(404, "NoSuchUpload"))
    with BucketRoad(bucket_server, other) as road, bucket_objects(road.url, bucket) as objects:
        with pytest.raises(DestinationError, match="NoSuchUpload"):
            asyncio.run(send(objects.begin("a", len(BIG), LABEL), BIG[::-1]))
        assert content(objects, "a") == BIG


def test_pressure_is_seen(bucket_server: BucketServer, bucket: str) -> None:
    """A part that the server has no time for is told as pressure, and none of its bytes are in."""

    async def work(objects: S3Objects) -> None:
        upload = objects.begin("a", len(BIG), LABEL)
        with pytest.raises(Transient) as raised:
            await upload.append(BIG)
        assert raised.value.pressure
        await upload.append(BIG)
        await upload.finish(None)

    slow = Mishap(part, answer=error(503, "SlowDown"), skip=1)
    with BucketRoad(bucket_server, slow) as road, bucket_objects(road.url, bucket) as objects:
        asyncio.run(work(objects))
        assert content(objects, "a") == BIG


def test_a_part_that_is_spoilt_is_sent_again(bucket_server: BucketServer, bucket: str) -> None:
    """What the server found to be other bytes is no failure of the destination."""
    spoilt = Mishap(part, answer=error(400, "BadDigest"))
    with BucketRoad(bucket_server, spoilt) as road, bucket_objects(road.url, bucket) as objects:
        asyncio.run(send(objects.begin("a", len(BIG), LABEL), BIG))
        assert content(objects, "a") == BIG


def test_parts_that_cannot_be_deleted_are_told(bucket_server: BucketServer, bucket: str) -> None:
    """Who may not give uploads up is told what stays behind, and goes on."""
    events: list[Event] = []

    async def work(objects: S3Objects) -> None:
        upload = objects.begin("a", len(BIG), LABEL)
        await upload.append(BIG)
        await upload.abort()

    denied = Mishap(lambda request: request.method == "DELETE", answer=error(403, "AccessDenied"))
    with (
        BucketRoad(bucket_server, denied) as road,
        bucket_objects(road.url, bucket, observe=events.append) as objects,
    ):
        asyncio.run(work(objects))
    (notice,) = events
    assert isinstance(notice, Notice)
    assert "parts of an unfinished upload stay" in notice.message


def test_a_refusal_is_told(bucket_server: BucketServer, bucket: str) -> None:
    """Who may not write is told so at the first part."""
    denied = Mishap(lambda request: request.method in {"POST", "PUT"}, answer=error(403, "AccessDenied"))
    with (
        BucketRoad(bucket_server, denied) as road,
        bucket_objects(road.url, bucket) as objects,
        pytest.raises(NotAuthorised),
    ):
        asyncio.run(send(objects.begin("a", len(BIG), LABEL), BIG))


def test_a_cancelled_append_leaves_nothing_under_way(bucket_server: BucketServer, bucket: str) -> None:
    """Cancelled while a part is on its way it waits for that, so that what is given up afterwards is all there is."""

    async def work(objects: S3Objects) -> None:
        upload = objects.begin("a", len(BIG), LABEL)
        task = asyncio.create_task(upload.append(BIG))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await upload.abort()

    with bucket_objects(bucket_server.url, bucket, budget=timedelta(seconds=5)) as objects:
        asyncio.run(work(objects))
    assert bucket_server.uploads(bucket) == []
    assert bucket_server.keys(bucket) == []


def test_memory_is_that_of_a_few_parts(bucket_server: BucketServer, bucket: str) -> None:
    """However large the object, a few parts of it are held at most."""

    async def work(objects: S3Objects) -> int:
        upload = objects.begin("a", 10 * PART, LABEL)
        piece = bytes(1 << 20)
        await upload.append(piece * 9)
        tracemalloc.start()
        try:
            for _ in range(30):
                await upload.append(bytes(1 << 20))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            await upload.abort()

    with bucket_objects(bucket_server.url, bucket) as objects:
        assert asyncio.run(work(objects)) < 4 * PART


def test_parts_grow_with_the_object() -> None:
    """The largest object that S3 takes fits into the parts that it allows, and most have the least of them."""
    assert part_of(0) == part_of(-1) == part_of(9_000 * PART) == PART
    assert part_of(9_000 * PART + 1) == PART + 1
    assert -(-(5 << 40) // part_of(5 << 40)) <= 10_000
