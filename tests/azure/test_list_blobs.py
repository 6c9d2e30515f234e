"""List Blobs pages: the fast path and the XML parser give the same result for the same bytes."""

from __future__ import annotations

import base64
import hashlib
import tracemalloc
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from tilesync.azure import list_blobs
from tilesync.azure.list_blobs import MAX_PAGE_TAGS, _parse_any_form, _parse_azure_form, parse_page, peek_marker
from tilesync.errors import Transient
from tilesync.model import Blob, Page

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


def parse_or_error(body: bytes) -> Page | str:
    """Parse a page with the XML parser; "torn" for a malformed one."""
    try:
        return _parse_any_form(body)
    except Transient:
        return "torn"


def test_azures_own_form_takes_the_fast_path() -> None:
    """A page in Azure's own form takes the fast path and gives the result of the parser."""
    body = page(entry("tiles/a&b <c>.glb"), entry("tileset.json", Content_Encoding="gzip"), marker="2!76!x&y")
    plain = _parse_azure_form(body)
    assert plain == Page.of(
        (
            Blob("tiles/a&b <c>.glb", 7, "0x8D", MD5, "model/gltf-binary", None, 1772353800),
            Blob("tileset.json", 7, "0x8D", MD5, "model/gltf-binary", "gzip", 1772353800),
        ),
        "2!76!x&y",
    )
    assert plain == _parse_any_form(body) == parse_page(body) == parse_page(b"\xef\xbb\xbf" + body)


@pytest.mark.parametrize(
    "echo",
    ["<Marker>2!76!x&amp;y</Marker>", "<MaxResults>357</MaxResults>", "<Prefix /><Marker /><MaxResults>1</MaxResults>"],
)
def test_a_page_that_repeats_its_marker(echo: str) -> None:
    """A page that repeats the marker of its request takes the fast path and gives the same result."""
    body = page(entry("a"), marker="m").replace(b"<Blobs>", f"{echo}<Blobs>".encode())
    assert _parse_azure_form(body) == _parse_any_form(body) == parse_page(page(entry("a"), marker="m"))


def test_an_empty_page_and_placeholders() -> None:
    """A page without blobs is no error; folder placeholders are counted and left out."""
    assert parse_page(page()) == Page.of((), None)
    body = page(entry("a/", 0), entry("b", 0, ResourceType="directory"), entry("c", 0))
    assert parse_page(body) == _parse_any_form(body)
    assert (len(parse_page(body).blobs), parse_page(body).skipped) == (1, 2)


def test_blobs_that_end_in_other_ways() -> None:
    """Blobs between others that end like the first one, in whatever way they end, give the result of the parser."""
    usual = [entry(f"tiles/{number}&.glb", number) for number in range(1, 9)]
    usual[2] = entry("cached", 1, Cache_Control="max-age=1")
    usual[4:6] = [
        entry("a/", 0),
        entry("folder", 0, ResourceType="directory"),
        entry("x", Etag='W/"1"', Content_MD5=""),
    ]
    body = page(*usual, marker="m")
    parsed = _parse_azure_form(body)
    assert parsed == _parse_any_form(body)
    assert parsed is not None
    assert (len(parsed.blobs), parsed.skipped) == (7, 2)


@pytest.mark.parametrize("name", ["plain", "ä b%20+#'\"", "a&b", "<c>", "\uf8ff", "\ufffd", "z\u0300"])
@pytest.mark.parametrize("kind", ["glb", "a>b", "a&b", "\uffef"])
def test_one_unusual_blob_among_plain_ones(name: str, kind: str) -> None:
    """Marks and characters that are read with more care, in one blob or in all, give the result of the parser."""
    plain, other = entry("tiles/plain.glb"), entry(name, Content_Type=kind).replace("a&gt;b", "a>b")
    for entries in ([plain, other, plain], [other, plain], [other] * 3, [plain, plain]):
        body = page(*entries, marker="m")
        assert ">b" in other or _parse_azure_form(body) == _parse_any_form(body)
        assert parse_page(body) == parse_page(b"\xef\xbb\xbf" + body) == _parse_any_form(body)


