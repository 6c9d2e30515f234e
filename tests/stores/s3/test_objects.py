"""Objects of a bucket: conditional writes, copies, and bodies that break off."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.s3 import BucketServer, S3Fault, S3Proxy, S3Request, bucket_objects
from tilesync.errors import ConditionFailed, DestinationError
from tilesync.stores.s3.multipart import MAX_COPY_OBJECT_BYTES

if TYPE_CHECKING:
    pass
from tests.support.s3 import BIG, PLAIN


@pytest.mark.parametrize("size", [3, len(BIG)])
def test_conditional_writes(bucket_server: BucketServer, bucket: str, size: int) -> None:
    """An object is replaced only if its ETag is the expected one; parts of a failed upload are deleted."""
    data = BIG[:size]
    with bucket_objects(bucket_server.url, bucket) as objects:
        with pytest.raises(ConditionFailed):
            objects.write("a", [data], PLAIN, expected_etag="0" * 32)
        first = objects.write("a", [data], PLAIN, expected_etag="")
        with pytest.raises(ConditionFailed):
            objects.write("a", [b"x", data], PLAIN, expected_etag="")
        second = objects.write("a", [b"y", data], PLAIN, expected_etag=first.etag)
        with pytest.raises(ConditionFailed):
            objects.write("a", [b"z", data], PLAIN, expected_etag=first.etag)
        assert objects.find("a") == second
    assert bucket_server.unfinished_uploads(bucket) == []


@pytest.mark.parametrize("size", [3, len(BIG)])
def test_a_lost_response_to_a_conditional_write_is_no_failure(
    bucket_server: BucketServer, bucket: str, size: int
) -> None:
    """The second attempt recognises the object that the first one wrote."""

    def last(request: S3Request) -> bool:
        return request.method in {"PUT", "POST"} and "if-match" in request.headers

    with bucket_objects(bucket_server.url, bucket) as objects:
        first = objects.write("a", [b"first"], PLAIN)
    with S3Proxy(bucket_server, S3Fault(last, lost=True)) as proxy, bucket_objects(proxy.url, bucket) as objects:
        result = objects.write("a", [BIG[:size]], PLAIN, expected_etag=first.etag)
        assert (result.size, objects.find("a")) == (size, result)


def test_copies_are_of_the_expected_object(bucket_server: BucketServer, bucket: str) -> None:
    """A missing, replaced or too large object is not copied, and nothing has the new name."""
    with bucket_objects(bucket_server.url, bucket) as objects:
        old = objects.write("a", [b"1"], PLAIN)
        new = objects.write("a", [b"2"], PLAIN)
        assert objects.copy(old, "b") is None
        assert objects.copy(old._replace(name="none"), "b") is None
        assert objects.copy(new._replace(size=MAX_COPY_OBJECT_BYTES + 1), "b") is None
        assert objects.find("b") is None
        large = objects.write("c", [BIG], PLAIN)
        copied = objects.copy(large, "d")
        assert copied is not None
        assert copied.size == len(BIG)
    with S3Proxy(bucket_server) as proxy, bucket_objects(proxy.url, bucket) as objects:
        objects.copy(new, "b")
        (request,) = (request for request in proxy.requests if request.method == "PUT")
        assert request.headers["x-amz-copy-source-if-match"] == f'"{new.etag}"'


def test_a_body_is_resumed(bucket_server: BucketServer, bucket: str) -> None:
    """A large body that breaks off twice is completed with range requests for the same ETag."""
    cuts = [S3Fault(_is_object_read, cut=3 << 20), S3Fault(_is_object_read, cut=5 << 20)]
    with S3Proxy(bucket_server, *cuts) as proxy, bucket_objects(proxy.url, bucket) as objects:
        result = objects.write("a", [BIG], PLAIN)
        stored = objects.read("a")
        assert stored is not None
        assert b"".join(stored.chunks) == BIG
        first, *others = (request.headers for request in proxy.requests if request.method == "GET")
        assert "range" not in first
        assert len(others) == 2
        assert all(headers["if-match"] == f'"{result.etag}"' and headers["range"] for headers in others)


def test_a_replaced_object_is_not_mixed(bucket_server: BucketServer, bucket: str) -> None:
    """An object that is replaced while it is read is an error."""
    with (
        S3Proxy(bucket_server, S3Fault(_is_object_read, cut=3 << 20)) as proxy,
        bucket_objects(proxy.url, bucket) as objects,
    ):
        objects.write("a", [BIG], PLAIN)
        stored = objects.read("a")
        assert stored is not None
        objects.write("a", [BIG[::-1]], PLAIN)
        with pytest.raises(DestinationError, match="replaced or deleted meanwhile"):
            list(stored.chunks)


def _is_object_read(request: S3Request) -> bool:
    return request.method == "GET" and not request.query
