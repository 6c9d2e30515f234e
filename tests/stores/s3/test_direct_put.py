"""Uploads and reads of worker processes: one request for each object, as obstore would store it."""

from __future__ import annotations

import asyncio
import hashlib
import pickle
from collections.abc import Sequence
from datetime import timedelta

import pytest

from tests.support.builders import glb
from tests.support.s3 import SECRET, BucketServer, S3Fault, S3Proxy, bucket_objects, error_response
from tilesync.core.http_headers import CachePolicy
from tilesync.model import Blob, Digests, StoredFile
from tilesync.stores.object_store.listing_cache import is_unchanged
from tilesync.stores.s3.client import S3Objects
from tilesync.stores.s3.direct_put import S3PutTarget, S3WorkerStore
from tilesync.stores.worker_target import PendingUpload
from tilesync.transport.http1_connection import PoolResponse
from tilesync.transport.http1_pool import HttpPool, PoolRequest

FILES = {
    "tileset.json": b"{}",
    "tiles/a b+ü%41.glb": glb(b"one"),
    "tiles/packed.glb": b"\x1f\x8b" + bytes(40),
    "empty": b"",
}


def digests_of(data: bytes) -> Digests:
    return Digests(len(data), hashlib.sha256(data).digest(), hashlib.md5(data, usedforsecurity=False).digest())


def blob_of(name: str) -> Blob:
    return Blob(name, len(FILES[name]), "e", content_encoding="gzip" if "packed" in name else None)


async def put_target(objects: S3Objects) -> S3PutTarget:
    access = objects.worker_access()
    assert access is not None
    return await access.make_put_target(CachePolicy())


async def worker_store(objects: S3Objects) -> S3WorkerStore:
    access = objects.worker_access()
    assert access is not None
    return await access.make_worker_store()


async def send(requests: Sequence[PoolRequest]) -> dict[int, PoolResponse]:
    """Send requests as a worker does; return the responses of those that succeed."""
    responses = dict[int, PoolResponse]()
    pool = HttpPool()
    try:
        await pool.send_all(requests, responses.__setitem__, max_connections=4, time_limit=timedelta(seconds=20))
    finally:
        pool.close()
    return responses


def make_uploads(target: S3PutTarget) -> list[PendingUpload]:
    return [target.put_verified("e1", blob_of(name), data, digests_of(data)) for name, data in FILES.items()]


def put_all(objects: S3Objects) -> list[StoredFile]:
    async def work() -> list[StoredFile]:
        uploads = make_uploads(pickle.loads(pickle.dumps(await put_target(objects))))
        responses = await send([each.request for each in uploads])
        return [uploads[number].make_stored_file(response) for number, response in sorted(responses.items())]

    return asyncio.run(work())


@pytest.mark.parametrize("prefix", ["", "a b+c/ä%41/"])
def test_an_object_is_stored_as_obstore_stores_it(bucket_server: BucketServer, bucket: str, prefix: str) -> None:
    """Bytes, headers, checksum and stamp are those of an object that the main process writes; one request each."""
    with S3Proxy(bucket_server) as proxy, bucket_objects(proxy.url, bucket, prefix=prefix) as objects:
        stored = put_all(objects)
        assert [each.method for each in proxy.requests] == ["PUT"] * len(FILES)
        for each, (name, data) in zip(stored, FILES.items(), strict=True):
            assert is_unchanged(each, objects.find(f"versions/e1/{name}"))
            objects.write(
                f"other/{name}", [data], CachePolicy().file_headers(blob_of(name), data[:64]), expected_etag=None
            )
            ours, theirs = (
                bucket_server.client.get_object(Bucket=bucket, Key=f"{prefix}{folder}{name}", ChecksumMode="ENABLED")
                for folder in ("versions/e1/", "other/")
            )
            assert ours["Body"].read() == theirs["Body"].read() == data
            for header in ("ContentType", "CacheControl", "ContentEncoding", "ETag", "ChecksumSHA256"):
                assert ours.get(header) == theirs.get(header), header


def test_a_refused_upload_is_left_out(bucket_server: BucketServer, bucket: str) -> None:
    """An upload that the service refuses has no result; the others do."""
    fault = S3Fault(lambda request: request.target.endswith("/empty"), answer=error_response(503, "SlowDown"))
    with S3Proxy(bucket_server, fault) as proxy, bucket_objects(proxy.url, bucket) as objects:
        assert [each.blob.name for each in put_all(objects)] == [name for name in FILES if name != "empty"]


def test_objects_are_read_with_their_stamps(bucket_server: BucketServer, bucket: str) -> None:
    """A worker reads exactly the bytes, and the stamp that the upload recorded; an unsafe name is never sent."""
    with bucket_objects(bucket_server.url, bucket, prefix="p/") as objects:
        stored = put_all(objects)

        async def read_all() -> list[tuple[bytes, int]]:
            store: S3WorkerStore = pickle.loads(pickle.dumps(await worker_store(objects)))
            assert store.make_read_request("e1", StoredFile(Blob("../x", 1), b"", 0)) is None
            requests = [store.make_read_request("e1", each) for each in stored]
            responses = await send([each for each in requests if each is not None])
            return [(each.body, store.read_stamp(each).mtime_ns) for _, each in sorted(responses.items())]

        found = asyncio.run(read_all())
    assert found == [(FILES[each.blob.name], each.mtime_ns) for each in stored]


def test_no_text_shows_the_secret(bucket_server: BucketServer, bucket: str) -> None:
    """Target, store and requests show no key in their text."""
    with bucket_objects(bucket_server.url, bucket) as objects:

        async def texts() -> list[str]:
            target = await put_target(objects)
            return [repr(target), repr(await worker_store(objects)), *map(repr, make_uploads(target))]

        for text in asyncio.run(texts()):
            assert SECRET not in text
            assert "Signature=" not in text
