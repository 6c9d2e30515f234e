"""Test the parser of locations: folders, Azure containers and S3 buckets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilesync.app.locations import Location, find_link, is_azure, is_folder, match_location, parse_location
from tilesync.errors import UsageError
from tilesync.model.storage import AzureLocation, S3Location

SAS = "sv=2024&se=2026-11-26T13%3A00%3A00Z&sig=TOPSECRET"


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("az://account1/tiles", AzureLocation("account1", "tiles")),
        ("az://account1/tiles/", AzureLocation("account1", "tiles")),
        ("az://account1/tiles/a b/c+d/", AzureLocation("account1", "tiles", "a b/c+d/")),
        ("az://account1/$web", AzureLocation("account1", "$web")),
        ("az://account1/a-b", AzureLocation("account1", "a-b")),
        (f"az://account1/{'a' * 63}", AzureLocation("account1", "a" * 63)),
        ("s3://my-bucket", S3Location("my-bucket")),
        ("s3://My_bucket.de/x/y%2F", S3Location("My_bucket.de", "x/y%2F/")),
        ("/srv/tiles", None),
        ("tiles", None),
        ("C:\\tiles", None),
        ("./az", None),
    ],
)
def test_locations(text: str, location: AzureLocation | S3Location | None) -> None:
    """A store URL has its parts, and its prefix ends with one slash; every other text is a folder."""
    assert parse_location(text) == location


@pytest.mark.parametrize(
    ("url", "endpoint", "location", "base"),
    [
        ("https://acc.blob.core.windows.net/tiles", None, "az://acc/tiles", "https://acc.blob.core.windows.net/tiles"),
        (
            "https://acc.blob.core.chinacloudapi.cn/tiles/a/b%20c/",
            None,
            "az://acc/tiles/a/b c",
            "https://acc.blob.core.chinacloudapi.cn/tiles",
        ),
        ("http://127.0.0.1:10000/acc/tiles/x", None, "az://acc/tiles/x", "http://127.0.0.1:10000/acc/tiles"),
        (
            "https://storage.example/blobs/acc/tiles/x",
            "https://storage.example/blobs/acc",
            "az://acc/tiles/x",
            "https://storage.example/blobs/acc/tiles",
        ),
        (
            "https://storage.example/blobs/acc/tiles/x",
            "https://storage.example/blobs/{account}",
            "az://acc/tiles/x",
            "https://storage.example/blobs/acc/tiles",
        ),
        ("http://127.0.0.1:1/acc/a-b", "http://127.0.0.1:1/{account}", "az://acc/a-b", "http://127.0.0.1:1/acc/a-b"),
        (
            "https://acc.blob.core.usgovcloudapi.net/tiles",
            "https://{account}.blob.core.usgovcloudapi.net",
            "az://acc/tiles",
            "https://acc.blob.core.usgovcloudapi.net/tiles",
        ),
    ],
)
def test_links_to_containers(url: str, endpoint: str | None, location: str, base: str) -> None:
    """Account, container and prefix are parsed, also for emulators and other endpoints; the link is kept."""
    result = parse_location(f"{url}?{SAS}", endpoint=endpoint, fetched=3.0)
    assert isinstance(result, AzureLocation)
    assert str(result) == location
    assert result.link is not None
    assert (result.link.base, result.link.query, result.link.fetched_at_s) == (base, SAS, 3.0)
    assert result.link.expires is not None


@pytest.mark.parametrize(
    "text",
    [
        "az:account/tiles",
        "az://account1",
        "az://account1/",
        "az://Account/tiles",
        "az://account1/T",
        "az://account1/tiles/../x",
        "az://account1/tiles/a//b",
        "az://account1/tiles?sig=TOPSECRET",
        "s3:bucket",
        "s3://",
        "s3://b/x",
        "s3://bucket?sig=TOPSECRET",
        "ftp://host/x",
        "https://acc.blob.core.windows.net/tiles",
        f"https://acc.blob.core.windows.net/?{SAS}",
        f"https://acc.blob.core.windows.net:x/tiles?{SAS}",
        f"https://[::1/tiles?{SAS}",
        f"https://user:TOPSECRET@acc.blob.core.windows.net/tiles?{SAS}",
    ],
)
def test_invalid_locations_are_refused(text: str) -> None:
    """Invalid locations are usage errors that do not repeat a signature."""
    with pytest.raises(UsageError) as error:
        parse_location(text)
    assert "TOPSECRET" not in str(error.value) + error.value.hint


@pytest.mark.parametrize(
    ("location", "kind"),
    [(Path("/srv/tiles"), "folder"), (AzureLocation("account1", "tiles"), "azure"), (S3Location("bucket"), "s3")],
)
def test_the_kind_of_a_location_decides(location: Location, kind: str) -> None:
    """The function for the kind of a location gets it, and only that one is called."""
    called = match_location(
        location, folder=lambda at: ("folder", at), azure=lambda at: ("azure", at), s3=lambda at: ("s3", at)
    )
    assert called == (kind, location)
    assert (is_folder(location), is_azure(location)) == (kind == "folder", kind == "azure")
    assert find_link(location) is None


def test_a_link_is_found_in_its_location() -> None:
    """Only a location that was parsed from a container link has one."""
    location = parse_location(f"https://account1.blob.core.windows.net/tiles?{SAS}")
    assert location is not None
    link = find_link(location)
    assert link is not None
    assert link.query == SAS