@pytest.mark.parametrize(
    "bad", [b"\x01", b"\x7f\x01", b"\xef\xbf\xbe", b"\xef\xbf\xbf", b"\xff", b"</Name>", b"<b/>", b"<"]
)
def test_one_malformed_name_among_plain_ones(bad: bytes) -> None:
    """A name that no XML may have is refused in every place of the page."""
    for names in (["BAD", "b", "c"], ["a", "BAD", "c"], ["a", "b", "BAD"]):
        body = page(*map(entry, names)).replace(b"BAD", bad)
        assert parse_or_error(body) == "torn"
        with pytest.raises(Transient):
            parse_page(body)


def test_a_blob_that_lacks_its_end() -> None:
    """A blob that is closed right after its MD5 is malformed, also between blobs that end alike."""
    lacking = entry("b").partition("</Content-MD5>")[0] + "</Content-MD5></Blob>"
    for entries in ([entry("a"), lacking, entry("c")], [entry("a"), lacking], [lacking, entry("c")]):
        with pytest.raises(Transient):
            parse_page(page(*entries))


@pytest.mark.parametrize("size", [1, 300, 500, 900])
def test_a_page_is_read_in_pieces(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a page is cut into pieces, the result is the same, also of blobs that are counted or have no date."""
    entries = [entry(f"tiles/{number}&.glb", number) for number in range(1, 7)]
    entries[2:4] = [entry("a/", 0), entry("x", Last_Modified="?"), entry("cached", 1, Cache_Control="max-age=1")]
    body = page(*entries, entry("folder", 0, ResourceType="directory"), marker="m")
    monkeypatch.setattr(list_blobs, "_PIECE_BYTES", size)
    parsed = _parse_azure_form(body)
    assert parsed == _parse_any_form(body)
    assert parsed is not None
    assert (len(parsed.blobs), parsed.skipped, parsed.undated) == (6, 2, 1)


@pytest.mark.parametrize("between", ["text", "<Blob/>", "</Blob>", "<BlobPrefix><Name>a</Name></BlobPrefix>"])
def test_other_text_between_pieces(between: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anything else between two blobs gives the result of the parser, also where a piece ends."""
    body = page(entry("a"), entry("b"), between, entry("c"), entry("d"))
    for size in (1, 500, 5000):
        monkeypatch.setattr(list_blobs, "_PIECE_BYTES", size)
        try:
            result: Page | str = parse_page(body)
        except Transient:
            result = "torn"
        assert result == parse_or_error(body)


def test_a_large_page_takes_little_more_memory_than_its_bytes() -> None:
    """While a page of 5,000 blobs is read, all that is made of it takes no more than twice its own bytes."""
    body = page(*(entry(f"tiles/{number:06}.glb") for number in range(1, 5001)), marker="m")
    tracemalloc.start()
    try:
        assert len(parse_page(body).blobs) == 5000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(body), f"{peak:,} bytes for a page of {len(body):,}"


def test_a_line_break_is_no_end_of_a_blob() -> None:
    """A name with a line break gives the result of the parser, also where one side of it looks like a whole blob."""
    begin = entry("a").removeprefix("<Blob><Name>").partition("</Content-MD5>")[0] + "</Content-MD5>"
    for name in ("a\nb", f"{escape(begin)}\nb"):
        body = page(entry("first"), entry("X"), entry("last")).replace(b"X", name.encode())
        with pytest.raises(ValueError, match="line break"):
            _parse_azure_form(body)
        assert parse_page(body) == _parse_any_form(body)


@pytest.mark.parametrize("marker", ["", "next", "2!76!x&y", "ü"])
def test_the_marker_is_known_before_the_page_is_parsed(marker: str) -> None:
    """The end of a page in Azure's own form gives its marker, even if its begin is malformed; a cut page gives none."""
    body = page(entry("a"), marker=marker)
    assert peek_marker(body) == parse_page(body).marker == peek_marker(body[20:])
    assert peek_marker(body[:-1]) is peek_marker(b"") is peek_marker(b"</Blobs>\xff") is None


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


@given(st.lists(ENTRIES, max_size=5), st.sampled_from(["", "m", "a&b"]))
@examples(400, deadline=None)
def test_fast_path_and_parser_agree(entries: list[str], marker: str) -> None:
    """Where the fast path parses a page at all, the parser gives the same result."""
    body = page(*entries, marker=marker)
    try:
        plain = _parse_azure_form(body)
    except (ValueError, KeyError):
        plain = None
    assert plain is None or plain == parse_or_error(body)


BODY = page(entry("a&b"), entry("dir/ü.glb", Etag='"0x8D"'), marker="next")


@pytest.mark.parametrize("cut", range(1, len(BODY)))
def test_a_page_cut_anywhere_is_torn(cut: int) -> None:
    """No prefix of a page is a page."""
    with pytest.raises(Transient):
        parse_page(BODY[:cut])


@given(
    st.integers(0, len(BODY) - 1), st.sampled_from([b"", b"<", b"&", b">", b"\x00", b"\xff", b"</Blob>", b"<!--", b"x"])
)
@examples(600, deadline=None)
def test_a_damaged_page_gives_the_result_of_the_parser(at: int, other: bytes) -> None:
    """With one byte replaced or lost, the result is that of the parser, or an error as it is for the parser."""
    body = BODY[:at] + other + BODY[at + 1 :]
    try:
        result: Page | str = parse_page(body)
    except Transient:
        result = "torn"
    assert result == parse_or_error(body)


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
def test_malformed_input(body: bytes) -> None:
    """Only a whole page parses as a page."""
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
def test_other_forms_of_the_same_xml(change: tuple[bytes, bytes]) -> None:
    """Another form of the same XML goes to the parser and gives the same result."""
    body = page(entry("a"), marker="m")
    assert change[0] in body
    assert parse_page(body.replace(*change, 1)) == parse_page(body)


@pytest.mark.parametrize(
    ("change", "blobs"),
    [
        ((b"</Properties>", b"<Etag>last</Etag><Content-MD5 /></Properties>"), [("last", None)]),
        ((b"</Properties>", b"<ResourceType>directory</ResourceType></Properties>"), []),
        ((b"<Etag>0x8D</Etag>", b""), [("", MD5)]),
        ((b"</Properties>", b"<Name>other</Name></Properties>"), [("0x8D", MD5)]),
        ((b"</Properties>", b"</Properties><Name>other</Name>"), [("0x8D", MD5)]),
    ],
)
def test_unusual_properties(change: tuple[bytes, bytes], blobs: list[tuple[str, bytes | None]]) -> None:
    """A property that comes twice, is missing, or is of another storage gives the result of the parser."""
    body = page(entry("a")).replace(*change, 1)
    assert parse_page(body) == _parse_any_form(body)
    assert [(blob.etag, blob.md5) for blob in parse_page(body).blobs] == blobs


TILE = hashlib.md5(b"tile").digest()
CLAIMED = base64.b64encode(TILE).decode()

LISTING = f"""\ufeff<?xml version="1.0" encoding="utf-8"?><EnumerationResults
 ServiceEndpoint="https://a.blob.core.windows.net/" ContainerName="c"><Prefix></Prefix><Marker>2!4!aaa</Marker>
<MaxResults>5000</MaxResults><Blobs><Blob><Name>tileset.json</Name><VersionId>1</VersionId><Properties>
<Creation-Time>Sun, 01 Mar 2026 08:30:00 GMT</Creation-Time><Last-Modified>Sun, 01 Mar 2026 08:30:00 GMT</Last-Modified>
<Etag>0x8DA1</Etag><Content-Length>10</Content-Length><Content-Type>application/json</Content-Type>
<Content-Encoding>gzip</Content-Encoding><Content-MD5>{CLAIMED}</Content-MD5><BlobType>BlockBlob</BlobType>
<ServerEncrypted>true</ServerEncrypted></Properties><OrMetadata /></Blob>
<Blob><Name>data/tile &amp; &#252;ml&#xE4;ut+50%25.glb</Name><Properties>
<Last-Modified>Sun, 01 Mar 2026 08:30:01 GMT</Last-Modified><Etag>"0x8DA2"</Etag><Content-Length>7</Content-Length>
<Content-Type /><Content-Encoding /><Content-MD5 /></Properties></Blob>
<Blob><Name>data</Name><Properties><Etag>0x8DA3</Etag><ResourceType>directory</ResourceType>
<Content-Length>0</Content-Length></Properties></Blob><BlobPrefix><Name>data/</Name></BlobPrefix>
</Blobs><NextMarker>2!100!bmV4dA--</NextMarker></EnumerationResults>""".encode()

INVENTORY = Page.of(
    (
        Blob("tileset.json", 10, "0x8DA1", TILE, "application/json", "gzip", 1772353800),
        Blob("data/tile & ümläut+50%25.glb", 7, "0x8DA2", None, None, None, 1772353801),
    ),
    "2!100!bmV4dA--",
    1,
)


def listed(entries: str, marker: str = "<NextMarker />") -> Page:
    return parse_page(f"<EnumerationResults><Blobs>{entries}</Blobs>{marker}</EnumerationResults>".encode())


def bare(name: str = "<Name>a</Name>", properties: str = "<Content-Length>1</Content-Length>") -> str:
    return f"<Blob>{name}<Properties>{properties}</Properties></Blob>"


def test_a_realistic_page() -> None:
    """A page as Azure sends it gives names, sizes, ETags, types and dates, without the folder placeholder."""
    assert parse_page(LISTING) == INVENTORY


def test_a_torn_page_is_an_error_at_every_byte() -> None:
    """No prefix of a page parses as a shorter inventory."""
    for end in range(len(LISTING)):
        with pytest.raises(Transient):
            parse_page(LISTING[:end])


@given(st.integers(0, len(LISTING) - 1), st.integers(1, 200))
def test_a_page_with_a_hole_is_never_short(at: int, size: int) -> None:
    """A page that lost bytes in its middle is refused, or still names every blob that has an element."""
    torn = LISTING[:at] + LISTING[at + size :]
    try:
        page = parse_page(torn)
    except Transient:
        return
    assert len(page.blobs) + page.skipped == torn.count(b"</Blob>")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"not xml",
        b"<html><body>Sign in</body></html>",
        b"<Error><Code>ServerBusy</Code></Error>",
        b"<EnumerationResults></EnumerationResults>",
        b"<Other><Blobs /></Other>",
        LISTING + b"<more/>",
        LISTING.replace(b"</Blobs>", b"</Blob>"),
        LISTING.replace(b"tileset.json", b"tile\xffset.json"),
        b'<?xml version="1.0" encoding="no-such-encoding"?><EnumerationResults><Blobs /></EnumerationResults>',
        b"<EnumerationResults><Blobs><Blob><Name>a&nbsp;b</Name></Blob></Blobs></EnumerationResults>",
    ],
)
def test_malformed_pages(body: bytes) -> None:
    """A malformed listing is a transient error."""
    with pytest.raises(Transient):
        parse_page(body)


