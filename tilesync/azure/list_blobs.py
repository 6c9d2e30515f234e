"""The pages of List Blobs: the only file that knows their XML. Source: "List Blobs" (REST), response body."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote
from xml.parsers import expat
from xml.sax.saxutils import unescape

from tilesync.azure.responses import http_date, parse_md5, plain_etag, plain_value, weak_etag
from tilesync.core.foreign_json import COUNT
from tilesync.errors import Transient, Unavailable
from tilesync.model import Blob, Page

# A page as Azure writes it is one regular expression after the other, a third of the work of a parser. Everything that
# is not exactly so (other whitespace, encodings, comments, references by number) is left to the parser: both say the
# same of the same bytes. What repeats possessively is an atomic group, as in scan.py.
_RUN: Final = r"[^<>&\x00-\x1f\x7f\ufffe\uffff]*+"
_VALUE: Final = r'[^"<>&\x00-\x1f\x7f\ufffe\uffff]*+'
_TEXT: Final = rf"{_RUN}(?>&(?:amp|lt|gt|quot|apos);{_RUN})*+"
_FLAT: Final = rf"(?><((?!Name[ />])[A-Za-z][A-Za-z0-9-]*+)(?: ?/>|>{_TEXT}</\{{}}>))*+"


def _field(name: str) -> str:
    return rf"<{name}(?: ?/>|>({_RUN})</{name}>)"


def _asked(name: str) -> str:
    """What was asked for, told again."""
    return rf"(?:<{name}(?: ?/>|>{_TEXT}</{name}>))?"


_HEAD: Final = re.compile(
    r'<\?xml version="1\.0" encoding="utf-8"\?><EnumerationResults'
    rf'(?: ServiceEndpoint="{_VALUE}")?(?: ContainerName="{_VALUE}")?>'
    rf"{_asked('Prefix')}{_asked('Marker')}{_asked('MaxResults')}{_asked('Delimiter')}<Blobs>"
)
_BLOB: Final = re.compile(
    rf"<Blob><Name>({_TEXT})</Name><Properties>({_FLAT.format(3)})</Properties>{_FLAT.format(4)}</Blob>"
)
_ORDINARY: Final = re.compile(
    rf"<Blob><Name>({_RUN})</Name><Properties>(?:{_field('Creation-Time')})?{_field('Last-Modified')}{_field('Etag')}"
    rf"{_field('Content-Length')}{_field('Content-Type')}{_field('Content-Encoding')}(?:{_field('Content-Language')})?"
    rf"(?:{_field('Content-CRC64')})?{_field('Content-MD5')}"
    rf"(?><((?!Etag|Content-[LTEM]|Last-|Resource|Name[ />])[A-Za-z][A-Za-z0-9-]*+)(?: ?/>|>{_RUN}</\{{}}>))*+"
    rf"</Properties>{_FLAT.format(12)}</Blob>".format(11)
)
"""Nine blobs in ten: the properties in the order in which Azure writes them, with nothing escaped."""

_FOOT: Final = re.compile(rf"</Blobs><NextMarker(?: ?/>|>({_TEXT})</NextMarker>)</EnumerationResults>\Z")
_PROPERTY: Final = re.compile(
    r"<(Etag|Content-(?:Length|Type|Encoding|MD5)|Last-Modified|ResourceType)(?: ?/>|>([^<]*+)<)"
)

_FIELDS: Final = {
    "Name", "NextMarker", "Etag", "Content-Length", "Content-Type", "Content-Encoding", "Content-MD5", "Last-Modified",
    "ResourceType",
}  # fmt: skip


IDLE_PAGES: Final = 100
"""Pages in a row without a new name, at most: a service may cut pages short, but not for ever."""


class PageGuard:
    """Watches that a listing comes to its end. `hint`: what is to be said of one that does not."""

    def __init__(self, marker: str | None = None, *, hint: str | None = None) -> None:
        self._markers: set[str | None] = {marker}
        self._lasts = set[str]()
        self._idle = 0
        self._hint = hint

    def note(self, last: str, marker: str | None = None) -> None:
        """A page came: its last name, empty where it has none, and the marker of the next. Raises Unavailable where a
        marker comes twice, or page after page brings nothing new.
        """
        self._idle = self._idle + 1 if last in self._lasts or not last else 0
        self._lasts.add(last)
        if self._idle > IDLE_PAGES:
            raise Unavailable(f"{self._idle} pages of the listing in a row brought nothing new", hint=self._hint)
        if marker and marker in self._markers:
            raise Unavailable("the listing leads in a circle: a marker came twice", hint=self._hint)
        self._markers.add(marker)


def parse_page(body: bytes) -> Page:
    """One page of List Blobs; unknown elements are ignored, folder placeholders of hierarchical accounts counted.

    Raises Transient for a page that is torn or malformed: it is an error, and never a short inventory.
    """
    try:
        page = _plain(body.decode("utf-8-sig"))
    except (ValueError, KeyError):
        page = None
    return page or _parsed(body)


def _plain(text: str) -> Page | None:
    """A page that is written as Azure writes it; None for any other."""
    blobs, skipped, undated = list[Blob](), 0, 0
    head = _HEAD.match(text)
    position = head.end() if head else 0
    ordinary, other = _ORDINARY.match, _BLOB.match
    while found := ordinary(text, position) or other(text, position):
        position = found.end()
        if found.re is _ORDINARY:
            name, modified, etag, size, kind, encoding, md5 = found.group(1, 3, 4, 5, 6, 7, 10)
            blob = _blob(name, size, etag, modified, kind, encoding, md5)
        else:
            fields = _properties(found[2])
            blob, modified = _any_blob(_unescaped(found[1]), fields), fields.get("Last-Modified")
        if blob is None:
            skipped += 1
        else:
            blobs.append(blob)
            undated += blob.last_modified is None and bool(modified)
    foot = _FOOT.match(text, position)
    if head is None or foot is None:
        return None
    return Page(tuple(blobs), _unescaped(foot[1] or "") or None, skipped, undated)


def _unescaped(text: str) -> str:
    return unescape(text, {"&quot;": '"', "&apos;": "'"}) if "&" in text else text


def _properties(text: str) -> dict[str, str]:
    fields: dict[str, str] = dict(_PROPERTY.findall(text))
    return {field: _unescaped(value) for field, value in fields.items()} if "&" in text else fields


def _any_blob(name: str, fields: Mapping[str, str]) -> Blob | None:
    """The blob with these properties; None for the placeholder of a folder. Raises ValueError, KeyError."""
    ordered = ("Etag", "Last-Modified", "Content-Type", "Content-Encoding", "Content-MD5")
    blob = _blob(name, fields["Content-Length"], *map(fields.get, ordered))
    return None if fields.get("ResourceType") == "directory" else blob


def _blob(
    name: str,
    length: str | None,
    etag: str | None,
    modified: str | None,
    content_type: str | None,
    encoding: str | None,
    md5: str | None,
) -> Blob | None:
    size = int(length or "")
    if not name or not 0 <= size <= COUNT:
        raise ValueError("a blob without a name, or with a length that none can have")
    if size == 0 and name.endswith("/"):
        return None
    etag = "" if not etag or weak_etag(etag) else plain_etag(etag)
    return Blob(name, size, etag, parse_md5(md5), plain_value(content_type), plain_value(encoding), http_date(modified))


def _parsed(body: bytes) -> Page:
    parser = _Parser()
    try:
        parser.parse(body)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise Transient(f"the listing page is torn or malformed ({error})") from error
    if not parser.whole:
        raise Transient("the listing page is no blob listing")
    return Page(tuple(parser.blobs), parser.marker or None, parser.skipped, parser.undated)


class _Parser:
    """A page, however it is written."""

    def __init__(self) -> None:
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._path: list[str] = []
        self._wanted = False
        self._encoded = False
        self._words: list[str] = []
        self._fields: dict[str, str] = {}
        self.blobs: list[Blob] = []
        self.marker = ""
        self.skipped = 0
        self.undated = 0
        self.whole = False

    def parse(self, body: bytes) -> None:
        """Take in everything. Raises ExpatError, and what handlers raise."""
        self._parser.Parse(body, True)

    def _doctype(self, *_: object) -> None:
        raise ValueError("a document type is declared")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._path.append(tag)
        self._wanted = tag in _FIELDS
        if tag == "Blob" and self._path == ["EnumerationResults", "Blobs", "Blob"]:
            self._fields = {}
        elif tag == "Name":
            self._encoded = attributes.get("Encoded", "").lower() == "true"
        if self._wanted:
            self._words = []

    def _text(self, text: str) -> None:
        if self._wanted:
            self._words.append(text)

    def _end(self, tag: str) -> None:
        path, self._wanted = self._path, False
        depth = len(path)
        if tag in _FIELDS:
            text = "".join(self._words)
            if depth == 4 and tag == "Name" and path[2] == "Blob":
                self._fields[tag] = unquote(text, errors="strict") if self._encoded else text
            elif depth == 5 and path[3] == "Properties":
                self._fields[tag] = text
            elif depth == 2 and tag == "NextMarker":
                self.marker = text
        elif tag == "Blob" and depth == 3 and path[1] == "Blobs":
            blob = _any_blob(self._fields["Name"], self._fields)
            if blob is None:
                self.skipped += 1
            else:
                self.blobs.append(blob)
                self.undated += blob.last_modified is None and bool(self._fields.get("Last-Modified"))
        elif tag == "Blobs" and depth == 2 and path[0] == "EnumerationResults":
            self.whole = True
        path.pop()
