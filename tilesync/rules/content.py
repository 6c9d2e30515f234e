"""What the stored bytes of one blob prove and what they name, computed chunk by chunk as they pass.

The result does not depend on how the bytes are cut into chunks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from tilesync.errors import BlobDamaged, RangeRefused
from tilesync.model import ROOT, UNKNOWN, Blob, Kind, Proof, Reading
from tilesync.rules.packed import PACKED, Unpacker
from tilesync.rules.references import References
from tilesync.rules.shapes import KINDS, Shape
from tilesync.rules.tilesets import Document

_MAGIC = 4

_IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"\xabKTX", b"GIF8")
_OTHERS = {b"PK\x03\x04": Kind.ARCHIVE, b"voxl": Kind.VOXELS}
_BEFORE_JSON = b"\xef\xbb\xbf \t\r\n"
_LEAD = 1 << 12
"""Bytes in which something must stand that is not blank, for a file to be told by it."""

_ANY_JSON = {Kind.JSON, Kind.GEOJSON}
"""What any JSON may be taken for: lines of a log have a `type` too."""

_NAMED_JSON = (".json", ".gltf", ".geojson")


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

    @property
    def kind(self) -> Kind:
        """What the payload is."""
        return self._inner.kind


class Payload:
    """What a file is, told by its first bytes, never by its name; its structure, and what it names.

    `feed` and `finish` raise BlobDamaged for a broken structure, and for a `.glb` that holds no glTF. Broken JSON is
    damaged where its beginning says that it is of 3D Tiles, unreadable where its name says that it is meant to be JSON,
    which matters to whom asks for it, and nothing that is known otherwise.
    """

    def __init__(self, name: str, references: References, *, packed: bool = False) -> None:
        self._name = name.lower()
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

    def feed(self, data: bytes) -> None:
        """Take in the next bytes."""
        if self._start is not None:
            data = self._start = self._start + data
            if len(data) < _MAGIC or (len(data) < _LEAD and not data.lstrip(_BEFORE_JSON)):
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
        if self._name.endswith(".glb") and self.kind is not Kind.GLB:
            raise BlobDamaged("it is named .glb but holds no glTF")
        if self.kind is Kind.ARCHIVE:
            self._references.remark("unfollowed", "it is an archive, taken as one file: what lies in it is not walked")
        if magic in KINDS:
            self._follower = Shape(magic, self._references)
        elif start[:_LEAD].lstrip(_BEFORE_JSON)[:1] in {b"{", b""}:
            self._follower = Document(self._references)

    def _follow(self, data: bytes) -> None:
        if self._follower is None:
            return
        try:
            self._follower.feed(data)
        except BlobDamaged as error:
            self._judge(error)

    def finish(self) -> None:
        """No more comes."""
        if self._start is not None and (self._start or self._name.endswith(".glb")):
            start = self._start
            self._recognise(start)
            self._follow(start)
        if self._follower is None:
            return
        try:
            self._follower.finish()
        except BlobDamaged as error:
            self._judge(error)
        else:
            self.kind = self._follower.kind
            self._take_remarks(self._follower)

    def _take_remarks(self, follower: Shape | Document | Packed) -> None:
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
        if known or self._name == ROOT:
            raise error
        if self._name.endswith(_NAMED_JSON):
            self._references.remark("unreadable", str(error))
        self._follower = None


class ContentCheck:
    """Length, MD5 and SHA-256 where they are claimed, structure and references of the bytes of one blob.

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

    def finish(self) -> Proof:
        """The proof of the whole content. Raises BlobDamaged with every problem found."""
        if problems := list(self._problems()):
            raise BlobDamaged(f"{self._blob.name}: {'; '.join(problems)}")
        return Proof(self.size, self.sha256, self._md5.digest() if self._md5 is not None else self._blob.md5)

    def _problems(self) -> Iterator[str]:
        if self.size != self._blob.size != UNKNOWN:
            yield f"{self.size} bytes came, the listing says {self._blob.size}"
        if self._md5 is not None and self._blob.md5 is not None and self._md5.digest() != self._blob.md5:
            yield "its MD5 is not the one that the container states"
        if self._md5 is not None and self._stated - {self._md5.digest()}:
            yield "its MD5 is not the one that the answer states"
        if self._blob.sha256 is not None and self._sha256.digest() != self._blob.sha256:
            yield "its SHA-256 is not the one that the manifest states"
        if self._broken is None:
            try:
                self._payload.finish()
            except BlobDamaged as error:
                self._broken = str(error)
        if self._broken is not None:
            yield self._broken

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
        references, remarks = self._references.take()
        return Reading(self._payload.kind, references, remarks, implicit=self._payload.implicit)