@pytest.mark.parametrize(
    "properties",
    ["", "<Content-Length />", "<Content-Length>-1</Content-Length>", "<Content-Length>many</Content-Length>",
     "<Content-Length>1.5</Content-Length>", f"<Content-Length>{'9' * 5000}</Content-Length>"],
)  # fmt: skip
def test_a_blob_without_a_length_tears_the_page(properties: str) -> None:
    """A missing, negative or invalid length makes the whole page an error."""
    with pytest.raises(Transient):
        listed(bare(properties=properties))


@pytest.mark.parametrize("name", ["", "<Name />", "<Name></Name>", '<Name Encoded="true">%FF</Name>'])
def test_a_blob_without_a_readable_name_tears_the_page(name: str) -> None:
    """A missing, empty or non-UTF-8 name makes the whole page an error."""
    with pytest.raises(Transient):
        listed(bare(name=name))


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("<Name>a%20b+c</Name>", "a%20b+c"),
        ('<Name Encoded="false">a%20b</Name>', "a%20b"),
        ('<Name Encoded="true">a%20b+c%2Fd%EF%BF%BE</Name>', "a b+c/d\ufffe"),
        ('<Name Encoded="True">100%25</Name>', "100%"),
        ("<Name> a b </Name>", " a b "),
        ("<Name>&lt;a&gt; &amp; &quot;b&quot; &apos;c&apos;&#x20;</Name>", "<a> & \"b\" 'c' "),
        ("<Name><![CDATA[a&b]]></Name>", "a&b"),
        ("<Name>\U0001f3d9/\u00fc</Name>", "\U0001f3d9/\u00fc"),
    ],
)
def test_names(name: str, read: str) -> None:
    """A name is kept exactly; it is percent-decoded only where the listing marks it as encoded."""
    assert [blob.name for blob in listed(bare(name=name)).blobs] == [read]


