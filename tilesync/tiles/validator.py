"""What the stored bytes of one blob prove and what they name, computed chunk by chunk as they pass.

The result does not depend on how the bytes are cut into chunks.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from tilesync.core.gzip import PACKED, Unpacker
from tilesync.errors import BlobDamaged, RangeRefused
from tilesync.model import ROOT, UNKNOWN, Blob, Kind, Proof, Reading
from tilesync.model.tiles import DAMAGED, HOLLOW, UNPACKED
from tilesync.tiles.binary_formats import KINDS, Shape
from tilesync.tiles.json_documents import Document
from tilesync.tiles.references import References

_MAGIC = 4

_IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"\xabKTX", b"GIF8")
_OTHERS = {b"PK\x03\x04": Kind.ARCHIVE, b"voxl": Kind.VOXELS}
_BEFORE_JSON = b"\xef\xbb\xbf \t\r\n"
_LEAD = 1 << 12
"""Bytes in which something must stand that is not blank, for a file to be told by it."""

_ANY_JSON = {Kind.JSON, Kind.GEOJSON}
"""What any JSON may be taken for: lines of a log have a `type` too."""

_LEADING = rb"(?><!--.*?-->|<\?xml[^>]*>|\s)*+"
_PAGE = re.compile(_LEADING + rb"<(?:!doctype html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_ERROR = re.compile(_LEADING + rb"<Error\b|\{\s{0,8}\"error\"\s{0,8}:\s{0,8}\{", re.DOTALL)
"""How an error of the storage begins, in XML ("Status and error codes"), and one of the API, in JSON."""

_ERROR_BYTES = 40
"""Bytes that tell an error in JSON from other objects."""

_WIDE = re.compile(rb"\xff\xfe\{\0|\xfe\xff\0\{|\{\0[\"\s]\0|\0\{\0[\"\s]")
"""How an object of JSON begins in UTF-16: by chance only one file of numbers in a milliard begins so."""

_PAGE_NAMES = (".html", ".htm", ".xhtml")

_TILES = frozenset(
    {Kind.GLB, Kind.GLTF, Kind.B3DM, Kind.I3DM, Kind.PNTS, Kind.CMPT, Kind.VECTOR, Kind.VOXELS, Kind.TILESET}
)
"""What viewers show as a content, whatever its name: they go by its magic, or by the keys of its JSON."""

_JSON = _ANY_JSON | {Kind.TILESET, Kind.SUBTREE, Kind.GLTF, Kind.SCHEMA, Kind.VOXELS}


@dataclass(frozen=True, slots=True)
class _Promise:
    """What the ending of a name says that a file holds; `usual`: kinds that nobody wonders at."""

    what: str
    kinds: frozenset[Kind]
    usual: frozenset[Kind]


def _promises() -> Iterator[tuple[str, _Promise]]:
    yield ".glb", _Promise("glTF", _TILES, frozenset({Kind.GLB}))
    for kind in (Kind.B3DM, Kind.I3DM, Kind.PNTS, Kind.CMPT):
        yield f".{kind}", _Promise("tile", _TILES, frozenset({kind}))
    for ending in (".vctr", ".geom"):
        yield ending, _Promise("tile", _TILES, frozenset({Kind.VECTOR}))
    yield ".subtree", _Promise("subtree", frozenset({Kind.SUBTREE}), frozenset({Kind.SUBTREE}))
    for ending in (".json", ".gltf", ".geojson"):
        yield ending, _Promise("JSON object", _TILES | _JSON, frozenset(_JSON))
    for ending in (".png", ".jpg", ".jpeg", ".webp", ".ktx", ".ktx2", ".gif"):
        yield ending, _Promise("image", frozenset({Kind.IMAGE}), frozenset({Kind.IMAGE}))


_PROMISES = dict(_promises())
"""By the ending of a name, in lower case."""

_MUST_SAY = frozenset({".json", ".gltf", ".geojson"})
"""Endings of which a file without any bytes breaks the promise: viewers read it as JSON, and fail."""


class Packed:
    """A payload within gzip. Where both are damaged the gzip is told: it comes to light sooner or later than the other,
    depending on the chunks.
    """

    def __init__(self, inner: Payload) -> None:
        self._inner = inner
        self._unpacker = Unpacker()
        self._broken: BlobDamaged | None = None

    def feed(self, data: bytes) -> None:
        """Take in the next bytes."""
        for piece in self._unpacker.feed(data):
            if self._broken is None:
                try:
                    self._inner.feed(piece)
                except BlobDamaged as error:
                    self._broken = error

    def finish(self) -> None:
        """No more comes."""
        self._unpacker.finish()
        if self._broken is not None:
            raise self._broken
        self._inner.finish()
        if self.kind in {Kind.NONE, Kind.EMPTY}:
            self._inner.remark(UNPACKED, str(self._unpacker.size))

    @property
    def kind(self) -> Kind:
        """What the payload is."""
        return self._inner.kind


class Payload:
    """What a file is, told by its first bytes, never by its name; its structure, and what it names.

    `feed` and `finish` raise BlobDamaged for a broken structure, for a page of HTML under another name, and for a file
    that holds nothing of what the ending of its name promises (a `.glb` no tile, a `.json` no JSON, a `.png` no image).
    Broken JSON whose beginning does not say that it is of 3D Tiles, and whose name promises nothing, is nothing known.
    """

    def __init__(self, name: str, references: References, *, packed: bool = False) -> None:
        self._name = name.lower()
        self._is_root = name == ROOT
        self._references = references
        self._packed = packed
        self._start: bytes | None = b""
        self._follower: Shape | Document | Packed | None = None
        self.kind = Kind.EMPTY

    @property
    def implicit(self) -> bool:
        """Whether it is a tileset with implicit tiling."""
        inner = self._follower._inner if isinstance(self._follower, Packed) else self
        return isinstance(inner._follower, Document) and bool(inner._follower.implicit)

    @property
    def follows(self) -> bool:
        """Whether what comes next may say more: of its first bytes nobody knows that, too."""
        return self._start is not None or self._follower is not None

    def remark(self, problem: str, detail: str) -> None:
        """Take in what is to be said of the file."""
        self._references.remark(problem, detail)

    def feed(self, data: bytes) -> None:
        """Take in the next bytes."""
        if self._start is not None:
            data = self._start = self._start + data
            if data[:_MAGIC] not in KINDS and _is_too_short(data):
                return
            self._recognise(data)
        self._follow(data)

    def _recognise(self, start: bytes) -> None:
        self._start = None
        magic = start[:_MAGIC]
        if start.startswith(PACKED) and not self._packed:
            self._follower = Packed(Payload(self._name, self._references, packed=True))
            return
        self.kind = KINDS.get(magic) or _OTHERS.get(magic) or (Kind.IMAGE if magic.startswith(_IMAGES) else Kind.NONE)
        if self.kind is Kind.ARCHIVE:
            self._references.remark("unfollowed", "it is an archive, taken as one file: what lies in it is not walked")
        if magic in KINDS:
            self._follower = Shape(magic, self._references)
            self._keep_promise()
            return
        visible = start[:_LEAD].lstrip(_BEFORE_JSON)
        if _ERROR.match(visible):
            raise BlobDamaged("it is an error message of a server")
        if _WIDE.match(start):
            raise BlobDamaged("it is JSON in UTF-16, which viewers do not read")
        if visible[:1] in {b"{", b""}:
            self._follower = Document(self._references)
            return
        if _PAGE.match(visible) and not self._name.endswith(_PAGE_NAMES):
            raise BlobDamaged("it is a page of HTML")
        self._keep_promise(is_list=visible.startswith(b"["))

    def _keep_promise(self, *, is_list: bool = False) -> None:
        """Compare what the file is with what its name says. A list is JSON that only who asks for it cannot use."""
        ending = self._name[self._name.rfind(".") :]
        promise = _PROMISES.get(ending)
        if promise is None or self.kind in promise.usual:
            return
        if self.kind in promise.kinds:
            sentence = f"it is named {ending} and holds {self.kind}: viewers go by what it holds"
            self._references.remark("other format", sentence)
        elif is_list and ending in _MUST_SAY and not self._is_root:
            self._references.remark("unreadable", f"it is named {ending} and holds no {promise.what}")
        else:
            raise BlobDamaged(f"it is named {ending} but holds no {promise.what}")

    def _follow(self, data: bytes) -> None:
        if self._follower is None:
            return
        try:
            self._follower.feed(data)
        except BlobDamaged as error:
            self._judge(error)

    def finish(self) -> None:
        """No more comes."""
        if self._start:
            start = self._start
            self._recognise(start)
            self._follow(start)
        elif self._start is not None:
            self._judge_empty()
        if self._follower is None:
            self._judge_root()
            return
        try:
            self._follower.finish()
            if isinstance(self._follower, Document) and self._follower.padded:
                raise BlobDamaged("NULs stand behind its JSON, which JSON readers refuse")
        except BlobDamaged as error:
            self._judge(error)
            return
        self.kind = self._follower.kind
        if isinstance(self._follower, Document):
            self._keep_promise()
        self._take_remarks(self._follower)
        self._judge_root()

    def _judge_root(self) -> None:
        """Every viewer begins with the root, and reads it as a tileset, whatever it holds."""
        if self._is_root and self.kind is not Kind.TILESET:
            raise BlobDamaged("it is no tileset (it has no root tile)")

    def tell_lengths(self) -> None:
        """Let the references know how long the buffers must be that have been named so far."""
        if isinstance(self._follower, Shape | Document):
            for uri, length in self._follower.lengths:
                self._references.needs(uri, length)

    def _judge_empty(self) -> None:
        ending = self._name[self._name.rfind(".") :]
        if ending in _MUST_SAY:
            raise BlobDamaged(f"it is named {ending} but is empty")
        if ending == ".glb":
            self._references.remark(HOLLOW, "it is empty")

    def _take_remarks(self, follower: Shape | Document | Packed) -> None:
        self.tell_lengths()
        if isinstance(follower, Shape):
            for remark in follower.remarks:
                self._references.remark(remark.problem, remark.detail)
        elif isinstance(follower, Document):
            for why in follower.unreadable:
                self._references.remark("unreadable", why)
            if follower.content_uris and follower.kind is Kind.TILESET and not follower.implicit:
                sentence = "its schema knows a CONTENT_URI, which is followed in subtrees, not in the metadata of tiles"
                self._references.remark("unfollowed", sentence)

    def _judge(self, error: BlobDamaged) -> None:
        """Raise, or take the file for one that is not known."""
        known = not isinstance(self._follower, Document) or self._follower.kind not in _ANY_JSON
        self._follower = None
        self.kind = Kind.NONE
        if known or self._name[self._name.rfind(".") :] in _PROMISES:
            raise error


def _is_too_short(data: bytes) -> bool:
    """Whether the first bytes of a file do not tell yet what it is."""
    if len(data) < _MAGIC:
        return True
    if len(data) >= _LEAD:
        return False
    visible = data.lstrip(_BEFORE_JSON)
    return visible[:1] in {b"", b"<"} or (visible.startswith(b"{") and len(visible) < _ERROR_BYTES)


class ContentCheck:
    """Length, MD5 and SHA-256 where they are claimed, structure and references of the bytes of one blob.

    A broken structure is an error while nothing proves that the container holds the blob so: it may have broken on the
    way. Where a digest proves it, it is a remark, DAMAGED: whether that matters depends on who asks for the file.

    `home` is the bare URL of its container, empty where that is not known: absolute URLs are told apart by it. `md5`:
    the proof tells it, claimed or not. Where both digests are claimed the SHA-256 proves the bytes, and so the MD5.
    """

    def __init__(self, blob: Blob, home: str = "", *, md5: bool = False) -> None:
        self._blob = blob
        self._home = home
        self._wants_md5 = blob.sha256 is None if blob.md5 is not None else md5
        self.restart()

    def restart(self) -> None:
        """Forget all bytes."""
        self.size = 0
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False) if self._wants_md5 else None
        self._references = References(self._blob.name, self._home)
        self._payload = Payload(self._blob.name, self._references)
        self._broken: str | None = None
        self._is_finished = False
        self._stated = set[bytes]()

    def claim(self, md5: bytes | None) -> None:
        """Check against the MD5 that an answer states too. Raises RangeRefused where bytes passed without an MD5."""
        if md5 is None or md5 == self._blob.md5 or self._blob.sha256 is not None:
            return
        if self._md5 is None:
            self._wants_md5 = True
            if self.size:
                raise RangeRefused("the storage states an MD5 that it did not state before")
            self._md5 = hashlib.md5(usedforsecurity=False)
        self._stated.add(md5)

    def feed(self, chunk: bytes) -> None:
        """Take in the next bytes, in order."""
        self.size += len(chunk)
        self._sha256.update(chunk)
        if self._md5 is not None:
            self._md5.update(chunk)
        if self._broken is None:
            try:
                self._payload.feed(chunk)
            except BlobDamaged as error:
                self._broken = str(error)

    def finish(self, *, seen: Collection[bytes] = ()) -> Proof:
        """The proof of the whole content. `seen`: the SHA-256 of bytes that the container gave before, or that lie as
        they were left: they are what it holds. Raises BlobDamaged with every problem found.
        """
        self._is_finished = True
        problems = list(self._mismatches())
        broken = self._damage()
        claimed = self._blob.md5 is not None or self._blob.sha256 is not None or bool(self._stated)
        if broken and not problems and (claimed or self.sha256 in seen):
            self._references.remark(DAMAGED, broken)
        elif broken:
            problems.append(broken)
        if problems:
            raise BlobDamaged(f"{self._blob.name}: {'; '.join(problems)}")
        return Proof(self.size, self.sha256, self._md5.digest() if self._md5 is not None else self._blob.md5)

    def _mismatches(self) -> Iterator[str]:
        if self.size != self._blob.size != UNKNOWN:
            yield f"{self.size} bytes came, the listing says {self._blob.size}"
        if self._md5 is not None and self._blob.md5 is not None and self._md5.digest() != self._blob.md5:
            yield "its MD5 is not the one that the container states"
        if self._md5 is not None and self._stated - {self._md5.digest()}:
            yield "its MD5 is not the one that the answer states"
        if self._blob.sha256 is not None and self._sha256.digest() != self._blob.sha256:
            yield "its SHA-256 is not the one that the manifest states"

    def _damage(self) -> str | None:
        """What is wrong with the structure of the whole."""
        if self._broken is None:
            try:
                self._payload.finish()
            except BlobDamaged as error:
                self._broken = str(error)
        return self._broken

    @property
    def sha256(self) -> bytes:
        """SHA-256 of the bytes so far."""
        return self._sha256.digest()

    @property
    def named(self) -> int:
        """How many references and remarks wait to be taken."""
        return len(self._references)

    def take(self) -> Reading:
        """What the bytes said since the last time: their kind is final, and the references whole, after `finish`."""
        references, remarks = self._references.take(last=self._is_finished)
        if self._broken is not None:  # whatever it said before it broke
            return Reading(self._payload.kind, (), remarks)
        return Reading(self._payload.kind, references, remarks, implicit=self._payload.implicit)
