"""Open a bucket: credentials, address, certificates and proxies."""

from __future__ import annotations

import ssl
import sys
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

from tests.support.s3 import BucketServer, S3Proxy, bucket_objects, ignore_event
from tilesync.errors import DestinationError, NotAuthorised, Unavailable, UsageError
from tilesync.model.storage import ObjectHeaders
from tilesync.stores.s3.multipart import PART_BYTES
from tilesync.stores.s3.session import open_bucket, resolve_endpoint, resolve_region

PLAIN = ObjectHeaders("text/plain")
LARGE = bytes(PART_BYTES + 1)


def write_both(bucket: str, endpoint_url: str | None = None, *, budget: timedelta = timedelta(seconds=5)) -> None:
    """Write a small object and a large one: each uses another package."""
    with open_bucket(bucket, "", ignore_event, endpoint_url=endpoint_url, retry_budget=budget) as objects:
        objects.write("small", [b"1"], PLAIN)
        objects.write("large", [LARGE], PLAIN)


@pytest.mark.parametrize("package", ["obstore", "boto3"])
def test_a_missing_package_is_named(bucket: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the hint says how to install it."""
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError) as raised:
        write_both(bucket, "http://127.0.0.1:9")
    assert "pip install obstore boto3" in raised.value.hint


def test_missing_credentials_are_named(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without credentials the hint names the variables, before any request."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(NotAuthorised, match="there are no credentials for") as raised:
        write_both(bucket, "http://127.0.0.1:9")
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE;"} <= set(raised.value.hint.split())


def test_invalid_credentials_are_named(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing profile and half a key are reported without their values."""
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(NotAuthorised, match="ProfileNotFound"):
        write_both(bucket, "http://127.0.0.1:9")
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(NotAuthorised, match="PartialCredentialsError"):
        write_both(bucket, "http://127.0.0.1:9")


def test_the_endpoint_has_an_order_of_sources(
    bucket_server: BucketServer, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The option comes first, then the variables, then the profile; the one for S3 wins."""
    config = tmp_path / "config"
    config.write_text(f"[profile mine]\nendpoint_url = {bucket_server.url}\nregion = eu-central-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "mine")
    credentials = tmp_path / "credentials"
    credentials.write_text("[mine]\naws_access_key_id = a\naws_secret_access_key = b\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    write_both(bucket)
    nowhere = "http://127.0.0.1:9"
    monkeypatch.setenv("AWS_ENDPOINT_URL", nowhere)
    with pytest.raises(Unavailable):
        write_both(bucket, budget=timedelta())
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", bucket_server.url)
    write_both(bucket)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", nowhere)
    write_both(bucket, bucket_server.url)
    assert bucket_server.keys(bucket) == ["large", "small"]


@pytest.mark.parametrize("source", ["option", "variable"])
@pytest.mark.parametrize("url", ["http://s3.example.org", "ftp://127.0.0.1", "s3.example.org", "https://"])
def test_invalid_endpoints_are_refused(bucket: str, url: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain http to another machine and malformed URLs are refused from each source."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", url if source == "variable" else "")
    with pytest.raises(UsageError):
        write_both(bucket, url if source == "option" else None)


def test_the_addressing_style() -> None:
    """The bucket is in the host for Amazon, in the path elsewhere, unless configured; dots need the path."""
    amazon, mine = "https://s3.eu-central-1.amazonaws.com", "https://minio.example.org:9000"
    assert resolve_endpoint("b", amazon, None) == ("https://b.s3.eu-central-1.amazonaws.com", True)
    assert resolve_endpoint("b", "https://s3.cn-north-1.amazonaws.com.cn", "auto")[1]
    assert resolve_endpoint("b.c", amazon, None) == (amazon, False)
    assert resolve_endpoint("b", amazon, "path") == (amazon, False)
    assert resolve_endpoint("b", mine, None) == (mine, False)
    assert resolve_endpoint("b", mine, "virtual") == ("https://b.minio.example.org:9000", True)
    private = "https://bucket.vpce-1a2b.s3.eu-central-1.vpce.amazonaws.com"
    assert resolve_endpoint("b", private, None) == (private, False)


def test_the_region_is_found(bucket_server: BucketServer, bucket: str) -> None:
    """The service states the region of a bucket, and that a bucket is missing."""
    assert resolve_region(bucket_server.client, bucket, "s3://b/") == "eu-central-1"
    with pytest.raises(DestinationError, match="there is no bucket"):
        resolve_region(bucket_server.client, "no-such-bucket", "s3://no-such-bucket/")


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "AWS_CA_BUNDLE"])
def test_certificate_authorities(
    bucket_server: BucketServer, bucket: str, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either variable adds a trusted authority: for small objects, for large ones, and for the name probe."""
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"), append=True)
    with S3Proxy(bucket_server, tls=tls) as proxy:
        with (
            bucket_objects(proxy.url, bucket, budget=timedelta()) as objects,
            pytest.raises(Unavailable, match="its certificate is not trusted"),
        ):
            objects.write("small", [b"1"], PLAIN)
        monkeypatch.setenv(variable, str(tmp_path / "ca.pem"))
        write_both(bucket, proxy.url)
        with bucket_objects(proxy.url, bucket, budget=timedelta()) as objects:
            assert objects.find_misread_characters() == []
    assert bucket_server.keys(bucket) == ["large", "small"]


def test_the_proxy_of_the_environment_is_used(
    bucket_server: BucketServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bucket is reached through the http proxy, except for hosts in NO_PROXY."""
    with S3Proxy(bucket_server) as proxy:
        proxy.rewrite = lambda target: urlsplit(target)._replace(scheme="", netloc="").geturl()
        monkeypatch.setenv("http_proxy", proxy.url)
        write_both(bucket, bucket_server.url)
        assert not proxy.requests
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "example.org")
        write_both(bucket, bucket_server.url)
        assert len(proxy.requests) == 5
