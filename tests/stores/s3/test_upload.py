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

from tests.support.s3 import BucketServer, S3Fault, S3Proxy, S3Request, bucket_objects, error_response
from tilesync.errors import DestinationError, NotAuthorised, Transient
from tilesync.events import Event, Notice
from tilesync.model.storage import ObjectHeaders, ObjectInfo
from tilesync.stores.s3.client import S3Objects
from tilesync.stores.s3.multipart import PART_BYTES, choose_part_bytes, compute_multipart_etag
from tilesync.stores.s3.upload import S3Upload

LABEL = ObjectHeaders("model/gltf-binary")
BIG = random.Random(2).randbytes(3 * PART_BYTES + 5)
STEP = 3_000_000


def is_create_upload(request: S3Request) -> bool:
    return request.method == "POST" and request.query == "uploads"


def is_upload_part(request: S3Request) -> bool:
    return "partNumber" in request.query


def is_complete_upload(request: S3Request) -> bool:
    return request.method == "POST" and request.query.startswith("uploadId")


async def retry_transient(work: Callable[[], Awaitable[ObjectInfo | None]]) -> ObjectInfo | None:
    """Do it again until it is done, as the jobs do."""
    for _ in range(5):
        try:
            return await work()
        except Transient:
            continue
    return await work()


async def send_all(upload: S3Upload, data: bytes) -> ObjectInfo:
    for start in range(0, len(data), STEP):
        await retry_transient(partial(upload.append, data[start : start + STEP]))
    found = await retry_transient(lambda: upload.finish(hashlib.md5(data).digest()))
    assert found is not None
    return found


def read_object(objects: S3Objects, name: str) -> bytes:
    stored = objects.read(name)
    assert stored is not None
    return b"".join(stored.chunks)


