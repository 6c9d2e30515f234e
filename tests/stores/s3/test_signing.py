"""Requests that we sign ourselves: signed as botocore signs."""

from __future__ import annotations

import hashlib
import pickle
from datetime import UTC, datetime
from urllib.parse import quote

import pytest

from tests.support.s3 import KEY, REGION, SECRET
from tilesync.stores.s3.signing import AwsKey, RequestSigner

HEADERS = {
    "x-amz-checksum-sha256": "AAAA",
    "content-type": "model/gltf-binary",
    "cache-control": "public,  max-age=60",
    "content-encoding": "gzip",
}


@pytest.mark.parametrize("name", ["a/b.glb", "a b/ü+~%25.glb", "a//(b)='c'&d$.json", "日本/*!.b3dm"])
@pytest.mark.parametrize("token", [None, "a/token+of=days"])
@pytest.mark.parametrize("url", ["https://bucket.s3.eu-central-1.amazonaws.com", "http://127.0.0.1:9000/store/bucket"])
@pytest.mark.parametrize(("method", "body", "headers"), [("PUT", b"data", HEADERS), ("PUT", b"", {}), ("GET", b"", {})])
def test_the_signature_is_that_of_botocore(
    name: str, token: str | None, url: str, method: str, body: bytes, headers: dict[str, str]
) -> None:
    """The same request, signed by botocore, has the same URL, headers and signature."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.config import Config
    from botocore.credentials import Credentials as BotoCredentials

    theirs = AWSRequest(method, f"{url}/{quote(name, safe='/~')}", headers, body)
    theirs.context["client_config"] = Config(s3={"payload_signing_enabled": True})
    S3SigV4Auth(BotoCredentials(KEY, SECRET, token), "s3", REGION).add_auth(theirs)
    now = datetime.strptime(theirs.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    signer = RequestSigner(url, REGION, AwsKey(KEY, SECRET, token))
    ours = signer.sign(method, name, headers, now, body_sha256=hashlib.sha256(body).hexdigest())
    assert ours.url == theirs.url
    assert {key.lower(): value for key, value in theirs.headers.items()} == {
        key.lower(): value for key, value in ours.headers.items()
    }


def test_a_signer_is_sent_to_workers_and_shows_no_secret() -> None:
    """A signer can be pickled, and its text has neither the secret nor the token."""
    signer = RequestSigner("https://host/bucket", REGION, AwsKey(KEY, SECRET, "a token"))
    assert pickle.loads(pickle.dumps(signer)) == signer
    assert SECRET not in repr(signer)
    assert "a token" not in repr(signer)
