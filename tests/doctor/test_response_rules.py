"""What answers come to, case by case."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from tilesync.doctor import response_rules as viewing
from tilesync.doctor.remedies import AzureRemedies, BucketRemedies, Remedies
from tilesync.doctor.response_rules import SampleFile, SampleResponses, ViewerPage
from tilesync.doctor.result import CheckStatus
from tilesync.doctor.web_servers import WebServerRemedies
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
PACKED = gzip.compress(DATA, mtime=0)


def answer(body: bytes = b"", status: int = 200, url: str = "https://t.example/x", **headers: str) -> HttpResponse:
    return HttpResponse(url, status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def make_responses(
    body: bytes = DATA,
    *,
    held: bytes = DATA,
    path: str = "versions/v/a.glb",
    media: str = "model/gltf-binary",
    part: HttpResponse | None = None,
    status: int = 200,
    **headers: str,
) -> SampleResponses:
    packed = held.startswith(b"\x1f\x8b")
    label = ObjectHeaders(media, "gzip" if packed else None, "public, max-age=31536000, immutable")
    sample = SampleFile(path, len(held), hashlib.sha256(held).digest(), packed, label)
    first = answer(held[:1], 206, content_range=f"bytes 0-0/{len(held)}")
    return SampleResponses(sample, answer(body, status, **headers), part or first)


@pytest.mark.parametrize("mend", ALL_REMEDIES)
@pytest.mark.parametrize(
    ("found", "words"),
    [
        (answer(status=302, location="https://other.example/b/tileset.json?sig=S"), "redirects"),
        *((answer(status=status), "is not public") for status in (401, 403, 404, 409)),
        (answer(status=405), "answers 405"),
        (answer(b"<html>"), "is not JSON"),
    ],
)
def test_a_pointer_that_cannot_be_read(found: HttpResponse, words: str, mend: Remedies) -> None:
    """Each says what it is, and what mends it; where a redirect leads to is told without its query."""
    with pytest.raises(DestinationError, match=words) as caught:
        viewing.check_public_access(found, mend)
    assert caught.value.hint
    assert "sig" not in f"{caught.value} {caught.value.hint}"


def test_a_pointer_that_can_be_read() -> None:
    """JSON is enough, packed on its way or not."""
    assert viewing.check_public_access(answer(b"{}"), SERVER_REMEDIES).status is CheckStatus.OK
    assert (
        viewing.check_public_access(
            answer(gzip.compress(b"{}", mtime=0), content_encoding="gzip"), SERVER_REMEDIES
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
def test_another_pointer(body: bytes, words: str) -> None:
    """It is told where it leads, and how long a cache has had it."""
    with pytest.raises(DestinationError, match=words):
        viewing.check_pointer(answer(body, age="99"), "new", "0" * 64)


@pytest.mark.parametrize(
    ("said", "result"),
    [
        *((said, "ok") for said in ("no-cache", "max-age=0, must-revalidate", "No-Store", 'max-age="60"')),
        *((said, "warn") for said in ("", "max-age=61", "public", "max-age=soon", "max-age=0, s-maxage=3600")),
    ],
)
def test_how_long_a_pointer_is_cached(said: str, result: str) -> None:
    """A minute at most; of a shared cache its own rule counts."""
    found = viewing.check_pointer_caching(answer(cache_control=said) if said else answer(), SERVER_REMEDIES)
    assert found.status == result
    assert bool(found.hint) == (result == "warn")


@pytest.mark.parametrize("said", ["*", "https://v.example"])
def test_an_origin_is_let_in(said: str) -> None:
    """By its name, or with all others."""
    assert (
        viewing.check_cors([answer(access_control_allow_origin=said)], VIEWER_PAGE, SERVER_REMEDIES).status
        is CheckStatus.OK
    )


@pytest.mark.parametrize("mend", ALL_REMEDIES)
@pytest.mark.parametrize("said", ["", "https://w.example", "*, *", "https://v.example:8443", "null"])
def test_an_origin_is_kept_out(said: str, mend: Remedies) -> None:
    """One answer that does not name it is enough; a header that came twice is none."""
    shut = answer(access_control_allow_origin=said) if said else answer()
    with pytest.raises(DestinationError) as caught:
        viewing.check_cors([answer(access_control_allow_origin="*"), shut], VIEWER_PAGE, mend)
    assert "https://v.example" in caught.value.hint


def test_tiles_in_clear_for_a_page_that_is_not() -> None:
    """An https page loads nothing from http, but from its own machine."""
    for url, result in (("http://t.example/x", "warn"), ("http://127.0.0.1/x", "ok")):
        found = viewing.check_cors([answer(url=url, access_control_allow_origin="*")], VIEWER_PAGE, SERVER_REMEDIES)
        assert found.status == result


@pytest.mark.parametrize(
    ("status", "allowed", "result"), [(204, "Range", "ok"), (200, "a, *", "ok"), (204, "", "warn"), (405, "*", "warn")]
)
def test_a_preflight(status: int, allowed: str, result: str) -> None:
    """Range is named, or anything is allowed, by an answer that is no error."""
    found = answer(status=status, access_control_allow_origin="*", access_control_allow_headers=allowed)
    assert viewing.check_preflight(found, VIEWER_PAGE, SERVER_REMEDIES).status == result


@pytest.mark.parametrize(
    "each",
    [
        make_responses(),
        make_responses(PACKED, content_encoding="gzip"),
        make_responses(PACKED, held=PACKED, content_encoding="gzip"),
        make_responses(DATA, held=PACKED),
    ],
)
def test_bytes_as_they_are_held(each: SampleResponses) -> None:
    """Also where they were packed on their way; what the server unpacked has no digest to compare with."""
    assert viewing.check_files([each]).status is CheckStatus.OK


def test_files_that_are_not_there_or_others() -> None:
    """All of them are counted, the first are named."""
    lost = [make_responses(status=404, path=f"versions/v/{number}") for number in range(5)]
    with pytest.raises(DestinationError, match=r"versions/v/0 \(404\).* and 2 more"):
        viewing.check_files(lost)
    with pytest.raises(VerifyFailed, match=r"a\.glb"):
        viewing.check_files([make_responses(b"other")])


@pytest.mark.parametrize(
    ("path", "media", "said", "fits"),
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
def test_types(path: str, media: str, said: str, fits: bool) -> None:
    """A server knows types by the ends of names; where it cannot, octets will do, and text never."""
    content: dict[str, Any] = {"content_type": said} if said else {}
    each = make_responses(path=path, media=media, **content)
    if fits:
        assert viewing.check_content_types([each], SERVER_REMEDIES).status is CheckStatus.OK
    else:
        for mend in ALL_REMEDIES:
            with pytest.raises(DestinationError) as caught:
                viewing.check_content_types([each], mend)
            assert media in caught.value.hint


@pytest.mark.parametrize(
    ("each", "words"),
    [
        (make_responses(PACKED, held=PACKED), "gzip without Content-Encoding"),
        (make_responses(DATA, content_encoding="gzip"), "without gzip content"),
    ],
)
def test_encodings_that_no_viewer_can_read(each: SampleResponses, words: str) -> None:
    """Packed and not said to be; said to be, and not."""
    with pytest.raises(DestinationError, match=words):
        viewing.check_content_encodings([each], SERVER_REMEDIES)


@pytest.mark.parametrize(
    "each",
    [
        make_responses(),
        make_responses(PACKED, content_encoding="GZIP"),
        make_responses(PACKED, held=PACKED, content_encoding="gzip"),
    ],
)
def test_encodings_that_say_what_is(each: SampleResponses) -> None:
    """Plain, packed on the way, and stored packed."""
    assert viewing.check_content_encodings([each], SERVER_REMEDIES).status is CheckStatus.OK


def test_ranges() -> None:
    """A part is right, or ignored, which is a warning; a wrong one is an error."""
    assert viewing.check_ranges([make_responses()], SERVER_REMEDIES).status is CheckStatus.OK
    assert viewing.check_ranges([make_responses(part=answer(DATA))], SERVER_REMEDIES).status is CheckStatus.WARN
    wrong = [answer(b"g", 206), answer(DATA, 206, content_range="bytes 0-0/13"), answer(status=416)]
    for part in wrong:
        with pytest.raises(DestinationError):
            viewing.check_ranges([make_responses(part=part)], SERVER_REMEDIES)


@pytest.mark.parametrize(
    ("said", "result"),
    [("public, max-age=31536000, immutable", "ok"), ("max-age=86400", "ok"), ("max-age=60", "warn"), ("", "warn")],
)
def test_how_long_a_file_is_cached(said: str, result: str) -> None:
    """A day is long enough."""
    assert viewing.check_caching([make_responses(cache_control=said)], SERVER_REMEDIES).status == result


def test_names_and_the_state() -> None:
    """An odd name is asked for where there is one; the state answers nobody."""
    assert viewing.check_quoted_name([], None).status is CheckStatus.SKIPPED
    assert viewing.check_quoted_name([make_responses(path="a b")], "a b").status is CheckStatus.OK
    with pytest.raises(DestinationError, match="not served"):
        viewing.check_quoted_name([make_responses(path="a b", status=404)], "a b")
    assert viewing.check_state_hidden(answer(status=404), SERVER_REMEDIES).status is CheckStatus.OK
    with pytest.raises(DestinationError, match="state is public"):
        viewing.check_state_hidden(answer(), SERVER_REMEDIES)


@pytest.mark.parametrize("call", [lambda m: m.access(), lambda m: m.hide_state(), lambda m: m.preflight("*")])
def test_every_place_has_its_own_words(call: Callable[[Remedies], Any]) -> None:
    """What mends a container, a bucket and a web server are three things."""
    assert all(isinstance(call(mend), str) for mend in ALL_REMEDIES)
