"""List Blobs pages: the only file that knows their XML. Source: "List Blobs" (REST), response body.

One of two readers turns a page into rows of texts, a row for each blob, and one function turns these into values,
column by column. The fast reader uses that nearly all blobs of a page end with the same bytes, from the element after
their MD5 on: it drops these, and matches the starts of the blobs, half of the bytes, with one pattern. It reads a page
in pieces, since the texts of a whole page take several times the memory of its bytes. A blob that differs is matched by
itself; a page in another form of XML goes to the other reader, an XML parser.
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Final, TypeVar
from urllib.parse import unquote
from xml.etree import ElementTree
from xml.sax.saxutils import unescape

from tilesync.azure.responses import (
    MAX_ETAG_CHARS,
    is_weak_etag,
    parse_etag,
    parse_http_date,
    parse_md5,
    sanitize_header_value,
)
from tilesync.core.foreign_json import MAX_INTEGER
from tilesync.errors import Transient, Unavailable
from tilesync.model import BlobColumns, Page

T = TypeVar("T")

# Fast reader: a page exactly as Azure writes it is read with regular expressions, in a fraction of the time of a
# parser. Any other form (whitespace, encodings, comments, numeric references) goes to the parser; both give the same
# result for the same bytes. Possessive repeats are atomic groups, for the reason given in json_scanner.py.
_PLAIN_TEXT: Final = r"[^<>&\x00-\x1f\x7f\ufffe\uffff]*+"
_ATTRIBUTE_VALUE: Final = r'[^"<>&\x00-\x1f\x7f\ufffe\uffff]*+'
_ESCAPED_TEXT: Final = rf"{_PLAIN_TEXT}(?>&(?:amp|lt|gt|quot|apos);{_PLAIN_TEXT})*+"
_FLAT_ELEMENTS: Final = rf"(?><((?!Name[ />])[A-Za-z][A-Za-z0-9-]*+)(?: ?/>|>{_ESCAPED_TEXT}</\{{}}>))*+"


def _element_pattern(name: str) -> str:
    return rf"<{name}(?: ?/>|>({_PLAIN_TEXT})</{name}>)"


def _ignored_pattern(name: str, text: str = _PLAIN_TEXT) -> str:
    """Match an element, which may be absent, without reading it."""
    return rf"(?:<{name}(?: ?/>|>{text}</{name}>))?"


_ECHOED_PARAMETERS: Final = "".join(
    _ignored_pattern(name, _ESCAPED_TEXT) for name in ("Prefix", "Marker", "MaxResults", "Delimiter")
)
_PAGE_HEAD: Final = re.compile(
    r'<\?xml version="1\.0" encoding="utf-8"\?><EnumerationResults'
    rf'(?: ServiceEndpoint="{_ATTRIBUTE_VALUE}")?(?: ContainerName="{_ATTRIBUTE_VALUE}")?>{_ECHOED_PARAMETERS}<Blobs>'
)
_BLOB: Final = re.compile(
    rf"<Blob><Name>({_ESCAPED_TEXT})</Name><Properties>({_FLAT_ELEMENTS.format(3)})</Properties>{_FLAT_ELEMENTS.format(4)}</Blob>"
)
_BLOB_START: Final = "<Blob><Name>"
_ORDINARY_START: Final = (
    rf"({_ESCAPED_TEXT})</Name><Properties>{_ignored_pattern('Creation-Time')}{_element_pattern('Last-Modified')}"
    rf"{_element_pattern('Etag')}{_element_pattern('Content-Length')}{_element_pattern('Content-Type')}"
    rf"{_element_pattern('Content-Encoding')}{_ignored_pattern('Content-Language')}{_ignored_pattern('Content-CRC64')}"
    rf"{_element_pattern('Content-MD5')}"
)
"""Start of nearly every blob: properties in the order in which Azure writes them, nothing escaped but the name."""

_ORDINARY_END: Final = (
    rf"(?><((?!Etag|Content-[LTEM]|Last-|Resource|Name[ />])[A-Za-z][A-Za-z0-9-]*+)(?: ?/>|>{_PLAIN_TEXT}</\9>))*+"
    rf"</Properties>{_FLAT_ELEMENTS.format(10)}</Blob>"
)
_ORDINARY_BLOB: Final = re.compile(f"{_BLOB_START}{_ORDINARY_START}({_ORDINARY_END})")
_BLOB_STOP: Final = "</Blob>"
_START_LINE: Final = rf"^(?:{_ORDINARY_START}|(.*))\n"
"""The start of a blob, or else any text, on a line of its own."""

_ANY_LINE: Final = re.compile(_START_LINE, re.MULTILINE)
_PLAIN_LINE: Final = re.compile(
    _START_LINE.replace(_ESCAPED_TEXT, "[^<]*+").replace(_PLAIN_TEXT, "[^<]*+"), re.MULTILINE
)
"""The same for lines that have nothing but tags and plain text: the search for one character takes half of the time."""

_PLAIN_BYTES: Final = bytes(set(range(0x20, 0x100)) - set(b"<>&\x7f\xef"))
"""Bytes of plain text in UTF-8; without 0xEF, since U+FFFE and U+FFFF begin with it."""

_PAGE_FOOT: Final = re.compile(rf"</Blobs><NextMarker(?: ?/>|>({_ESCAPED_TEXT})</NextMarker>)</EnumerationResults>\Z")
_PROPERTY: Final = re.compile(
    r"<(Etag|Content-(?:Length|Type|Encoding|MD5)|Last-Modified|ResourceType)(?: ?/>|>([^<]*+)<)"
)
_PLAIN_ETAGS: Final = re.compile(r"[0-9A-Za-z-]*+")
_PLAIN_MD5S: Final = re.compile(r"(?:[0-9A-Za-z+/]{21}[AQgw]==)*+")
_MD5_BYTES, _MD5_CHARS = 16, 24

BlobTexts = tuple[str, str, str, str, str, str, str, str]
"""A blob as the page states it: its name and the properties of _PROPERTIES, empty where it has none."""

_PROPERTIES: Final = (
    "Last-Modified",
    "Etag",
    "Content-Length",
    "Content-Type",
    "Content-Encoding",
    "Content-MD5",
    "ResourceType",
)

MAX_LISTING_PAGE_BYTES: Final = 48 << 20
"""Maximum decoded bytes of a listing page: 5,000 blobs with names of 1,024 characters, each of them three bytes,
percent-encoded. Source: "List Blobs" (REST); "Naming and Referencing Containers, Blobs, and Metadata".
"""

MAX_PAGE_TAGS: Final = 1 << 20
"""Maximum tags of a page: several times those of 5,000 blobs. A larger tree would take too much memory."""

_PIECE_BYTES: Final = 1 << 18
"""Bytes that the fast reader turns into values at a time; with pieces of 64 KiB or 1 MiB it is no faster."""

MAX_IDLE_PAGES: Final = 100
"""Maximum consecutive pages without a new name: a service may return empty pages, but not forever."""


class PageGuard:
    """Check that a listing comes to an end. `hint`: the hint of the error if it does not."""

    def __init__(self, marker: str | None = None, *, hint: str | None = None) -> None:
        self._markers: set[str | None] = {marker}
        self._last_names = set[str]()
        self._idle_pages = 0
        self._hint = hint

    def has_seen(self, marker: str) -> bool:
        """Return whether a page had this marker."""
        return marker in self._markers

    def check_page(self, last: str, marker: str | None = None) -> None:
        """Check one page: its last name (empty if it has none) and the marker of the next page.

        Raises Unavailable if a marker is repeated, or if too many consecutive pages have no new name.
        """
        self._idle_pages = self._idle_pages + 1 if last in self._last_names or not last else 0
        self._last_names.add(last)
        if self._idle_pages > MAX_IDLE_PAGES:
            raise Unavailable(f"{self._idle_pages} consecutive pages of the listing had nothing new", hint=self._hint)
        if marker and marker in self._markers:
            raise Unavailable("the listing does not end: a page marker came twice", hint=self._hint)
        self._markers.add(marker)


def parse_page(body: bytes) -> Page:
    """Parse one page of List Blobs. Unknown elements are ignored, folder placeholders of hierarchical accounts counted.

    Raises Transient for a truncated or malformed page, which must never pass for a shorter listing.
    """
    try:
        page = _parse_azure_form(body)
    except ValueError:
        page = None
    return page or _parse_any_form(body)


def peek_marker(body: bytes) -> str | None:
    """Return the marker of the next page, from the end of a page that is not parsed yet; None if it is not plain there.

    Good only for requesting that page early: just parsing shows whether this page is complete.
    """
    try:
        foot = _PAGE_FOOT.match(body[max(body.rfind(b"</Blobs>"), 0) :].decode())
    except ValueError:
        return None
    return None if foot is None else _unescape(foot[1] or "") or None


def _parse_azure_form(body: bytes) -> Page | None:
    """Parse a page with blobs, written exactly as Azure writes it; None for any other page. Raises ValueError."""
    first_stop, stop = body.find(_BLOB_STOP.encode()) + len(_BLOB_STOP), max(body.rfind(b"</Blobs>"), 0)
    begin = body[:first_stop].decode("utf-8-sig")
    head, foot = _PAGE_HEAD.match(begin), _PAGE_FOOT.match(body[stop:].decode())
    if head is None or foot is None or first_stop > stop:
        return None
    marker = _unescape(foot[1] or "") or None
    first, start = _ORDINARY_BLOB.fullmatch(begin, head.end()), first_stop - len(begin[head.end() :].encode())
    if first is None:
        return _build_page([_read_blobs(body[start:stop].decode())], marker)
    if b"\n" in body:
        raise ValueError("a line break")
    end = first[8].removesuffix(_BLOB_STOP).encode()
    return _build_page((_read_alike_blobs(piece, end) for piece in _cut_pieces(body, start, stop)), marker)


def _cut_pieces(body: bytes, start: int, stop: int) -> Iterator[bytes]:
    """Cut the bytes from `start` to `stop` behind tags that end a blob."""
    tag = _BLOB_STOP.encode()
    while start < stop:
        found = body.find(tag, min(start + _PIECE_BYTES, stop), stop)
        cut = stop if found < 0 else found + len(tag)
        yield body[start:cut]
        start = cut


def _read_alike_blobs(piece: bytes, end: bytes) -> list[BlobTexts]:
    """Read blobs, nearly all of which have this end before their last tag.

    Raises ValueError if any of them is malformed.
    """
    if not piece.startswith(_BLOB_START.encode()) or not piece.endswith(_BLOB_STOP.encode()):
        raise ValueError("text beside a blob")
    blobs = piece[len(_BLOB_START) : -len(_BLOB_STOP)].split(f"{_BLOB_STOP}{_BLOB_START}".encode())
    size = len(end)
    lines = b"\n".join([*(blob[:-size] if blob.endswith(end) else b"another end" for blob in blobs), b""])
    pattern = _PLAIN_LINE if _has_plain_lines(lines, len(blobs)) else _ANY_LINE
    rows: list[BlobTexts] = pattern.findall(lines.decode())  # the last text of a row: a line that is no start of a blob
    if b"&" in lines:
        rows = [(_unescape(row[0]), *row[1:]) for row in rows]
    if not any(row[-1] for row in rows):
        return rows
    pairs = zip(rows, blobs, strict=True)
    parts = ([row] if not row[-1] else _read_blobs(f"{_BLOB_START}{blob.decode()}{_BLOB_STOP}") for row, blob in pairs)
    return list(chain.from_iterable(parts))


def _has_plain_lines(lines: bytes, count: int) -> bool:
    """Return whether lines are alike, with nothing but tags and plain text: `<` and `>` in turn and no other marks."""
    marks = lines.translate(None, _PLAIN_BYTES)
    line = marks[: marks.find(b"\n") + 1]
    return line.replace(b"<>", b"") == b"\n" and marks == line * count


def _read_blobs(text: str) -> list[BlobTexts]:
    """Read blobs one by one. Raises ValueError if any of them is malformed."""
    rows, position = list[BlobTexts](), 0
    match_ordinary, match_any = _ORDINARY_BLOB.match, _BLOB.match
    while found := match_ordinary(text, position) or match_any(text, position):
        position = found.end()
        if found.re is _ORDINARY_BLOB:
            name, *texts = found.groups("")[:7]
            modified, etag, length, content_type, encoding, md5 = texts
            rows.append((_unescape(name), modified, etag, length, content_type, encoding, md5, ""))
        else:
            rows.append(_order_texts(_unescape(found[1]), _read_properties(found[2])))
    if position < len(text):
        raise ValueError("a blob in another form")
    return rows


def _unescape(text: str) -> str:
    return unescape(text, {"&quot;": '"', "&apos;": "'"}) if "&" in text else text


def _read_properties(text: str) -> dict[str, str]:
    fields: dict[str, str] = dict(_PROPERTY.findall(text))
    return {field: _unescape(value) for field, value in fields.items()} if "&" in text else fields


def _order_texts(name: str, fields: Mapping[str, str]) -> BlobTexts:
    modified, etag, length, content_type, encoding, md5, resource_type = (
        fields.get(field, "") for field in _PROPERTIES
    )
    return name, modified, etag, length, content_type, encoding, md5, resource_type


# --- from texts to values ---


def _build_page(pieces: Iterable[Sequence[BlobTexts]], marker: str | None) -> Page:
    """Build a page from the texts of its blobs. Raises ValueError for a blob without a name or a possible length."""
    blobs, skipped, undated = BlobColumns.from_blobs(()), 0, 0
    for rows in filter(None, pieces):
        more, more_skipped, more_undated = _build_columns(rows)
        blobs.extend(more)
        skipped, undated = skipped + more_skipped, undated + more_undated
    return Page(blobs, marker, skipped, undated)


def _build_columns(rows: Sequence[BlobTexts]) -> tuple[BlobColumns, int, int]:
    """Build the columns of a piece of a page; return also how many blobs are left out, and how many are undated."""
    names, modified, etags, lengths, types, encodings, md5s, resource_types = zip(*rows, strict=True)
    sizes = list(map(int, lengths))
    if not all(names) or min(sizes) < 0 or max(sizes) > MAX_INTEGER:
        raise ValueError("a blob without a name, or with an impossible length")
    times = _convert_repeated(parse_http_date, modified)
    blobs = BlobColumns(
        list(names),
        sizes,
        _parse_etags(etags),
        _parse_md5s(md5s),
        _convert_repeated(sanitize_header_value, types),
        _convert_repeated(sanitize_header_value, encodings),
        times,
        [None] * len(rows),
    )
    is_undated = [seconds is None and bool(text) for seconds, text in zip(times, modified, strict=True)]
    if 0 not in sizes and not any(resource_types):
        return blobs, 0, sum(is_undated)
    is_file = [
        resource_type != "directory" and not (size == 0 and name.endswith("/"))
        for name, size, resource_type in zip(names, sizes, resource_types, strict=True)
    ]
    undated = sum(map(int.__mul__, is_undated, is_file))
    return blobs.select(is_file), is_file.count(False), undated


def _convert_repeated(convert: Callable[[str], T], texts: Sequence[str]) -> list[T]:
    """Convert texts many of which are equal: each different one once."""
    values = {text: convert(text) for text in set(texts)}
    return [values[text] for text in texts]


def _parse_etags(texts: Sequence[str]) -> list[str]:
    if _PLAIN_ETAGS.fullmatch("".join(texts)) and max(map(len, texts)) <= MAX_ETAG_CHARS:
        return list(texts)
    return [("" if is_weak_etag(text) else parse_etag(text)) for text in texts]


def _parse_md5s(texts: Sequence[str]) -> list[bytes | None]:
    joined = "".join(texts)
    if set(map(len, texts)) != {_MD5_CHARS} or not _PLAIN_MD5S.fullmatch(joined):
        return _convert_repeated(parse_md5, texts)
    # With other characters for the padding, all of them are one text, which gives two more bytes for each.
    digests, step = a2b_base64(joined.replace("==", "AA")), _MD5_BYTES + 2
    return [digests[start : start + _MD5_BYTES] for start in range(0, len(digests), step)]


# --- any other form ---


class _TreeBuilder(ElementTree.TreeBuilder):
    def doctype(self, *_: object) -> None:
        raise ValueError("it declares a document type")  # before any entity is expanded


def _parse_any_form(body: bytes) -> Page:
    """Parse a page in any form of XML."""
    if body.count(b"<") > MAX_PAGE_TAGS:
        raise Transient(f"the listing page has more than {MAX_PAGE_TAGS:,} tags")
    parser = ElementTree.XMLParser(target=_TreeBuilder())  # noqa: S314 - it refuses document types, so all entities
    try:
        parser.feed(body)
        root: ElementTree.Element = parser.close()
        page = _build_page([[_read_element(blob) for blob in root.iterfind("Blobs/Blob")]], None)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise Transient(f"the listing page is truncated or malformed ({error})") from error
    if root.tag != "EnumerationResults" or root.find("Blobs") is None:
        raise Transient("the response is not a blob listing")
    return replace(page, marker=root.findtext("NextMarker") or None)


def _read_element(blob: ElementTree.Element) -> BlobTexts:
    fields = {each.tag: each.text or "" for part in blob if part.tag == "Properties" for each in part}
    return _order_texts(_read_name(blob), fields)


def _read_name(blob: ElementTree.Element) -> str:
    name = blob.find("Name")
    text = "" if name is None else name.text or ""
    is_encoded = name is not None and name.get("Encoded", "").lower() == "true"
    return unquote(text, errors="strict") if is_encoded else text
