"""How a bucket is opened: who asks, where it lies, whom it trusts."""

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
    """Put a small object and a large one: each goes through another package."""
    with open_bucket(bucket, "", ignore_event, endpoint_url=endpoint_url, retry_budget=budget) as objects:
        objects.write("small", [b"1"], PLAIN)
        objects.write("large", [LARGE], PLAIN)


@pytest.mark.parametrize("package", ["obstore", "boto3"])
def test_a_missing_package_is_named(bucket: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the extra was not installed, the way to install it is said."""
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError) as raised:
        write_both(bucket, "http://127.0.0.1:9")
    assert "pip install obstore boto3" in raised.value.hint


def test_nobody_asks(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without credentials it is said which variables to set, before anybody is asked."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(NotAuthorised, match="there are no credentials for") as raised:
        write_both(bucket, "http://127.0.0.1:9")
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE;"} <= set(raised.value.hint.split())


def test_credentials_that_cannot_be_had(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile that is not there, and half a key, are told without what they hold."""
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(NotAuthorised, match="ProfileNotFound"):
        write_both(bucket, "http://127.0.0.1:9")
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(NotAuthorised, match="PartialCredentialsError"):
        write_both(bucket, "http://127.0.0.1:9")


def test_the_endpoint(
    bucket_server: BucketServer, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes from the option, else from the variables, else from the profile, the one for S3 first."""
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


@pytest.mark.parametrize("by", ["option", "variable"])
@pytest.mark.parametrize("url", ["http://s3.example.org", "ftp://127.0.0.1", "s3.example.org", "https://"])
def test_endpoints_that_are_refused(bucket: str, url: str, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain http to another machine is refused, as is what is no URL, wherever it was said."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", url if by == "variable" else "")
    with pytest.raises(UsageError):
        write_both(bucket, url if by == "option" else None)


def test_how_a_bucket_is_addressed() -> None:
    """At Amazon by its host, elsewhere by its path, unless that was configured otherwise; dots are for paths."""
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
    """The service tells where a bucket lies, and that there is none."""
    assert resolve_region(bucket_server.client, bucket, "s3://b/") == "eu-central-1"
    with pytest.raises(DestinationError, match="there is no bucket"):
        resolve_region(bucket_server.client, "no-such-bucket", "s3://no-such-bucket/")


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "AWS_CA_BUNDLE"])
def test_authorities(
    bucket_server: BucketServer, bucket: str, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server is trusted when its authority is named, among others, by either variable; for small objects, for large
    ones, and for the probe that asks as viewers do.
    """
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"), append=True)
    with S3Proxy(bucket_server, tls=tls) as road:
        with (
            bucket_objects(road.url, bucket, budget=timedelta()) as objects,
            pytest.raises(Unavailable, match="its certificate is not trusted"),
        ):
            objects.write("small", [b"1"], PLAIN)
        monkeypatch.setenv(variable, str(tmp_path / "ca.pem"))
        write_both(bucket, road.url)
        with bucket_objects(road.url, bucket, budget=timedelta()) as objects:
            assert objects.find_misread_characters() == []
    assert bucket_server.keys(bucket) == ["large", "small"]


def test_a_proxy(bucket_server: BucketServer, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set for the web is the way to the bucket, but for hosts that it is not for."""
    with S3Proxy(bucket_server) as road:
        road.rewrite = lambda target: urlsplit(target)._replace(scheme="", netloc="").geturl()
        monkeypatch.setenv("http_proxy", road.url)
        write_both(bucket, bucket_server.url)
        assert not road.requests
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "example.org")
        write_both(bucket, bucket_server.url)
        assert len(road.requests) == 5
