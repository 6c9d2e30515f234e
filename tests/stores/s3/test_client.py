"""A bucket as destination, on a real S3 server."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.azure_destination import ignore_event
from tests.support.s3 import KEY, SECRET, BucketServer, S3Fault, S3Proxy, bucket_objects, error_response
from tests.support.store_contract import SAMPLE_VERSION, DestinationContract, OpenDestination
from tilesync.core.http_headers import CachePolicy
from tilesync.core.manifest import encode_line
from tilesync.errors import DestinationError, NotAuthorised, RunError, Transient, Unavailable
from tilesync.events import Event, Retried
from tilesync.model.storage import ObjectHeaders
from tilesync.stores.object_store.destination import ObjectDestination, open_objects
from tilesync.stores.s3 import objects as s3_objects
from tilesync.stores.s3.client import S3Objects
from tilesync.stores.s3.objects import ObjectClient

if TYPE_CHECKING:
    from obstore.store import S3Credential
from tests.support.s3 import BIG, PLAIN

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
    """Open a destination in a bucket."""
    with (
        bucket_objects(url, bucket, prefix=prefix) as objects,
        open_objects(objects, state, CachePolicy(), ignore_event) as destination,
    ):
        yield destination


@pytest.mark.scale
class TestBucket(DestinationContract):
    """A whole bucket."""

    @pytest.fixture
    def opening(self, bucket_server: BucketServer, bucket: str, tmp_path: Path) -> OpenDestination:
        return lambda: bucket_destination(bucket_server.url, bucket, tmp_path / "state")


@pytest.mark.scale
class TestPrefix(DestinationContract):
    """A folder of a bucket, with a name that needs quoting."""

    @pytest.fixture
    def opening(self, bucket_server: BucketServer, bucket: str, tmp_path: Path) -> OpenDestination:
        return lambda: bucket_destination(bucket_server.url, bucket, tmp_path / "state", prefix="a b+c/ä%41/")


# --- publication ---


def test_manifests_are_listed_once_until_this_run_changes_them(
    bucket_server: BucketServer, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the lock one listing serves all questions about manifests and trash; a change is seen at once."""
    listed = list[str]()
    list_pages_from = S3Objects.list_pages_from

    def note_listing(objects: S3Objects, prefix: str, cursor: str) -> Any:
        listed.append(prefix)
        return list_pages_from(objects, prefix, cursor)

    with bucket_destination(bucket_server.url, bucket, tmp_path / "state") as there:
        monkeypatch.setattr(S3Objects, "list_pages_from", note_listing)
        for _ in range(3):
            assert there.publication.manifest_names() == []
            assert there.publication.retired_names() == set()
        assert len(listed) == 2
        there.publication.write_manifest(SAMPLE_VERSION, [encode_line({"version": SAMPLE_VERSION.name})])
        assert there.publication.manifest_names() == [SAMPLE_VERSION.name]
        there.publication.retire(SAMPLE_VERSION, "2026-03-01T08:30:00Z")
        assert there.publication.manifest_names() == []
        assert there.publication.retired_names() == {SAMPLE_VERSION.name}
        there.publication.empty_trash("2026-03-02T08:30:00Z")
        assert there.publication.retired_names() == set()
        assert len(listed) < 12


# --- names, listings ---


@pytest.mark.parametrize("prefix", ["", "a b+c/ä%41/"])
def test_names_are_kept_exactly(bucket_server: BucketServer, bucket: str, prefix: str) -> None:
    """Objects with unusual names are written, found, read, copied, listed and deleted by the same name."""
    with bucket_objects(bucket_server.url, bucket, prefix=prefix) as objects:
        result = {name: objects.write(f"v/{name}", [name.encode()], PLAIN) for name in NAMES}
        assert bucket_server.keys(bucket) == sorted(f"{prefix}v/{name}" for name in NAMES)
        for name in NAMES:
            assert objects.find(f"v/{name}") == result[name]
            stored = objects.read(f"v/{name}")
            assert stored is not None
            assert b"".join(stored.chunks) == name.encode()
            copied = objects.copy(result[name], f"w/{name}")
            assert copied == result[name]._replace(name=f"w/{name}")
        for folder in ("v/", "w/"):
            listed = [each.name for page in objects.list_pages(folder) for each in page]
            assert sorted(listed) == sorted(folder + name for name in NAMES)
        objects.delete([folder + name for name in NAMES for folder in ("v/", "w/")])
    assert bucket_server.keys(bucket) == []


def test_a_listing_has_the_exact_prefix(bucket_server: BucketServer, bucket: str) -> None:
    """Longer folder names and siblings are not listed; a prefix may end within a segment."""
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


