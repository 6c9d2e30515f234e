"""A page that is written as Azure writes it, and any other: the same bytes mean the same."""

from __future__ import annotations

import base64
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilesync.errors import Transient
from tilesync.model import Blob, Page
from tilesync.rules.listings import _parsed, _plain, parse_page

HEAD = (
    '<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="https://a/" ContainerName="c"><Blobs>'
)
FOOT = "</Blobs><NextMarker>{}</NextMarker></EnumerationResults>"
WHEN = "Sun, 01 Mar 2026 08:30:00 GMT"
MD5 = bytes(range(16))


def entry(name: str, size: object = 7, **more: str) -> str:
    fields = {
        "Creation-Time": WHEN,
        "Last-Modified": WHEN,
        "Etag": "0x8D",
        "Content-Length": str(size),
        "Content-Type": "model/gltf-binary",
        "Content-Encoding": "",
        "Content-MD5": base64.b64encode(MD5).decode(),
        **{key.replace("_", "-"): value for key, value in more.items()},
    }
    inner = "".join(f"<{key}>{escape(value)}</{key}>" if value else f"<{key} />" for key, value in fields.items())
    return f"<Blob><Name>{escape(name)}</Name><Properties>{inner}</Properties><OrMetadata /></Blob>"


def page(*entries: str, marker: str = "") -> bytes:
    return f"{HEAD}{''.join(entries)}{FOOT.format(escape(marker))}".encode()


def meaning(body: bytes) -> Page | str:
    """What the parser says of a page, or that it is none."""
    try:
        return _parsed(body)
    except Transient:
        return "torn"


def test_azures_own_form_is_read_plainly() -> None:
    """What Azure writes needs no parser, and says what it says to one."""
    body = page(entry("tiles/a&b <c>.glb"), entry("tileset.json", Content_Encoding="gzip"), marker="2!76!x&y")
    plain = _plain(body.decode())
    assert plain == Page(
        (
            Blob("tiles/a&b <c>.glb", 7, "0x8D", MD5, "model/gltf-binary", None, 1772353800),
            Blob("tileset.json", 7, "0x8D", MD5, "model/gltf-binary", "gzip", 1772353800),
        ),
        "2!76!x&y",
    )
    assert plain == _parsed(body) == parse_page(body) == parse_page(b"\xef\xbb\xbf" + body)


def test_an_empty_page_and_placeholders() -> None:
    """No blobs are no error; placeholders of folders are counted and left out."""
    assert parse_page(page()) == Page((), None)
    body = page(entry("a/", 0), entry("b", 0, ResourceType="directory"), entry("c", 0))
    assert parse_page(body) == _parsed(body)
    assert (len(parse_page(body).blobs), parse_page(body).skipped) == (1, 2)


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
ENTRIES = st.builds(
    entry,
    NAMES,
    st.sampled_from([0, 1, 10**15, -1, "", "x", " 5", "1_0"]),
    Etag=st.sampled_from(["", '"0x8D"', 'W/"1"', "a&b", "a>b", "a\tb"]),
    Content_MD5=st.sampled_from(["", "AAAA", base64.b64encode(MD5).decode()]),
    Last_Modified=st.sampled_from(["", WHEN, "soon"]),
    ResourceType=st.sampled_from(["", "file", "directory"]),
    Content_Language=st.sampled_from(["", "de"]),
    Odd=st.sampled_from(["", "text", "a&b"]),
)


@given(st.lists(ENTRIES, max_size=3), st.sampled_from(["", "m", "a&b"]))
@settings(max_examples=400, deadline=None)
def test_both_ways_say_the_same(entries: list[str], marker: str) -> None:
    """Where a page is read plainly at all, the parser says the same of it."""
    body = page(*entries, marker=marker)
    try:
        plain = _plain(body.decode())
    except (ValueError, KeyError):
        plain = None
    assert plain is None or plain == meaning(body)


BODY = page(entry("a&b"), entry("dir/ü.glb", Etag='"0x8D"'), marker="next")


@pytest.mark.parametrize("cut", range(1, len(BODY)))
def test_a_page_cut_anywhere_is_torn(cut: int) -> None:
    """No beginning of a page is a page."""
    with pytest.raises(Transient):
        parse_page(BODY[:cut])


@given(
    st.integers(0, len(BODY) - 1), st.sampled_from([b"", b"<", b"&", b">", b"\x00", b"\xff", b"</Blob>", b"<!--", b"x"])
)
@settings(max_examples=600, deadline=None)
def test_a_page_with_something_amiss_means_what_the_parser_says(at: int, other: bytes) -> None:
    """One byte replaced, or lost: what is read is what a parser reads, or an error, as it is for the parser."""
    body = BODY[:at] + other + BODY[at + 1 :]
    try:
        found: Page | str = parse_page(body)
    except Transient:
        found = "torn"
    assert found == meaning(body)


@pytest.mark.parametrize(
    "body",
    [
        page("<Blob><Name>a</Name></Blob>"),
        page(entry("")),
        page(entry("a", -1)),
        b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e "y">]><EnumerationResults><Blobs/></EnumerationResults>',
        page(entry("a")).replace(b"</EnumerationResults>", b"</EnumerationResults><more/>"),
        page(entry("a")) + b"x",
        b"",
        b"<html>no</html>",
    ],
)
def test_what_is_no_page(body: bytes) -> None:
    """Nothing that is not a whole page is taken for one."""
    with pytest.raises(Transient):
        parse_page(body)


@pytest.mark.parametrize(
    "change",
    [
        (b"<Blobs>", b"<Blobs>\n  "),
        (b"<Name>a</Name>", b"<!-- c --><Name>a</Name>"),
        (b"<Name>a</Name>", b'<Name Encoded="true">%61</Name>'),
        (b"<Name>a</Name>", b"<Name>&#97;</Name>"),
        (b"<Name>a</Name>", b"<Name><![CDATA[a]]></Name>"),
        (b"<OrMetadata />", b"<Metadata><Name>trap</Name><Etag>trap</Etag></Metadata>"),
        (b"<Properties>", b"<Properties><Nested><Etag>trap</Etag></Nested>"),
        (b'encoding="utf-8"', b'encoding="UTF-8"'),
    ],
)
def test_other_ways_to_write_the_same(change: tuple[bytes, bytes]) -> None:
    """Written otherwise, a page is read by the parser, and means the same."""
    body = page(entry("a"), marker="m")
    assert change[0] in body
    assert parse_page(body.replace(*change, 1)) == parse_page(body)


@pytest.mark.parametrize(
    ("change", "blobs"),
    [
        ((b"</Properties>", b"<Etag>last</Etag><Content-MD5 /></Properties>"), [("last", None)]),
        ((b"</Properties>", b"<ResourceType>directory</ResourceType></Properties>"), []),
        ((b"<Etag>0x8D</Etag>", b""), [("", MD5)]),
    ],
)
def test_other_properties_than_usual(change: tuple[bytes, bytes], blobs: list[tuple[str, bytes | None]]) -> None:
    """A property that comes twice, is missing, or is of another storage, means what it means to the parser."""
    body = page(entry("a")).replace(*change, 1)
    assert parse_page(body) == _parsed(body)
    assert [(blob.etag, blob.md5) for blob in parse_page(body).blobs] == blobs