@pytest.mark.parametrize("size", [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES, len(BIG)])
def test_any_size_comes_whole(bucket_server: BucketServer, bucket: str, size: int) -> None:
    """The object has the bytes, is what `find` tells, and what fits into a part goes in one request."""
    with S3Proxy(bucket_server) as road, bucket_objects(road.url, bucket, prefix="p/") as objects:
        found = asyncio.run(send_all(objects.begin_upload("a", size, LABEL), BIG[:size]))
        puts = [request for request in road.requests if request.method == "PUT"]
        assert len(puts) == max(1, -(-size // PART_BYTES))
        assert any(map(is_upload_part, puts)) == (size > PART_BYTES)
        assert (found.name, found.size) == ("p/a", size)
        assert objects.find("a") == found._replace(name="a")
        assert read_object(objects, "a") == BIG[:size]


def test_it_is_not_there_before_it_is_whole(bucket_server: BucketServer, bucket: str) -> None:
    """Until it is finished nothing is there, or what was there before; given up it leaves nothing to pay for."""

    async def work(objects: S3Objects) -> None:
        upload = objects.begin_upload("a", len(BIG), LABEL)
        await upload.append(BIG)
        assert bucket_server.unfinished_uploads(bucket) == ["a"]
        assert read_object(objects, "a") == b"old"
        await upload.abort()
        await upload.abort()
        assert bucket_server.unfinished_uploads(bucket) == []
        await send_all(upload, BIG[: PART_BYTES + 1])

    with bucket_objects(bucket_server.url, bucket) as objects:
        objects.write("a", [b"old"], LABEL)
        asyncio.run(work(objects))
        assert read_object(objects, "a") == BIG[: PART_BYTES + 1]
    assert bucket_server.unfinished_uploads(bucket) == []


@pytest.mark.parametrize("when", [is_create_upload, is_upload_part, is_complete_upload])
@pytest.mark.parametrize("how", ["lost", "503"])
def test_each_step_may_be_done_again(
    bucket_server: BucketServer, bucket: str, when: Callable[[S3Request], bool], how: str
) -> None:
    """A step that failed, or was done and its answer lost, is done again, and the whole is right; nothing stays."""
    mishap = S3Fault(when, lost=True) if how == "lost" else S3Fault(when, answer=error_response(503, "SlowDown"))
    second = S3Fault(when, lost=True, skip_first=1) if how == "lost" and when is is_upload_part else None
    with (
        S3Proxy(bucket_server, *filter(None, [mishap, second])) as road,
        bucket_objects(road.url, bucket) as objects,
    ):
        upload = objects.begin_upload("a", len(BIG), LABEL)
        found = asyncio.run(send_all(upload, BIG))
        assert objects.find("a") == found
        assert read_object(objects, "a") == BIG
    assert bucket_server.unfinished_uploads(bucket) == []


def test_a_completed_upload_is_known(bucket_server: BucketServer, bucket: str) -> None:
    """Where the answer was lost and the server has forgotten the upload, what lies there tells; another object does
    not pass for it.
    """
    gone = S3Fault(is_complete_upload, answer=error_response(404, "NoSuchUpload"))
    with (
        S3Proxy(bucket_server, S3Fault(is_complete_upload, lost=True), gone) as road,
        bucket_objects(road.url, bucket) as objects,
    ):
        found = asyncio.run(send_all(objects.begin_upload("a", len(BIG), LABEL), BIG))
        parts = [hashlib.md5(BIG[start : start + PART_BYTES]).digest() for start in range(0, len(BIG), PART_BYTES)]
        assert found.etag == compute_multipart_etag(parts)
    other = S3Fault(is_complete_upload, answer=error_response(404, "NoSuchUpload"))
    with S3Proxy(bucket_server, other) as road, bucket_objects(road.url, bucket) as objects:
        with pytest.raises(DestinationError, match="NoSuchUpload"):
            asyncio.run(send_all(objects.begin_upload("a", len(BIG), LABEL), BIG[::-1]))
        assert read_object(objects, "a") == BIG


def test_pressure_is_seen(bucket_server: BucketServer, bucket: str) -> None:
    """A part that the server has no time for is told as pressure, and none of its bytes are in."""

    async def work(objects: S3Objects) -> None:
        upload = objects.begin_upload("a", len(BIG), LABEL)
        with pytest.raises(Transient) as raised:
            await upload.append(BIG)
        assert raised.value.is_throttled
        await upload.append(BIG)
        await upload.finish(None)

    slow = S3Fault(is_upload_part, answer=error_response(503, "SlowDown"), skip_first=1)
    with S3Proxy(bucket_server, slow) as road, bucket_objects(road.url, bucket) as objects:
        asyncio.run(work(objects))
        assert read_object(objects, "a") == BIG


def test_a_part_that_is_spoilt_is_sent_again(bucket_server: BucketServer, bucket: str) -> None:
    """What the server found to be other bytes is no failure of the destination."""
    spoilt = S3Fault(is_upload_part, answer=error_response(400, "BadDigest"))
    with S3Proxy(bucket_server, spoilt) as road, bucket_objects(road.url, bucket) as objects:
        asyncio.run(send_all(objects.begin_upload("a", len(BIG), LABEL), BIG))
        assert read_object(objects, "a") == BIG


def test_parts_that_cannot_be_deleted_are_told(bucket_server: BucketServer, bucket: str) -> None:
    """Who may not give uploads up is told what stays behind, and goes on."""
    events: list[Event] = []

    async def work(objects: S3Objects) -> None:
        upload = objects.begin_upload("a", len(BIG), LABEL)
        await upload.append(BIG)
        await upload.abort()

    denied = S3Fault(lambda request: request.method == "DELETE", answer=error_response(403, "AccessDenied"))
    with (
        S3Proxy(bucket_server, denied) as road,
        bucket_objects(road.url, bucket, observe=events.append) as objects,
    ):
        asyncio.run(work(objects))
    (notice,) = events
    assert isinstance(notice, Notice)
    assert "parts of an unfinished upload stay" in notice.message


def test_a_refusal_is_told(bucket_server: BucketServer, bucket: str) -> None:
    """Who may not write is told so at the first part."""
    denied = S3Fault(lambda request: request.method in {"POST", "PUT"}, answer=error_response(403, "AccessDenied"))
    with (
        S3Proxy(bucket_server, denied) as road,
        bucket_objects(road.url, bucket) as objects,
        pytest.raises(NotAuthorised),
    ):
        asyncio.run(send_all(objects.begin_upload("a", len(BIG), LABEL), BIG))


def test_a_cancelled_append_leaves_nothing_under_way(bucket_server: BucketServer, bucket: str) -> None:
    """Cancelled while a part is on its way it waits for that, so that what is given up afterwards is all there is."""

    async def work(objects: S3Objects) -> None:
        upload = objects.begin_upload("a", len(BIG), LABEL)
        task = asyncio.create_task(upload.append(BIG))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await upload.abort()

    with bucket_objects(bucket_server.url, bucket, budget=timedelta(seconds=5)) as objects:
        asyncio.run(work(objects))
    assert bucket_server.unfinished_uploads(bucket) == []
    assert bucket_server.keys(bucket) == []


def test_memory_is_that_of_a_few_parts(bucket_server: BucketServer, bucket: str) -> None:
    """However large the object, a few parts of it are held at most."""

    async def work(objects: S3Objects) -> int:
        upload = objects.begin_upload("a", 10 * PART_BYTES, LABEL)
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
        assert asyncio.run(work(objects)) < 4 * PART_BYTES


def test_parts_grow_with_the_object() -> None:
    """The largest object that S3 takes fits into the parts that it allows, and most have the least of them."""
    assert choose_part_bytes(0) == choose_part_bytes(-1) == choose_part_bytes(9_000 * PART_BYTES) == PART_BYTES
    assert choose_part_bytes(9_000 * PART_BYTES + 1) == PART_BYTES + 1
    assert -(-(5 << 40) // choose_part_bytes(5 << 40)) <= 10_000
