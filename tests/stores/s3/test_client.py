"""A bucket as destination, on a real S3 server."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.azure_destination import ignore_event
from tests.support.s3 import KEY, SECRET, BucketServer, S3Fault, S3Proxy, S3Request, bucket_objects, error_response
from tests.support.store_contract import DestinationContract, OpenDestination
from tilesync.core.http_headers import CachePolicy
from tilesync.errors import ConditionFailed, DestinationError, NotAuthorised, RunError, Transient, Unavailable
from tilesync.events import Event, Retried
from tilesync.model.storage import ObjectHeaders
from tilesync.stores.object_store.destination import ObjectDestination, open_objects
from tilesync.stores.s3 import objects as s3_objects
from tilesync.stores.s3.client import S3Objects
from tilesync.stores.s3.multipart import MAX_COPY_OBJECT_BYTES, PART_BYTES
from tilesync.stores.s3.objects import ObjectClient

if TYPE_CHECKING:
    from obstore.store import S3Credential

PLAIN = ObjectHeaders("application/octet-stream")
BIG = random.Random(1).randbytes(2 * PART_BYTES + 12_345)
NAMES = [
    "a b",
    "a+b",
    "a%20b",
    "a%2Bb",
    "ä/日本",
    "q#x",
    "q?y",
    "~t",
    "it's",
    "a&b=c;d",
    "(x)!*@:$,",
    "%41%2F",
    "<x>&amp;",
    "e\u0301",
    "..a/.b./c..",
]


@contextmanager
def bucket_destination(url: str, bucket: str, state: Path, *, prefix: str = "") -> Iterator[ObjectDestination]:
    """A destination in a bucket."""
    with (
        bucket_objects(url, bucket, prefix=prefix) as objects,
        open_objects(objects, state, CachePolicy(), ignore_event) as there,
    ):
        yield there


class TestBucket(DestinationContract):
    """A whole bucket."""

    @pytest.fixture
    def opening(self, bucket_server: BucketServer, bucket: str, tmp_path: Path) -> OpenDestination:
        return lambda: bucket_destination(bucket_server.url, bucket, tmp_path / "state")


class TestPrefix(DestinationContract):
    """A folder of a bucket, with a name that must be quoted."""

    @pytest.fixture
    def opening(self, bucket_server: BucketServer, bucket: str, tmp_path: Path) -> OpenDestination:
        return lambda: bucket_destination(bucket_server.url, bucket, tmp_path / "state", prefix="a b+c/ä%41/")


# --- names, listings ---


@pytest.mark.parametrize("prefix", ["", "a b+c/ä%41/"])
def test_names_come_back_as_they_went(bucket_server: BucketServer, bucket: str, prefix: str) -> None:
    """Whatever a name holds, the object has it, is found, read, copied, listed and deleted by it."""
    with bucket_objects(bucket_server.url, bucket, prefix=prefix) as objects:
        found = {name: objects.write(f"v/{name}", [name.encode()], PLAIN) for name in NAMES}
        assert bucket_server.keys(bucket) == sorted(f"{prefix}v/{name}" for name in NAMES)
        for name in NAMES:
            assert objects.find(f"v/{name}") == found[name]
            stored = objects.read(f"v/{name}")
            assert stored is not None
            assert b"".join(stored.chunks) == name.encode()
            copied = objects.copy(found[name], f"w/{name}")
            assert copied == found[name]._replace(name=f"w/{name}")
        for folder in ("v/", "w/"):
            listed = [each.name for page in objects.list_pages(folder) for each in page]
            assert sorted(listed) == sorted(folder + name for name in NAMES)
        objects.delete([folder + name for name in NAMES for folder in ("v/", "w/")])
    assert bucket_server.keys(bucket) == []


def test_a_listing_is_of_what_begins_so(bucket_server: BucketServer, bucket: str) -> None:
    """Neither a longer name of a folder nor one beside it is listed; a prefix may end within a segment."""
    names = ["versions/e1/a", "versions/e1-2/a", "versions/e10/a", "versions/e1", "manifests/e1.jsonl", "manifests/e2"]
    with bucket_objects(bucket_server.url, bucket, prefix="p/") as objects:
        for name in names:
            objects.write(name, [b"1"], PLAIN)
        bucket_server.client.put_object(Bucket=bucket, Key="p2/manifests/x", Body=b"")

        def listed(prefix: str) -> list[str]:
            return [each.name for page in objects.list_pages(prefix) for each in page]

        assert listed("versions/e1/") == ["versions/e1/a"]
        assert listed("versions/e1") == ["versions/e1", "versions/e1-2/a", "versions/e1/a", "versions/e10/a"]
        assert listed("manifests/") == ["manifests/e1.jsonl", "manifests/e2"]
        assert listed(".tilesync/trash/") == []
        assert sorted(listed("")) == sorted(names)


def test_a_listing_goes_on_where_it_broke_off(
    bucket_server: BucketServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages that fail are asked for again, and nothing is told twice or left out."""
    names = [f"v/{number} +%ä" for number in range(10)]
    for name in names:
        bucket_server.client.put_object(Bucket=bucket, Key=name, Body=b"")
    monkeypatch.setattr(s3_objects, "OBJECTS_PER_PAGE", 4)
    mishap = S3Fault(lambda request: "continuation-token" in request.query, answer=error_response(503, "SlowDown"))
    with S3Proxy(bucket_server, mishap) as road, bucket_objects(road.url, bucket) as objects:
        road.rewrite = lambda target: f"{target}&max-keys=4"
        pages = [[each.name for each in page] for page in objects.list_pages("v/")]
        assert any("start-after" in request.query for request in road.requests)
    assert pages == [names[:4], names[4:8], names[8:]]


