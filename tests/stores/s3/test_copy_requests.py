"""Copies in batches: signed as botocore signs, one request each, and proven by the response."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote

import pytest

from tests.support.s3 import (
    KEY,
    REGION,
    SECRET,
    BucketServer,
    S3Fault,
    S3Proxy,
    S3Request,
    bucket_objects,
    error_response,
)
from tilesync.model.storage import ObjectHeaders, ObjectInfo
from tilesync.stores.s3.copy_requests import BucketCopies, parse_copy
from tilesync.stores.s3.signing import AwsKey, RequestSigner

HEADERS = ObjectHeaders("model/gltf-binary", "gzip", "max-age=60")
RESULT = b"<?xml version='1.0'?><CopyObjectResult><ETag>&quot;%s&quot;</ETag></CopyObjectResult>"
DONE = RESULT % (b"0" * 32)


@pytest.mark.parametrize("name", ["a/b.glb", "a b/ü+~%25.glb", "a//(b)='c'&d$.json", "日本/*!.b3dm"])
@pytest.mark.parametrize("token", [None, "a/token+of=days"])
@pytest.mark.parametrize("url", ["https://bucket.s3.eu-central-1.amazonaws.com", "http://127.0.0.1:9000/store/bucket"])
def test_the_signature_is_that_of_botocore(name: str, token: str | None, url: str) -> None:
    """The request of boto3 for the same copy has the same headers, and the same signature."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.config import Config
    from botocore.credentials import Credentials as BotoCredentials

    headers = {
        "x-amz-copy-source": quote(f"bucket/old/{name}", safe="/~"),
        "x-amz-copy-source-if-match": '"abc-2"',
    }
    theirs = AWSRequest("PUT", f"{url}/{quote('new/' + name, safe='/~')}", headers, b"")
    theirs.context["client_config"] = Config(s3={"payload_signing_enabled": True})
    S3SigV4Auth(BotoCredentials(KEY, SECRET, token), "s3", REGION).add_auth(theirs)
    now = datetime.strptime(theirs.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    copies = BucketCopies("bucket", lambda: RequestSigner(url, REGION, AwsKey(KEY, SECRET, token)))
    (ours,) = copies.make_requests([(ObjectInfo("old/" + name, 3, "abc-2"), "new/" + name)], now)
    assert ours.url == theirs.url
    assert {key.lower(): value for key, value in theirs.headers.items()} == {
        key.lower(): value for key, value in ours.headers.items()
    }
    assert ours.headers["x-amz-copy-source-if-match"] == '"abc-2"'
    assert SECRET not in repr(ours)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        error_response(200, "InternalError")[1].encode(),
        DONE[:60],
        b"<Error><Code>SlowDown</Code></Error>" + DONE,
        b"<CopyObjectResult></CopyObjectResult>",
    ],
)
def test_a_response_may_have_an_error_as_its_body(body: bytes) -> None:
    """The status 200 alone is no copy: the body must say that one was made."""
    assert parse_copy("a", 3, body) is None


def copy_sources(proxy: S3Proxy) -> list[str]:
    return [each.headers["x-amz-copy-source"] for each in proxy.requests if "x-amz-copy-source" in each.headers]


def test_each_copy_is_one_request(bucket_server: BucketServer, bucket: str) -> None:
    """A copy in a batch costs one request and no other, and has the bytes, the headers and the ETag of its original."""
    with S3Proxy(bucket_server) as proxy, bucket_objects(proxy.url, bucket, prefix="p/") as objects:
        originals = [objects.write(f"old/ü {number}+.glb", [b"%d" % number], HEADERS) for number in range(70)]
        proxy.requests.clear()
        found = objects.copy_batch([(each, each.name.replace("old", "new")) for each in originals])
        assert found == [each._replace(name=each.name.replace("old", "new")) for each in originals]
        assert len(proxy.requests) == len(copy_sources(proxy)) == 70
        head = bucket_server.client.get_object(Bucket=bucket, Key="p/new/ü 7+.glb")
        assert (head["Body"].read(), head["ContentType"], head["ContentEncoding"], head["CacheControl"]) == (
            b"7",
            *HEADERS,
        )


def test_a_changed_or_missing_original_is_not_copied(bucket_server: BucketServer, bucket: str) -> None:
    """An original that was changed or deleted is not copied, and does not stop the others."""
    with bucket_objects(bucket_server.url, bucket) as objects:
        originals = [objects.write(f"old/{number}", [b"%d" % number], HEADERS) for number in range(40)]
        objects.write("old/3", [b"other"], HEADERS)
        objects.delete(["old/5"])
        found = objects.copy_batch([(each, each.name.replace("old", "new")) for each in originals])
        assert [number for number, each in enumerate(found) if each is None] == [3, 5]
    assert not {"new/3", "new/5"} & set(bucket_server.keys(bucket))


@pytest.mark.parametrize("fault", [error_response(200, "InternalError"), error_response(503, "SlowDown")])
def test_a_failed_copy_is_left_to_a_single_request(
    bucket_server: BucketServer, bucket: str, fault: tuple[int, str]
) -> None:
    """A copy that the service did not make is reported as not done; `copy` makes it."""
    failing = S3Fault(lambda request: request.target.endswith("/new/6"), answer=fault)
    with S3Proxy(bucket_server, failing) as proxy, bucket_objects(proxy.url, bucket) as objects:
        originals = [objects.write(f"old/{number}", [b"%d" % number], HEADERS) for number in range(10)]
        found = objects.copy_batch([(each, each.name.replace("old", "new")) for each in originals])
        assert [number for number, each in enumerate(found) if each is None] == [6]
        assert objects.copy(originals[6], "new/6") is not None


def names_no_etag(request: S3Request) -> bool:
    return request.headers.get("x-amz-copy-source-if-match") == f'"{"0" * 32}"'


@pytest.mark.parametrize("obeys", [True, False])
def test_copies_with_other_etags_cost_one_request_too(
    bucket_server: BucketServer, bucket: str, monkeypatch: pytest.MonkeyPatch, *, obeys: bool
) -> None:
    """With keys each copy has its own ETag: one request tries whether the server obeys the condition, as moto does not.

    If it does, no other is sent. If not, each original is looked up, and a copy of changed bytes is deleted.
    """
    monkeypatch.setattr("tilesync.stores.s3.client.MAX_BATCH_COPY_BYTES", 1 << 30)  # uploads in parts have such ETags
    faults = [S3Fault(names_no_etag, answer=error_response(412, "PreconditionFailed"))] if obeys else []
    with S3Proxy(bucket_server, *faults) as proxy, bucket_objects(proxy.url, bucket) as objects:
        originals = [objects.write(f"old/{number}", [bytes([number]) * (9 << 20)], HEADERS) for number in range(2)]
        if not obeys:
            objects.write("old/1", [b"other"], HEADERS)
        proxy.requests.clear()
        found = objects.copy_batch([(each, each.name.replace("old", "new")) for each in originals])
        assert found[0] is not None
        assert (found[1] is not None) is obeys
        assert len(copy_sources(proxy)) == 3
        assert sum(each.method == "HEAD" for each in proxy.requests) == (0 if obeys else 2)
    assert ("new/1" in bucket_server.keys(bucket)) is obeys
