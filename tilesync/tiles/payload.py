"""Payload of one blob: detect its kind, and parse what that kind holds, chunk by chunk."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tilesync.errors import BlobDamaged
from tilesync.model import ROOT, Chunk, Kind
from tilesync.model.tiles import EMPTY_TILE, UNPACKED_BYTES
from tilesync.runtime.gzip import GZIP_DEFLATE_MAGIC, Unpacker
from tilesync.tiles.binary_formats import KIND_BY_MAGIC, BinaryFormatParser
from tilesync.tiles.json_documents import Document
from tilesync.tiles.references import ReferenceCollector

_MAGIC_BYTES = 4

_IMAGE_MAGICS = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"\xabKTX", b"GIF8")
_OTHER_KIND_BY_MAGIC = {b"PK\x03\x04": Kind.ARCHIVE, b"voxl": Kind.VOXELS}
_JSON_PREFIX = b"\xef\xbb\xbf \t\r\n"
_PROBE_BYTES = 1 << 12
"""The kind of a file is detected only if its first non-blank byte is within this number of bytes."""

_GENERIC_JSON_KINDS = {Kind.JSON, Kind.GEOJSON}
"""Kinds that unrelated JSON may look like: for example, a line of a log may have a `type` as GeoJSON has."""

_MARKUP_PREFIX = rb"(?><!--.*?-->|<\?xml[^>]*>|\s)*+"
_HTML_PAGE = re.compile(_MARKUP_PREFIX + rb"<(?:!doctype html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_ERROR_RESPONSE = re.compile(_MARKUP_PREFIX + rb"<Error\b|\{\s{0,8}\"error\"\s{0,8}:\s{0,8}\{", re.DOTALL)
"""Start of an error response: of the storage in XML ("Status and error codes"), of the API in JSON."""

_ERROR_PROBE_BYTES = 40
"""Number of bytes that suffice to tell an error response in JSON from any other object."""

_UTF16_JSON = re.compile(rb"\xff\xfe\{\0|\xfe\xff\0\{|\{\0[\"\s]\0|\0\{\0[\"\s]")
"""Start of a JSON object in UTF-16. About one file of random bytes in a billion begins like this."""

_HTML_SUFFIXES = (".html", ".htm", ".xhtml")

_TILE_KINDS = frozenset(
    {Kind.GLB, Kind.GLTF, Kind.B3DM, Kind.I3DM, Kind.PNTS, Kind.CMPT, Kind.VECTOR, Kind.VOXELS, Kind.TILESET}
)
"""Kinds that viewers show as a tile's content, whatever its name: they look at its magic or its JSON keys."""

_JSON_KINDS = _GENERIC_JSON_KINDS | {Kind.TILESET, Kind.SUBTREE, Kind.GLTF, Kind.SCHEMA, Kind.VOXELS}


@dataclass(frozen=True, slots=True)
class _ExpectedContent:
    """Content that the suffix of a file name promises. Of `allowed_kinds`, only `usual_kinds` need no diagnostic."""

    description: str
    allowed_kinds: frozenset[Kind]
    usual_kinds: frozenset[Kind]


def _list_expected_content() -> Iterator[tuple[str, _ExpectedContent]]:
    yield ".glb", _ExpectedContent("glTF", _TILE_KINDS, frozenset({Kind.GLB}))
    for kind in (Kind.B3DM, Kind.I3DM, Kind.PNTS, Kind.CMPT):
        yield f".{kind}", _ExpectedContent("tile", _TILE_KINDS, frozenset({kind}))
    for suffix in (".vctr", ".geom"):
        yield suffix, _ExpectedContent("tile", _TILE_KINDS, frozenset({Kind.VECTOR}))
    yield ".subtree", _ExpectedContent("subtree", frozenset({Kind.SUBTREE}), frozenset({Kind.SUBTREE}))
    for suffix in (".json", ".gltf", ".geojson"):
        yield suffix, _ExpectedContent("JSON object", _TILE_KINDS | _JSON_KINDS, frozenset(_JSON_KINDS))
    for suffix in (".png", ".jpg", ".jpeg", ".webp", ".ktx", ".ktx2", ".gif"):
        yield suffix, _ExpectedContent("image", frozenset({Kind.IMAGE}), frozenset({Kind.IMAGE}))


_EXPECTED_CONTENT_BY_SUFFIX = dict(_list_expected_content())
"""Keys are suffixes in lower case."""