def test_encoding_concerns_one_name() -> None:
    """The `Encoded` mark of one name does not affect the next."""
    page = listed(bare('<Name Encoded="true">%41</Name>') + bare("<Name>%41</Name>"))
    assert [blob.name for blob in page.blobs] == ["A", "%41"]


@pytest.mark.parametrize("text", ["", "not base64!", "AAAA", base64.b64encode(b"x" * 15).decode()])
def test_an_unreadable_md5_is_none(text: str) -> None:
    """A Content-MD5 that is not the base64 of 16 bytes counts as none."""
    assert listed(bare(properties=f"<Content-Length>1</Content-Length><Content-MD5>{text}</Content-MD5>")) == Page.of(
        (Blob("a", 1),), None
    )


@pytest.mark.parametrize(("text", "etag"), [("0x8D", "0x8D"), ('"0x8D"', "0x8D"), ('W/"0x8D"', ""), ("", "")])
def test_etags_of_a_listing(text: str, etag: str) -> None:
    """A strong ETag loses its quotes; a weak one is dropped, because no condition can use it."""
    page = listed(bare(properties=f"<Content-Length>1</Content-Length><Etag>{text}</Etag>"))
    assert [blob.etag for blob in page.blobs] == [etag]


def test_unknown_elements_are_ignored() -> None:
    """Unknown elements change nothing, wherever they are and whatever their names."""
    page = listed(
        "<Blob><Metadata><Name>no</Name><Content-Length>9</Content-Length></Metadata><Name>yes</Name><New><Blob/></New>"
        "<Properties><Content-Length>1</Content-Length><Deep><Etag>no</Etag></Deep></Properties>"
        "<Tags><TagSet><Tag><Key>Etag</Key></Tag></TagSet></Tags></Blob><BlobPrefix><Name>p/</Name></BlobPrefix>"
    )
    assert page == Page.of((Blob("yes", 1),), None)