def test_a_name_that_is_no_path_is_named(bucket_server: BucketServer, bucket: str) -> None:
    """A foreign object whose name is no path ends the listing with a word about it, not with attempts."""
    bucket_server.client.put_object(Bucket=bucket, Key="v/a//b", Body=b"")
    with (
        bucket_objects(bucket_server.url, bucket) as objects,
        pytest.raises(DestinationError, match="is not a valid path"),
    ):
        list(objects.list_pages("v/"))


def test_what_a_server_misreads_is_told(bucket_server: BucketServer, bucket: str) -> None:
    """A server that takes a plus sign for a space is found out, another has nothing to tell; nothing stays behind."""
    with bucket_objects(bucket_server.url, bucket, prefix="a b/") as objects:
        assert objects.find_misread_characters() == []
    with S3Proxy(bucket_server) as road, bucket_objects(road.url, bucket) as objects:

        def as_forms_do(target: str) -> str:
            path, _, query = target.partition("?")
            return f"{path.replace('+', '%20')}?{query}"

        road.rewrite = as_forms_do
        assert objects.find_misread_characters() == ["+"]
        road.rewrite = lambda target: target.replace("%2B", "%20").replace("~", "-")
        assert objects.find_misread_characters() == ["+", "~"]
    assert bucket_server.keys(bucket) == []


# --- labels, ETags ---


@pytest.mark.parametrize("way", ["put", "parts", "write", "copy"])
def test_labels_are_served(bucket_server: BucketServer, bucket: str, way: str) -> None:
    """Type, encoding and caching are what a viewer is told, however the object came."""
    label = ObjectHeaders("model/gltf-binary", "gzip", "public, max-age=31536000, immutable")
    with bucket_objects(bucket_server.url, bucket) as objects:

        async def sent() -> None:
            if way == "put":
                await objects.put("a", b"1", None, label)
            else:
                upload = objects.begin_upload("a", len(BIG), label)
                await upload.append(BIG)
                await upload.finish(None)

        if way in {"put", "parts"}:
            asyncio.run(sent())
        else:
            found = objects.write("b" if way == "copy" else "a", [b"1"], label)
            if way == "copy":
                assert objects.copy(found, "a") is not None
    url = bucket_server.client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a"})
    with urllib.request.urlopen(url) as answer:
        assert answer.headers["Content-Type"] == label.content_type
        assert answer.headers["Content-Encoding"] == label.content_encoding
        assert answer.headers["Cache-Control"] == label.cache_control
        assert answer.read() in {b"1", BIG}