_JSON_SUFFIXES = frozenset({".json", ".gltf", ".geojson"})
"""Suffixes for which an empty file is damaged: viewers read it as JSON, and fail."""


class GzipPayload:
    """A payload inside gzip.

    If both are damaged, the error of the gzip is reported. Which error is found first depends on the chunks.
    """

    def __init__(self, inner: Payload) -> None:
        self._inner = inner
        self._unpacker = Unpacker()
        self._inner_error: BlobDamaged | None = None

    def feed(self, data: bytes) -> None:
        """Decompress and parse the next bytes."""
        for piece in self._unpacker.feed(data):
            if self._inner_error is None:
                try:
                    self._inner.feed(piece)
                except BlobDamaged as error:
                    self._inner_error = error

    def finish(self) -> None:
        """Check that gzip and payload are complete."""
        self._unpacker.finish()
        if self._inner_error is not None:
            raise self._inner_error
        self._inner.finish()
        if self.kind in {Kind.NONE, Kind.EMPTY}:
            self._inner.add_diagnostic(UNPACKED_BYTES, str(self._unpacker.unpacked_bytes))

    @property
    def kind(self) -> Kind:
        """Kind of the payload."""
        return self._inner.kind


class Payload:
    """Parser of one file: detects its kind, checks its structure, and collects its references.

    The kind is detected by the first bytes, never by the name. `feed` and `finish` raise BlobDamaged for a broken
    structure, for an HTML page under another name, and for a file without the content that its suffix promises (a
    `.glb` without a tile, a `.json` without JSON, a `.png` without an image). Broken JSON has the kind NONE if neither
    its beginning nor its name shows that it is 3D Tiles.
    """

    def __init__(self, name: str, references: ReferenceCollector, *, inside_gzip: bool = False) -> None:
        self._name = name.lower()
        self._is_root = name == ROOT
        self._references = references
        self._inside_gzip = inside_gzip
        self._start: bytes | None = b""
        self._parser: BinaryFormatParser | Document | GzipPayload | None = None
        self.kind = Kind.EMPTY

    @property
    def has_implicit_tiling(self) -> bool:
        """True if it is a tileset with implicit tiling."""
        inner = self._parser._inner if isinstance(self._parser, GzipPayload) else self
        return isinstance(inner._parser, Document) and bool(inner._parser.implicit_tilings)

    @property
    def expects_more(self) -> bool:
        """True if more bytes may change the result: the kind is not detected yet, or the kind has a parser."""
        return self._start is not None or self._parser is not None

    def add_diagnostic(self, problem: str, detail: str) -> None:
        """Add a diagnostic of the file."""
        self._references.add_diagnostic(problem, detail)

    def feed(self, data: Chunk) -> None:
        """Parse the next bytes."""
        if self._start is not None:
            data = self._start = self._start + data
            if data[:_MAGIC_BYTES] not in KIND_BY_MAGIC and _is_too_short(data):
                return
            self._detect_kind(data)
        self._feed_parser(data)

    def _detect_kind(self, start: bytes) -> None:
        self._start = None
        magic = start[:_MAGIC_BYTES]
        if start.startswith(GZIP_DEFLATE_MAGIC) and not self._inside_gzip:
            self._parser = GzipPayload(Payload(self._name, self._references, inside_gzip=True))
            return
        self.kind = (
            KIND_BY_MAGIC.get(magic)
            or _OTHER_KIND_BY_MAGIC.get(magic)
            or (Kind.IMAGE if magic.startswith(_IMAGE_MAGICS) else Kind.NONE)
        )
        if self.kind is Kind.ARCHIVE:
            self._references.add_diagnostic(
                "unfollowed", "it is an archive, mirrored as one file: files in it are not followed"
            )
        if magic in KIND_BY_MAGIC:
            self._parser = BinaryFormatParser(magic, self._references)
            self._check_expected_content()
            return
        text_start = start[:_PROBE_BYTES].lstrip(_JSON_PREFIX)
        if _ERROR_RESPONSE.match(text_start):
            raise BlobDamaged("it is an error message of a server")
        if _UTF16_JSON.match(start):
            raise BlobDamaged("it is JSON in UTF-16, which viewers do not read")
        if text_start[:1] in {b"{", b""}:
            self._parser = Document(self._references)
            return
        if _HTML_PAGE.match(text_start) and not self._name.endswith(_HTML_SUFFIXES):
            raise BlobDamaged("it is a page of HTML")
        self._check_expected_content(is_list=text_start.startswith(b"["))

    def _check_expected_content(self, *, is_list: bool = False) -> None:
        """Compare the kind of the file with its suffix.

        A JSON list is valid, so it is not damaged; the file that references it just cannot use it.
        """
        suffix = self._name[self._name.rfind(".") :]
        expected = _EXPECTED_CONTENT_BY_SUFFIX.get(suffix)
        if expected is None or self.kind in expected.usual_kinds:
            return
        if self.kind in expected.allowed_kinds:
            sentence = f"it is named {suffix} but is {self.kind}: viewers go by the content"
            self._references.add_diagnostic("other format", sentence)
        elif is_list and suffix in _JSON_SUFFIXES and not self._is_root:
            self._references.add_diagnostic("unreadable", f"it is named {suffix} and holds no {expected.description}")
        else:
            raise BlobDamaged(f"it is named {suffix} but holds no {expected.description}")

    def _feed_parser(self, data: Chunk) -> None:
        if self._parser is None:
            return
        try:
            if isinstance(self._parser, BinaryFormatParser):
                self._parser.feed(data)
            else:
                self._parser.feed(bytes(data))
        except BlobDamaged as error:
            self._handle_damage(error)

    def finish(self) -> None:
        """Check that the payload is complete."""
        if self._start:
            start = self._start
            self._detect_kind(start)
            self._feed_parser(start)
        elif self._start is not None:
            self._check_empty()
        if self._parser is None:
            self._check_root()
            return
        try:
            self._parser.finish()
            if isinstance(self._parser, Document) and self._parser.padded:
                raise BlobDamaged("NULs follow its JSON, and JSON readers refuse them")
        except BlobDamaged as error:
            self._handle_damage(error)
            return
        self.kind = self._parser.kind
        if isinstance(self._parser, Document):
            self._check_expected_content()
        self._collect_diagnostics(self._parser)
        self._check_root()

    def _check_root(self) -> None:
        """Raise BlobDamaged if the root is not a tileset, since every viewer reads it as one."""
        if self._is_root and self.kind is not Kind.TILESET:
            raise BlobDamaged("it is not a tileset (it has no root tile)")

    def report_buffer_lengths(self) -> None:
        """Pass the required length of each buffer found so far to the reference collector."""
        if isinstance(self._parser, BinaryFormatParser | Document):
            for uri, length in self._parser.buffer_lengths:
                self._references.require_length(uri, length)

    def _check_empty(self) -> None:
        suffix = self._name[self._name.rfind(".") :]
        if suffix in _JSON_SUFFIXES:
            raise BlobDamaged(f"it is named {suffix} but is empty")
        if suffix == ".glb":
            self._references.add_diagnostic(EMPTY_TILE, "it is empty")

    def _collect_diagnostics(self, parser: BinaryFormatParser | Document | GzipPayload) -> None:
        self.report_buffer_lengths()
        if isinstance(parser, BinaryFormatParser):
            for diagnostic in parser.diagnostics:
                self._references.add_diagnostic(diagnostic.problem, diagnostic.detail)
        elif isinstance(parser, Document):
            for reason in parser.unreadable_reasons:
                self._references.add_diagnostic("unreadable", reason)
            if parser.content_uri_properties and parser.kind is Kind.TILESET and not parser.implicit_tilings:
                sentence = "its schema has a CONTENT_URI, which tilesync follows only in subtrees, not in tile metadata"
                self._references.add_diagnostic("unfollowed", sentence)

    def _handle_damage(self, error: BlobDamaged) -> None:
        """Raise the error, or give the file the kind NONE if nothing shows that it is 3D Tiles."""
        is_known = not isinstance(self._parser, Document) or self._parser.kind not in _GENERIC_JSON_KINDS
        self._parser = None
        self.kind = Kind.NONE
        if is_known or self._name[self._name.rfind(".") :] in _EXPECTED_CONTENT_BY_SUFFIX:
            raise error


def _is_too_short(data: bytes) -> bool:
    """Return whether the first bytes of a file do not show its kind yet."""
    if len(data) < _MAGIC_BYTES:
        return True
    if len(data) >= _PROBE_BYTES:
        return False
    text_start = data.lstrip(_JSON_PREFIX)
    return text_start[:1] in {b"", b"<"} or (text_start.startswith(b"{") and len(text_start) < _ERROR_PROBE_BYTES)