def test_fields_do_not_leak_into_the_next_blob() -> None:
    """Properties of one blob do not leak into the next."""
    first = "<Content-Length>1</Content-Length><Etag>e</Etag><Content-Type>t</Content-Type>"
    assert listed(bare(properties=first) + bare("<Name>b</Name>")).blobs.etags == ["e", ""]


def test_folder_placeholders() -> None:
    """Directories and empty blobs with a trailing slash are counted, not listed; other empty blobs are listed."""
    page = listed(
        bare(properties="<Content-Length>0</Content-Length><ResourceType>directory</ResourceType>")
        + bare("<Name>b/</Name>", "<Content-Length>0</Content-Length>")
        + bare("<Name>c</Name>", "<Content-Length>0</Content-Length>")
        + bare("<Name>d</Name>", "<Content-Length>1</Content-Length><ResourceType>file</ResourceType>")
    )
    assert page == Page.of((Blob("c", 0), Blob("d", 1)), None, 2)


def test_an_empty_container() -> None:
    """A well-formed page without blobs is a page."""
    assert listed("") == Page.of((), None)


@pytest.mark.parametrize(
    ("marker", "read"),
    [
        ("<NextMarker />", None),
        ("<NextMarker></NextMarker>", None),
        ("", None),
        ("<NextMarker>a&amp;b=</NextMarker>", "a&b="),
    ],
)
def test_markers(marker: str, read: str | None) -> None:
    """An empty marker ends the listing; any other is kept exactly."""
    assert listed(bare(), marker).marker == read


@pytest.mark.parametrize(
    "doctype",
    [
        b"<!DOCTYPE EnumerationResults>",
        b'<!DOCTYPE r SYSTEM "file:///etc/passwd">',
        b'<!DOCTYPE r [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;">]>',
    ],
)
def test_document_types_are_refused(doctype: bytes) -> None:
    """A page with a document type, and so every entity bomb, is refused before expansion."""
    with pytest.raises(Transient, match="document type"):
        parse_page(doctype + b"<EnumerationResults><Blobs>&c;</Blobs></EnumerationResults>")


def test_a_page_of_endless_tags_is_refused() -> None:
    """A page with far more elements than 5,000 blobs have is refused before it fills the memory."""
    with pytest.raises(Transient, match="tags"):
        listed("<a/>" * (MAX_PAGE_TAGS + 1))