def test_a_listing_resumes_after_a_failed_page(
    bucket_server: BucketServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failed pages are requested again; nothing is listed twice or left out."""
    names = [f"v/{number} +%ä" for number in range(10)]
    for name in names:
        bucket_server.client.put_object(Bucket=bucket, Key=name, Body=b"")
    monkeypatch.setattr(s3_objects, "OBJECTS_PER_PAGE", 4)
    fault = S3Fault(lambda request: "continuation-token" in request.query, answer=error_response(503, "SlowDown"))
    with S3Proxy(bucket_server, fault) as proxy, bucket_objects(proxy.url, bucket) as objects:
        proxy.rewrite = lambda target: f"{target}&max-keys=4"
        pages = [[each.name for each in page] for page in objects.list_pages("v/")]
        assert any("start-after" in request.query for request in proxy.requests)
    assert pages == [names[:4], names[4:8], names[8:]]


def test_a_name_that_is_no_path_is_an_error(bucket_server: BucketServer, bucket: str) -> None:
    """A foreign object whose name is not a path ends the listing with an error, without retries."""
    bucket_server.client.put_object(Bucket=bucket, Key="v/a//b", Body=b"")
    with (
        bucket_objects(bucket_server.url, bucket) as objects,
        pytest.raises(DestinationError, match="is not a valid path"),
    ):
        list(objects.list_pages("v/"))


# --- headers, ETags ---


@pytest.mark.parametrize("method", ["put", "parts", "write", "copy"])
def test_headers_are_served(bucket_server: BucketServer, bucket: str, method: str) -> None:
    """Content type, encoding and caching are served as stored, for each method of writing."""
    object_headers = ObjectHeaders("model/gltf-binary", "gzip", "public, max-age=31536000, immutable")
    with bucket_objects(bucket_server.url, bucket) as objects:

        async def upload_object() -> None:
            if method == "put":
                await objects.put("a", b"1", None, object_headers)
            else:
                upload = objects.begin_upload("a", len(BIG), object_headers)
                await upload.append(BIG)
                await upload.finish(None)

        if method in {"put", "parts"}:
            asyncio.run(upload_object())
        else:
            result = objects.write("b" if method == "copy" else "a", [b"1"], object_headers)
            if method == "copy":
                assert objects.copy(result, "a") is not None
    url = bucket_server.client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a"})
    with urllib.request.urlopen(url) as answer:
        assert answer.headers["Content-Type"] == object_headers.content_type
        assert answer.headers["Content-Encoding"] == object_headers.content_encoding
        assert answer.headers["Cache-Control"] == object_headers.cache_control
        assert answer.read() in {b"1", BIG}


def test_an_endless_listing_is_given_up(
    bucket_server: BucketServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages that repeat the same names, each with a token, are not requested for ever."""
    monkeypatch.setattr(s3_objects, "OBJECTS_PER_PAGE", 1)
    entry = "<Contents><Key>v/a</Key><LastModified>2026-01-01T00:00:00Z</LastModified><Size>1</Size></Contents>"
    page = f"<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>{entry}"
    endless = S3Fault(lambda request: "list-type" in request.query, (200, f"{page}</ListBucketResult>"), max_hits=300)
    proxy = S3Proxy(bucket_server, endless)
    with proxy, bucket_objects(proxy.url, bucket) as objects, pytest.raises(Unavailable, match="had nothing new"):
        list(objects.list_pages("v/"))
    assert endless.hits < 300


def test_all_reads_agree_with_the_write(bucket_server: BucketServer, bucket: str) -> None:
    """Put, find, read and list return the same size, ETag without quotes, and MD5."""
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
    """Objects are sent with SHA-256, parts with MD5; a server without such checksums gets none."""
    with S3Proxy(bucket_server) as proxy:
        with bucket_objects(proxy.url, bucket) as objects:
            objects.write("a", [b"123"], PLAIN)
            objects.write("b", [BIG], PLAIN)
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        with bucket_objects(proxy.url, bucket) as objects:
            objects.write("c", [b"123"], PLAIN)
        a, *parts, c = (request for request in proxy.requests if request.method == "PUT")
    assert "x-amz-checksum-sha256" in a.headers
    assert len(parts) == 3
    assert all("content-md5" in part.headers for part in parts)
    assert "x-amz-checksum-sha256" not in c.headers
    assert c.headers["x-amz-content-sha256"] == hashlib.sha256(b"123").hexdigest()


def test_an_etag_that_is_no_md5_is_no_error(bucket_server: BucketServer, bucket: str) -> None:
    """With encryption keys an ETag looks like an MD5 and is none: then no MD5 is returned.

    After a lost response to a conditional write the bytes decide.
    """
    other = f'"{"0" * 32}"'
    always = S3Fault(lambda request: request.method == "PUT", etag=other)
    with S3Proxy(bucket_server, always) as proxy, bucket_objects(proxy.url, bucket) as objects:
        put = asyncio.run(objects.put("a", b"123", hashlib.md5(b"123").digest(), PLAIN))
        assert (put.etag, put.md5) == ("0" * 32, None)
    lost = S3Fault(lambda request: request.method == "PUT", lost=True)
    wrong_etag = S3Fault(lambda request: request.method == "GET", etag=other)
    with S3Proxy(bucket_server, lost, wrong_etag) as proxy, bucket_objects(proxy.url, bucket) as objects:
        assert objects.write("b", [b"123"], PLAIN, expected_etag="").etag == "0" * 32


# --- errors ---


def test_a_missing_bucket_is_named(bucket_server: BucketServer, bucket: str) -> None:
    """Each request to a missing bucket says so, and does not report a missing object."""
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
def test_refusals_have_a_hint_and_no_secret(
    bucket_server: BucketServer, bucket: str, status: int, code: str, kind: type[RunError], hint: str
) -> None:
    """A refusal ends the run with a hint, for each kind of request, and shows no secret."""
    fault = S3Fault(lambda request: request.method != "HEAD", answer=error_response(status, code), max_hits=1000)
    with S3Proxy(bucket_server, fault) as proxy, bucket_objects(proxy.url, bucket) as objects:
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
            text = str(raised.value) + raised.value.hint
            assert not [secret for secret in (KEY, SECRET, proxy.url, "Signature=") if secret in text]
            assert raised.value.__suppress_context__


def test_a_refused_deletion_is_an_error(bucket_server: BucketServer, bucket: str) -> None:
    """One refused deletion of many is an error."""
    body = "<DeleteResult><Error><Key>a</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>"
    fault = S3Fault(lambda request: request.method == "POST", answer=(200, body))
    with (
        S3Proxy(bucket_server, fault) as proxy,
        bucket_objects(proxy.url, bucket) as objects,
        pytest.raises(NotAuthorised),
    ):
        objects.delete(["a", "b"])


def test_throttling_is_retried_and_reported(bucket_server: BucketServer, bucket: str) -> None:
    """Blocking requests are retried and reported; the single attempt of `put` raises a throttled Transient."""
    events: list[Event] = []
    slow = S3Fault(lambda request: True, answer=error_response(503, "SlowDown"), max_hits=2)
    with (
        S3Proxy(bucket_server, slow) as proxy,
        bucket_objects(proxy.url, bucket, observe=events.append) as objects,
    ):
        assert objects.write("a", [b"1"], PLAIN).size == 1
        assert sum(isinstance(event, Retried) for event in events) == 2
        slow.hits = 0
        with pytest.raises(Transient) as raised:
            asyncio.run(objects.put("a", b"1", None, PLAIN))
        assert raised.value.is_throttled
        slow.hits = 2
        asyncio.run(objects.put("a", b"1", None, PLAIN))


def test_repeated_failures_are_unavailable(bucket_server: BucketServer, bucket: str) -> None:
    """After the retry budget Unavailable is raised with the reason."""
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


@pytest.mark.parametrize("fault", [{"lost": True}, {"answer": error_response(500, "InternalError")}, {"cut": 0}])
def test_a_lost_response_is_retried(bucket_server: BucketServer, bucket: str, fault: dict[str, Any]) -> None:
    """A connection that ends without a response costs one more attempt."""
    with (
        S3Proxy(bucket_server, S3Fault(lambda request: True, **fault)) as proxy,
        bucket_objects(proxy.url, bucket) as objects,
    ):
        objects.write("a", [b"1"], PLAIN)
    assert bucket_server.keys(bucket) == ["a"]


def test_failed_renewal_of_credentials_is_reported(bucket: str, bucket_server: BucketServer) -> None:
    """The error says that the credentials cannot be renewed, without the text of the provider."""
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


def test_a_cancelled_put_ends_at_once(bucket_server: BucketServer, bucket: str) -> None:
    """A cancelled `put` does not wait for its response."""
    arrived, over = threading.Event(), threading.Event()

    async def work(objects: S3Objects) -> None:
        task = asyncio.create_task(objects.put("a", b"1", None, PLAIN))
        assert await asyncio.to_thread(arrived.wait, 30)
        task.cancel()
        async with asyncio.timeout(30):
            with pytest.raises(asyncio.CancelledError):
                await task
        over.set()

    def late(target: str) -> str:
        arrived.set()
        over.wait(60)
        return target

    with S3Proxy(bucket_server) as proxy, bucket_objects(proxy.url, bucket) as objects:
        proxy.rewrite = late
        asyncio.run(work(objects))
