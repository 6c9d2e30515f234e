"""Public URLs of destinations."""

from __future__ import annotations

import pytest

from tilesync.app.locations import parse_location
from tilesync.checks.public_url import bucket_public_url, container_public_url, parse_origin, parse_public_url
from tilesync.errors import UsageError
from tilesync.model.storage import AzureLocation, S3Location

ACCOUNT_URL = "https://acct.blob.core.windows.net"


@pytest.mark.parametrize(
    ("place", "endpoint", "region", "url"),
    [
        ("s3://pail/p", None, None, "https://pail.s3.amazonaws.com/p"),
        ("s3://pail/p", None, "eu-west-1", "https://pail.s3.eu-west-1.amazonaws.com/p"),
        ("s3://pa.il", None, "eu-west-1", "https://s3.eu-west-1.amazonaws.com/pa.il"),
        ("s3://pail/p", "https://minio.example", "eu-west-1", "https://minio.example/pail/p"),
    ],
)
def test_the_url_of_a_bucket(place: str, endpoint: str | None, region: str | None, url: str) -> None:
    """The URL of the bucket at its region or server."""
    location = parse_location(place)
    assert isinstance(location, S3Location)
    assert bucket_public_url(location, endpoint=endpoint, region=region) == url


@pytest.mark.parametrize(
    ("place", "endpoint", "url"),
    [
        ("az://acct/box", ACCOUNT_URL, "https://acct.blob.core.windows.net/box"),
        ("az://acct/box/a b/c+", ACCOUNT_URL, "https://acct.blob.core.windows.net/box/a%20b/c%2B"),
        ("az://acct/box", "http://127.0.0.1:1/acct/", "http://127.0.0.1:1/acct/box"),
        ("https://acct.blob.core.windows.net/box/p?sig=x", "https://other", f"{ACCOUNT_URL}/box/p"),
    ],
)
def test_the_url_of_a_container(place: str, endpoint: str, url: str) -> None:
    """The URL of the account, with a quoted prefix and without a signature."""
    location = parse_location(place)
    assert isinstance(location, AzureLocation)
    assert container_public_url(location, endpoint=endpoint) == url


def test_the_url_of_a_virtual_hosted_bucket() -> None:
    """Viewers use the host name with the bucket, if the server is configured so."""
    place = S3Location("pail", "p/")
    assert (
        bucket_public_url(place, endpoint="https://minio.example:9000/", region=None, virtual_hosted=True)
        == "https://pail.minio.example:9000/p"
    )


def test_given_urls_are_normalised() -> None:
    """A given URL loses its trailing slash and `tileset.json`."""
    assert parse_public_url("https://t.example/bridge/tileset.json ") == "https://t.example/bridge"
    assert parse_public_url("http://t.example:80/") == "http://t.example:80"
    assert parse_origin("https://V.example:8443/") == "https://v.example:8443"
    assert parse_origin("https://ü.example") == "https://xn--tda.example"


@pytest.mark.parametrize(
    "text", ["t.example", "ftp://t", "https://", "https://t/x?sig=S", "https://u:p@t/", "http://[", "http://t:x"]
)
def test_an_invalid_public_url_is_refused(text: str) -> None:
    """Viewers send no queries and credentials; the message does not repeat them."""
    with pytest.raises(UsageError) as caught:
        parse_public_url(text)
    assert "sig" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["v.example", "https://v.example/page", "https://", "http://v:x", "file:///a", "https://ü" + "x" * 70]
)
def test_an_invalid_origin_is_refused(text: str) -> None:
    """An origin is scheme, host and port."""
    with pytest.raises(UsageError):
        parse_origin(text)
