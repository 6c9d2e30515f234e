"""Upload large objects in parts, on a real S3 server."""

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
    """Repeat the work after Transient errors, as the jobs do."""
    for _ in range(5):
        try:
            return await work()
        except Transient:
            continue
    return await work()


async def send_all(upload: S3Upload, data: bytes) -> ObjectInfo:
    for start in range(0, len(data), STEP):
        await retry_transient(partial(upload.append, data[start : start + STEP]))
    result = await retry_transient(lambda: upload.finish(hashlib.md5(data).digest()))
    assert result is not None
    return result


def read_object(objects: S3Objects, name: str) -> bytes:
    stored = objects.read(name)
    assert stored is not None
    return b"".join(stored.chunks)


@pytest.mark.parametrize("size", [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES, len(BIG)])
def test_any_size_is_uploaded_whole(bucket_server: BucketServer, bucket: str, size: int) -> None:
    """The object has the bytes, `find` returns the same info, and one part or less goes in one request."""
    with S3Proxy(bucket_server) as proxy, bucket_objects(proxy.url, bucket, prefix="p/") as objects:
        result = asyncio.run(send_all(objects.begin_upload("a", size, LABEL), BIG[:size]))
        puts = [request for request in proxy.requests if request.method == "PUT"]
        assert len(puts) == max(1, -(-size // PART_BYTES))
        assert any(map(is_upload_part, puts)) == (size > PART_BYTES)
        assert (result.name, result.size) == ("p/a", size)
        assert objects.find("a") == result._replace(name="a")
        assert read_object(objects, "a") == BIG[:size]


def test_an_upload_is_invisible_until_it_is_complete(bucket_server: BucketServer, bucket: str) -> None:
    """Before that the old object stays; after an abort no parts stay."""

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
def test_each_step_may_be_repeated(
    bucket_server: BucketServer, bucket: str, when: Callable[[S3Request], bool], how: str
) -> None:
    """A step that failed, or whose response was lost, is repeated; the object is right, and no parts stay."""
    fault = S3Fault(when, lost=True) if how == "lost" else S3Fault(when, answer=error_response(503, "SlowDown"))
    second = S3Fault(when, lost=True, skip_first=1) if how == "lost" and when is is_upload_part else None
    with (
        S3Proxy(bucket_server, *filter(None, [fault, second])) as proxy,
        bucket_objects(proxy.url, bucket) as objects,
    ):
        upload = objects.begin_upload("a", len(BIG), LABEL)
        result = asyncio.run(send_all(upload, BIG))
        assert objects.find("a") == result
        assert read_object(objects, "a") == BIG
    assert bucket_server.unfinished_uploads(bucket) == []


def test_a_completed_upload_is_recognised(bucket_server: BucketServer, bucket: str) -> None:
    """After a lost response the object itself shows that it is complete; another object does not pass for it."""
    gone = S3Fault(is_complete_upload, answer=error_response(404, "NoSuchUpload"))
    with (
        S3Proxy(bucket_server, S3Fault(is_complete_upload, lost=True), gone) as proxy,
        bucket_objects(proxy.url, bucket) as objects,
    ):
        result = asyncio.run(send_all(objects.begin_upload("a", len(BIG), LABEL), BIG))
        parts = [hashlib.md5(BIG[start : start + PART_BYTES]).digest() for start in range(0, len(BIG), PART_BYTES)]
        assert result.etag == compute_multipart_etag(parts)
    other = S3Fault(is_complete_upload, answer=error_response(404, "NoSuchUpload"))
    with S3Proxy(bucket_server, other) as proxy, bucket_objects(proxy.url, bucket) as objects:
        with pytest.raises(DestinationError, match="NoSuchUpload"):
            asyncio.run(send_all(objects.begin_upload("a", len(BIG), LABEL), BIG[::-1]))
        assert read_object(objects, "a") == BIG


def test_throttling_is_reported(bucket_server: BucketServer, bucket: str) -> None:
    """A throttled part raises Transient with `is_throttled`, and none of its bytes count as sent."""

    async def work(objects: S3Objects) -> None:
        upload = objects.begin_upload("a", len(BIG), LABEL)
        with pytest.raises(Transient) as raised:
            await upload.append(BIG)
        assert raised.value.is_throttled
        await upload.append(BIG)
        await upload.finish(None)

    slow = S3Fault(is_upload_part, answer=error_response(503, "SlowDown"), skip_first=1)
    with S3Proxy(bucket_server, slow) as proxy, bucket_objects(proxy.url, bucket) as objects:
        asyncio.run(work(objects))
        assert read_object(objects, "a") == BIG


def test_a_corrupted_part_is_sent_again(bucket_server: BucketServer, bucket: str) -> None:
    """A part that arrives corrupted is retried, and is no failure of the destination."""
    corrupted = S3Fault(is_upload_part, answer=error_response(400, "BadDigest"))
    with S3Proxy(bucket_server, corrupted) as proxy, bucket_objects(proxy.url, bucket) as objects:
        asyncio.run(send_all(objects.begin_upload("a", len(BIG), LABEL), BIG))
        assert read_object(objects, "a") == BIG


def test_parts_that_cannot_be_deleted_are_reported(bucket_server: BucketServer, bucket: str) -> None:
    """Without the permission to abort uploads a notice says that parts stay, and the run goes on."""
    events: list[Event] = []

    async def work(objects: S3Objects) -> None:
        upload = objects.begin_upload("a", len(BIG), LABEL)
        await upload.append(BIG)
        await upload.abort()

    denied = S3Fault(lambda request: request.method == "DELETE", answer=error_response(403, "AccessDenied"))
    with (
        S3Proxy(bucket_server, denied) as proxy,
        bucket_objects(proxy.url, bucket, observe=events.append) as objects,
    ):
        asyncio.run(work(objects))
    (notice,) = events
    assert isinstance(notice, Notice)
    assert "parts of an unfinished upload stay" in notice.message


def test_a_refused_upload_is_not_authorised(bucket_server: BucketServer, bucket: str) -> None:
    """Without the permission to write the first part raises NotAuthorised."""
    denied = S3Fault(lambda request: request.method in {"POST", "PUT"}, answer=error_response(403, "AccessDenied"))
    with (
        S3Proxy(bucket_server, denied) as proxy,
        bucket_objects(proxy.url, bucket) as objects,
        pytest.raises(NotAuthorised),
    ):
        asyncio.run(send_all(objects.begin_upload("a", len(BIG), LABEL), BIG))


def test_a_cancelled_append_waits_for_its_part(bucket_server: BucketServer, bucket: str) -> None:
    """A cancelled append waits for the part under way, so that the abort afterwards removes everything."""

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


def test_memory_holds_a_few_parts(bucket_server: BucketServer, bucket: str) -> None:
    """For an object of any size only a few parts are in memory."""

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


def test_part_size_grows_with_the_object() -> None:
    """The largest object of S3 fits into the allowed number of parts; most have the minimum part size."""
    assert choose_part_bytes(0) == choose_part_bytes(-1) == choose_part_bytes(9_000 * PART_BYTES) == PART_BYTES
    assert choose_part_bytes(9_000 * PART_BYTES + 1) == PART_BYTES + 1
    assert -(-(5 << 40) // choose_part_bytes(5 << 40)) <= 10_000
