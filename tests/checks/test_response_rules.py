"""Response rules: results for single responses."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from tilesync.checks import response_rules
from tilesync.checks.remedies import AzureRemedies, BucketRemedies, Remedies
from tilesync.checks.response_rules import SampleFile, SampleResponses, ViewerPage
from tilesync.checks.result import CheckStatus
from tilesync.checks.web_servers import WebServerRemedies
from tilesync.errors import DestinationError, VerifyFailed
from tilesync.model.storage import AzureLocation, HttpResponse, ObjectHeaders, S3Location

ALL_REMEDIES: tuple[Remedies, ...] = (
    AzureRemedies(AzureLocation("acct", "box", "p/")),
    BucketRemedies(S3Location("pail", "p/"), "https://minio.example"),
    WebServerRemedies(),
)
SERVER_REMEDIES = ALL_REMEDIES[2]
VIEWER_PAGE = ViewerPage("https://v.example", any_origin=False)
DATA = b"glTF and more"
GZIP_DATA = gzip.compress(DATA, mtime=0)


def make_response(
    body: bytes = b"", status: int = 200, url: str = "https://t.example/x", **headers: str
) -> HttpResponse:
    return HttpResponse(url, status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def make_responses(
    body: bytes = DATA,
    *,
    stored: bytes = DATA,
    path: str = "versions/v/a.glb",
    media: str = "model/gltf-binary",
    part: HttpResponse | None = None,
    status: int = 200,
    **headers: str,
) -> SampleResponses:
    is_gzip = stored.startswith(b"\x1f\x8b")
    expected = ObjectHeaders(media, "gzip" if is_gzip else None, "public, max-age=31536000, immutable")
    sample = SampleFile(path, len(stored), hashlib.sha256(stored).digest(), is_gzip, expected)
    first = make_response(stored[:1], 206, content_range=f"bytes 0-0/{len(stored)}")
    return SampleResponses(sample, make_response(body, status, **headers), part or first)


@pytest.mark.parametrize("remedies", ALL_REMEDIES)
@pytest.mark.parametrize(
    ("result", "words"),
    [
        (make_response(status=302, location="https://other.example/b/tileset.json?sig=S"), "redirects"),
        *((make_response(status=status), "is not public") for status in (403, 404, 409)),
        (make_response(status=401), "it asks for a token or a password"),
        (make_response(status=405), "answers 405"),
        (make_response(b"<html>"), "is not JSON"),
    ],
)
def test_a_pointer_that_cannot_be_read(result: HttpResponse, words: str, remedies: Remedies) -> None:
    """Each message names the problem, and has a hint; the target of a redirect has no query."""
    with pytest.raises(DestinationError, match=words) as caught:
        response_rules.check_public_access(result, remedies)
    assert caught.value.hint
    assert "sig" not in f"{caught.value} {caught.value.hint}"


def test_a_server_that_asks_for_a_token() -> None:
    """The hint says that this may be intended, not that permissions are wrong; a store is made public instead."""
    assert "without a token" in SERVER_REMEDIES.credentials()
    assert "namei" not in SERVER_REMEDIES.credentials()
    for remedies in ALL_REMEDIES:
        assert remedies is SERVER_REMEDIES or remedies.credentials() == remedies.access()


def test_a_pointer_that_can_be_read() -> None:
    """JSON is enough, with or without Content-Encoding gzip."""
    assert response_rules.check_public_access(make_response(b"{}"), SERVER_REMEDIES).status is CheckStatus.OK
    assert (
        response_rules.check_public_access(
            make_response(gzip.compress(b"{}", mtime=0), content_encoding="gzip"), SERVER_REMEDIES
        ).status
        is CheckStatus.OK
    )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"uri": "versions/old/a.glb"}', "leads to version old; it has been in a cache for 99 s"),
        (b"{}", "bytes differ"),
    ],
)
def test_a_pointer_to_another_version(body: bytes, words: str) -> None:
    """The message says which version the pointer leads to, and how long it has been in a cache."""
    with pytest.raises(DestinationError, match=words):
        response_rules.check_pointer(make_response(body, age="99"), "new", "0" * 64)


@pytest.mark.parametrize(
    ("value", "result"),
    [
        *((value, "ok") for value in ("no-cache", "max-age=0, must-revalidate", "No-Store", 'max-age="60"')),
        *((value, "warn") for value in ("", "max-age=61", "public", "max-age=soon", "max-age=0, s-maxage=3600")),
    ],
)
def test_caching_of_the_pointer(value: str, result: str) -> None:
    """The pointer may be cached for a minute; a rule for shared caches takes precedence."""
    actual = response_rules.check_pointer_caching(
        make_response(cache_control=value) if value else make_response(), SERVER_REMEDIES
    )
    assert actual.status == result
    assert bool(actual.hint) == (result == "warn")


@pytest.mark.parametrize("value", ["*", "https://v.example"])
def test_an_origin_is_allowed(value: str) -> None:
    """A response allows an origin by its name, or by `*`."""
    assert (
        response_rules.check_cors(
            [make_response(access_control_allow_origin=value)], VIEWER_PAGE, SERVER_REMEDIES
        ).status
        is CheckStatus.OK
    )


@pytest.mark.parametrize("remedies", ALL_REMEDIES)
@pytest.mark.parametrize("value", ["", "https://w.example", "*, *", "https://v.example:8443", "null"])
def test_an_origin_is_refused(value: str, remedies: Remedies) -> None:
    """One response that does not allow the origin is enough to fail; a repeated header allows nothing."""
    shut = make_response(access_control_allow_origin=value) if value else make_response()
    with pytest.raises(DestinationError) as caught:
        response_rules.check_cors([make_response(access_control_allow_origin="*"), shut], VIEWER_PAGE, remedies)
    assert "https://v.example" in caught.value.hint


def test_http_tiles_for_an_https_page() -> None:
    """Browsers block http content on https pages, except from the same machine."""
    for url, result in (("http://t.example/x", "warn"), ("http://127.0.0.1/x", "ok")):
        actual = response_rules.check_cors(
            [make_response(url=url, access_control_allow_origin="*")], VIEWER_PAGE, SERVER_REMEDIES
        )
        assert actual.status == result


@pytest.mark.parametrize(
    ("status", "allowed", "result"), [(204, "Range", "ok"), (200, "a, *", "ok"), (204, "", "warn"), (405, "*", "warn")]
)
def test_a_preflight(status: int, allowed: str, result: str) -> None:
    """A preflight passes if its response is successful and allows Range or `*`."""
    actual = make_response(status=status, access_control_allow_origin="*", access_control_allow_headers=allowed)
    assert response_rules.check_preflight(actual, VIEWER_PAGE, SERVER_REMEDIES).status == result


@pytest.mark.parametrize(
    "each",
    [
        make_responses(),
        make_responses(GZIP_DATA, content_encoding="gzip"),
        make_responses(GZIP_DATA, stored=GZIP_DATA, content_encoding="gzip"),
        make_responses(DATA, stored=GZIP_DATA),
    ],
)
def test_served_bytes_equal_stored_bytes(each: SampleResponses) -> None:
    """Served bytes are compared with the manifest, except content that the server decoded: it has no digest."""
    assert response_rules.check_files([each]).status is CheckStatus.OK


def test_missing_or_different_files() -> None:
    """All missing files are counted, the first ones named."""
    lost = [make_responses(status=404, path=f"versions/v/{number}") for number in range(5)]
    with pytest.raises(DestinationError, match=r"versions/v/0 \(404\).* and 2 more"):
        response_rules.check_files(lost)
    with pytest.raises(VerifyFailed, match=r"a\.glb"):
        response_rules.check_files([make_responses(b"other")])


@pytest.mark.parametrize(
    ("path", "media", "value", "fits"),
    [
        ("a.glb", "model/gltf-binary", "model/gltf-binary", True),
        ("a.glb", "model/gltf-binary", "application/octet-stream", False),
        ("a.glb", "model/gltf-binary", "", False),
        ("a.bin", "model/gltf-binary", "application/octet-stream", True),
        ("a.bin", "model/gltf-binary", "", True),
        ("a.bin", "model/gltf-binary", "text/plain", False),
        ("a.json", "application/json", "Application/JSON; charset=utf-8", True),
        ("a.geojson", "application/geo+json", "application/json", True),
        ("a.json", "application/json", "text/html", False),
        ("a.b3dm", "application/octet-stream", "application/x-b3dm", True),
        ("a.b3dm", "application/octet-stream", "text/plain", False),
    ],
)
def test_media_types(path: str, media: str, value: str, fits: bool) -> None:
    """Servers know media types by extension; for other files octet-stream is accepted, and text never."""
    content: dict[str, Any] = {"content_type": value} if value else {}
    each = make_responses(path=path, media=media, **content)
    if fits:
        assert response_rules.check_content_types([each], SERVER_REMEDIES).status is CheckStatus.OK
    else:
        for remedies in ALL_REMEDIES:
            with pytest.raises(DestinationError) as caught:
                response_rules.check_content_types([each], remedies)
            assert media in caught.value.hint


@pytest.mark.parametrize(
    ("each", "words"),
    [
        (make_responses(GZIP_DATA, stored=GZIP_DATA), "gzip without Content-Encoding"),
        (make_responses(DATA, content_encoding="gzip"), "without gzip content"),
    ],
)
def test_encodings_that_no_viewer_can_read(each: SampleResponses, words: str) -> None:
    """Gzip without Content-Encoding fails, and so does Content-Encoding without gzip."""
    with pytest.raises(DestinationError, match=words):
        response_rules.check_content_encodings([each], SERVER_REMEDIES)


@pytest.mark.parametrize(
    "each",
    [
        make_responses(),
        make_responses(GZIP_DATA, content_encoding="GZIP"),
        make_responses(GZIP_DATA, stored=GZIP_DATA, content_encoding="gzip"),
    ],
)
def test_correct_encodings(each: SampleResponses) -> None:
    """Plain files, files encoded in transit and files stored as gzip pass."""
    assert response_rules.check_content_encodings([each], SERVER_REMEDIES).status is CheckStatus.OK


def test_ranges() -> None:
    """A correct part is fine, an ignored range is a warning, a wrong part is an error."""
    assert response_rules.check_ranges([make_responses()], SERVER_REMEDIES).status is CheckStatus.OK
    assert (
        response_rules.check_ranges([make_responses(part=make_response(DATA))], SERVER_REMEDIES).status
        is CheckStatus.WARN
    )
    wrong = [
        make_response(b"g", 206),
        make_response(DATA, 206, content_range="bytes 0-0/13"),
        make_response(status=416),
    ]
    for part in wrong:
        with pytest.raises(DestinationError):
            response_rules.check_ranges([make_responses(part=part)], SERVER_REMEDIES)


@pytest.mark.parametrize(
    ("value", "result"),
    [("public, max-age=31536000, immutable", "ok"), ("max-age=86400", "ok"), ("max-age=60", "warn"), ("", "warn")],
)
def test_caching_of_a_file(value: str, result: str) -> None:
    """A file that may be cached for one day passes."""
    assert response_rules.check_caching([make_responses(cache_control=value)], SERVER_REMEDIES).status == result


def test_quoted_names_and_the_hidden_state() -> None:
    """A file whose name must be percent-encoded is served, if there is one; the state is not served."""
    assert response_rules.check_quoted_name([], None).status is CheckStatus.SKIPPED
    assert response_rules.check_quoted_name([make_responses(path="a b")], "a b").status is CheckStatus.OK
    with pytest.raises(DestinationError, match="not served"):
        response_rules.check_quoted_name([make_responses(path="a b", status=404)], "a b")
    assert response_rules.check_state_hidden(make_response(status=404), SERVER_REMEDIES).status is CheckStatus.OK
    with pytest.raises(DestinationError, match="state is public"):
        response_rules.check_state_hidden(make_response(), SERVER_REMEDIES)


@pytest.mark.parametrize("call", [lambda m: m.access(), lambda m: m.hide_state(), lambda m: m.preflight("*")])
def test_each_kind_of_host_has_its_hints(call: Callable[[Remedies], Any]) -> None:
    """Containers, buckets and web servers have different hints."""
    assert all(isinstance(call(remedies), str) for remedies in ALL_REMEDIES)