def test_a_listing_that_does_not_end_is_given_up(
    bucket_server: BucketServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages that bring the same names again, with a token each, are not asked for without end."""
    monkeypatch.setattr(s3_objects, "OBJECTS_PER_PAGE", 1)
    entry = "<Contents><Key>v/a</Key><LastModified>2026-01-01T00:00:00Z</LastModified><Size>1</Size></Contents>"
    page = f"<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>{entry}"
    endless = S3Fault(lambda request: "list-type" in request.query, (200, f"{page}</ListBucketResult>"), max_hits=300)
    road = S3Proxy(bucket_server, endless)
    with road, bucket_objects(road.url, bucket) as objects, pytest.raises(Unavailable, match="brought nothing new"):
        list(objects.list_pages("v/"))
    assert endless.hits < 300


def test_what_is_found_is_as_it_was_put(bucket_server: BucketServer, bucket: str) -> None:
    """Putting, finding, reading and listing tell the same size, ETag without quotes, and MD5."""
    with bucket_objects(bucket_server.url, bucket) as objects:
        put = asyncio.run(objects.put("a", b"123", hashlib.md5(b"123").digest(), PLAIN))
        assert (put.name, put.size, put.md5) == ("a", 3, hashlib.md5(b"123").digest())
        assert '"' not in put.etag
        stored = objects.read("a", offset=1)
        assert stored is not None
        assert (stored.info, b"".join(stored.chunks)) == (put, b"23")
        assert objects.find("a") == put
        assert list(objects.list_pages("")) == [[put]]
        large = objects.write("b", [BIG], PLAIN)
        assert large.md5 is None
        assert objects.find("b") == large


def test_the_service_checks_the_bytes(
    bucket_server: BucketServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is put goes with its SHA-256, a part with its MD5; a server that knows no such checksum is spared it."""
    with S3Proxy(bucket_server) as road:
        with bucket_objects(road.url, bucket) as objects:
            objects.write("a", [b"123"], PLAIN)
            objects.write("b", [BIG], PLAIN)
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        with bucket_objects(road.url, bucket) as objects:
            objects.write("c", [b"123"], PLAIN)
        a, *parts, c = (request for request in road.requests if request.method == "PUT")
    assert "x-amz-checksum-sha256" in a.headers
    assert len(parts) == 3
    assert all("content-md5" in part.headers for part in parts)
    assert "x-amz-checksum-sha256" not in c.headers
    assert c.headers["x-amz-content-sha256"] == hashlib.sha256(b"123").hexdigest()


def test_an_etag_that_is_no_md5_is_no_error(bucket_server: BucketServer, bucket: str) -> None:
    """Where keys encrypt, ETags look like MD5s and are none: what is put is told without one, and a condition whose
    answer was lost is judged by the bytes.
    """
    other = f'"{"0" * 32}"'
    always = S3Fault(lambda request: request.method == "PUT", etag=other)
    with S3Proxy(bucket_server, always) as road, bucket_objects(road.url, bucket) as objects:
        put = asyncio.run(objects.put("a", b"123", hashlib.md5(b"123").digest(), PLAIN))
        assert (put.etag, put.md5) == ("0" * 32, None)
    lost = S3Fault(lambda request: request.method == "PUT", lost=True)
    told = S3Fault(lambda request: request.method == "GET", etag=other)
    with S3Proxy(bucket_server, lost, told) as road, bucket_objects(road.url, bucket) as objects:
        assert objects.write("b", [b"123"], PLAIN, expected_etag="").etag == "0" * 32


# --- conditions, copies, bodies ---


@pytest.mark.parametrize("size", [3, len(BIG)])
def test_conditions(bucket_server: BucketServer, bucket: str, size: int) -> None:
    """What stands there is replaced only where it is the one that was named; parts that fail so do not stay."""
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
def test_a_lost_answer_to_a_condition_is_no_failure(bucket_server: BucketServer, bucket: str, size: int) -> None:
    """Where the first attempt was granted and its answer lost, the second one finds its own work there."""

    def last(request: S3Request) -> bool:
        return request.method in {"PUT", "POST"} and "if-match" in request.headers

    with bucket_objects(bucket_server.url, bucket) as objects:
        first = objects.write("a", [b"first"], PLAIN)
    with S3Proxy(bucket_server, S3Fault(last, lost=True)) as road, bucket_objects(road.url, bucket) as objects:
        found = objects.write("a", [BIG[:size]], PLAIN, expected_etag=first.etag)
        assert (found.size, objects.find("a")) == (size, found)


def test_copies_are_of_what_was_found(bucket_server: BucketServer, bucket: str) -> None:
    """What is gone, was replaced, or is too large is not copied, and nothing lies under the new name."""
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
    with S3Proxy(bucket_server) as road, bucket_objects(road.url, bucket) as objects:
        objects.copy(new, "b")
        (request,) = (request for request in road.requests if request.method == "PUT")
        assert request.headers["x-amz-copy-source-if-match"] == f'"{new.etag}"'


def test_a_body_goes_on_where_it_breaks_off(bucket_server: BucketServer, bucket: str) -> None:
    """A large object whose body breaks off twice comes whole, the rest by range and of that version alone."""
    cuts = [S3Fault(_is_object_read, cut=3 << 20), S3Fault(_is_object_read, cut=5 << 20)]
    with S3Proxy(bucket_server, *cuts) as road, bucket_objects(road.url, bucket) as objects:
        found = objects.write("a", [BIG], PLAIN)
        stored = objects.read("a")
        assert stored is not None
        assert b"".join(stored.chunks) == BIG
        first, *others = (request.headers for request in road.requests if request.method == "GET")
        assert "range" not in first
        assert len(others) == 2
        assert all(headers["if-match"] == f'"{found.etag}"' and headers["range"] for headers in others)


def test_a_body_that_becomes_another_one_ends(bucket_server: BucketServer, bucket: str) -> None:
    """An object that was replaced while it was read is not put together from two."""
    with (
        S3Proxy(bucket_server, S3Fault(_is_object_read, cut=3 << 20)) as road,
        bucket_objects(road.url, bucket) as objects,
    ):
        objects.write("a", [BIG], PLAIN)
        stored = objects.read("a")
        assert stored is not None
        objects.write("a", [BIG[::-1]], PLAIN)
        with pytest.raises(DestinationError, match="replaced or deleted meanwhile"):
            list(stored.chunks)


def _is_object_read(request: S3Request) -> bool:
    return request.method == "GET" and not request.query


# --- errors ---


def test_a_missing_bucket_is_named(bucket_server: BucketServer, bucket: str) -> None:
    """Whatever is asked of a bucket that is not there, the answer says so, and is no missing object."""
    with bucket_objects(bucket_server.url, "no-such-bucket") as objects:
        for ask in (
            lambda: objects.find("a"),
            lambda: objects.read("a"),
            lambda: list(objects.list_pages("v/")),
            lambda: objects.write("a", [b"1"], PLAIN),
            lambda: objects.write("a", [BIG], PLAIN),
            lambda: objects.delete(["a"]),
            lambda: asyncio.run(objects.put("a", b"1", None, PLAIN)),
            lambda: objects.lease().acquire("me"),
        ):
            with pytest.raises(DestinationError, match="there is no bucket at s3://no-such-bucket/") as raised:
                ask()
            assert raised.value.hint


@pytest.mark.parametrize(
    ("status", "code", "kind", "hint"),
    [
        (403, "AccessDenied", NotAuthorised, "s3:ListBucket"),
        (403, "InvalidAccessKeyId", NotAuthorised, "AWS_ACCESS_KEY_ID"),
        (400, "ExpiredToken", NotAuthorised, "AWS_SESSION_TOKEN"),
        (403, "RequestTimeTooSkewed", NotAuthorised, "clock"),
        (301, "PermanentRedirect", DestinationError, "AWS_REGION"),
        (501, "NotImplemented", DestinationError, "AWS_REQUEST_CHECKSUM_CALCULATION=when_required"),
    ],
)
def test_refusals(
    bucket_server: BucketServer, bucket: str, status: int, code: str, kind: type[RunError], hint: str
) -> None:
    """A refusal ends the run with what helps, however it was asked, and no secret is in what is said."""
    mishap = S3Fault(lambda request: request.method != "HEAD", answer=error_response(status, code), max_hits=1000)
    with S3Proxy(bucket_server, mishap) as road, bucket_objects(road.url, bucket) as objects:
        for ask in (
            lambda: objects.read("a"),
            lambda: list(objects.list_pages("v/")),
            lambda: objects.write("a", [b"1"], PLAIN),
            lambda: objects.write("a", [BIG], PLAIN),
            lambda: objects.delete(["a", "b"]),
            lambda: asyncio.run(objects.put("a", b"1", None, PLAIN)),
        ):
            with pytest.raises(kind) as raised:
                ask()
            assert hint in raised.value.hint
            said = str(raised.value) + raised.value.hint
            assert not [secret for secret in (KEY, SECRET, road.url, "Signature=") if secret in said]
            assert raised.value.__suppress_context__


def test_a_refused_deletion_is_told(bucket_server: BucketServer, bucket: str) -> None:
    """Of many that are deleted together one that is refused is no success."""
    told = "<DeleteResult><Error><Key>a</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>"
    mishap = S3Fault(lambda request: request.method == "POST", answer=(200, told))
    with (
        S3Proxy(bucket_server, mishap) as road,
        bucket_objects(road.url, bucket) as objects,
        pytest.raises(NotAuthorised),
    ):
        objects.delete(["a", "b"])


def test_pressure_is_borne_with_and_seen(bucket_server: BucketServer, bucket: str) -> None:
    """What blocks tries again, and says so; a small file that is put is told of the pressure at its one attempt."""
    events: list[Event] = []
    slow = S3Fault(lambda request: True, answer=error_response(503, "SlowDown"), max_hits=2)
    with (
        S3Proxy(bucket_server, slow) as road,
        bucket_objects(road.url, bucket, observe=events.append) as objects,
    ):
        assert objects.write("a", [b"1"], PLAIN).size == 1
        assert sum(isinstance(event, Retried) for event in events) == 2
        slow.hits = 0
        with pytest.raises(Transient) as raised:
            asyncio.run(objects.put("a", b"1", None, PLAIN))
        assert raised.value.is_throttled
        slow.hits = 2
        asyncio.run(objects.put("a", b"1", None, PLAIN))


def test_what_keeps_failing_is_unavailable(bucket_server: BucketServer, bucket: str) -> None:
    """Past the budget it is said that nobody answers, and why."""
    with bucket_objects("http://127.0.0.1:9", bucket, budget=timedelta(seconds=0.3)) as objects:
        for ask in (
            lambda: objects.find("a"),
            lambda: objects.write("a", [BIG], PLAIN),
            lambda: list(objects.list_pages("")),
        ):
            with pytest.raises(Unavailable, match=r"no connection|EndpointConnectionError"):
                ask()
        with pytest.raises(Transient):
            asyncio.run(objects.put("a", b"1", None, PLAIN))


@pytest.mark.parametrize("mishap", [{"lost": True}, {"answer": error_response(500, "InternalError")}, {"cut": 0}])
def test_an_answer_that_is_lost_is_asked_for_again(
    bucket_server: BucketServer, bucket: str, mishap: dict[str, Any]
) -> None:
    """A connection that ends without an answer costs another attempt."""
    with (
        S3Proxy(bucket_server, S3Fault(lambda request: True, **mishap)) as road,
        bucket_objects(road.url, bucket) as objects,
    ):
        objects.write("a", [b"1"], PLAIN)
    assert bucket_server.keys(bucket) == ["a"]


def test_credentials_that_end_are_told(bucket: str, bucket_server: BucketServer) -> None:
    """Where they cannot be renewed that is what failed, without what the provider said."""
    from obstore.store import S3Store

    def provider() -> S3Credential:
        raise RuntimeError(SECRET)

    store = S3Store(
        bucket,
        endpoint=bucket_server.url,
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
        credential_provider=provider,
    )
    with pytest.raises(Transient) as raised:
        ObjectClient(store, "s3://b/").head("a")
    assert str(raised.value) == "the credentials cannot be renewed"


def test_a_cancelled_put_is_cancelled(bucket_server: BucketServer, bucket: str) -> None:
    """Who is cancelled while an answer is awaited is cancelled then, not when it comes."""

    async def work(objects: S3Objects) -> float:
        task = asyncio.create_task(objects.put("a", b"1", None, PLAIN))
        await asyncio.sleep(0.1)
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - began

    def late(target: str) -> str:
        time.sleep(0.6)
        return target

    with S3Proxy(bucket_server) as road, bucket_objects(road.url, bucket) as objects:
        road.rewrite = late
        assert asyncio.run(work(objects)) < 0.3
