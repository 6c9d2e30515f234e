"""Validator: checks size, digests and structure of one blob and collects its references, chunk by chunk.

The result does not depend on how the bytes are cut into chunks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator

from tilesync.errors import BlobDamaged, RangeRefused
from tilesync.model import UNKNOWN_SIZE, Blob, Chunk, Digests, Kind, ParsedContent
from tilesync.model.tiles import DAMAGED
from tilesync.tiles.references import ReferenceCollector


def check_whole(
    blob: Blob, data: bytes, container_url: str, *, compute_md5: bool = False, stated_md5: bytes | None = None
) -> tuple[Digests, ParsedContent]:
    """Check all bytes of one blob, with the result of a ContentCheck. Raises BlobDamaged.

    Most files of an export are ordinary GLBs and tilesets with the right digests: these take a third of the time here,
    or a tenth. All others are checked by a ContentCheck from the start. `stated_md5`: the MD5 that the response states.
    """
    if len(data) == blob.size and (content := _parse_plain(blob.name, data, container_url)) is not None:
        sha256, md5 = hashlib.sha256(data).digest(), blob.md5
        stated_md5s = (blob.md5, stated_md5) if blob.sha256 is None else ()
        if any(stated_md5s) or (compute_md5 and md5 is None):
            md5 = hashlib.md5(data, usedforsecurity=False).digest()
        if blob.sha256 in {None, sha256} and {None, md5}.issuperset(stated_md5s):
            return Digests(len(data), sha256, md5), content
    check = ContentCheck(blob, container_url, compute_md5=compute_md5)
    check.expect_md5(stated_md5)
    check.feed(data)
    return check.finish(), check.drain()


def _parse_plain(name: str, data: bytes, container_url: str) -> ParsedContent | None:
    """Return the content of an ordinary GLB or tileset; None for all other bytes."""
    if name.endswith(".glb"):
        from tilesync.tiles.plain_glb import is_plain_glb  # late: a run without changes reads no file

        return _PLAIN_GLB if is_plain_glb(data) else None
    if name.endswith(".json"):
        from tilesync.tiles.plain_tileset import parse_plain_tileset

        return parse_plain_tileset(name, data, container_url)
    return None


_PLAIN_GLB = ParsedContent(Kind.GLB)


class ContentCheck:
    """Check of one blob: size, claimed MD5 and SHA-256, structure, and references.

    A broken structure is an error, because the blob may have been damaged on the way. If a digest proves that the
    container stores the blob like this, it is only a diagnostic, DAMAGED: whether it matters depends on the file that
    references the blob.

    `container_url` is the bare URL of the container, empty if unknown; absolute URLs are compared with it.
    `compute_md5`: compute the MD5 even if the blob claims none. If the blob claims both digests, only the SHA-256 is
    checked.
    """

    def __init__(self, blob: Blob, container_url: str = "", *, compute_md5: bool = False) -> None:
        self._blob = blob
        self._container_url = container_url
        self._computes_md5 = blob.sha256 is None if blob.md5 is not None else compute_md5
        self.reset()

    def reset(self) -> None:
        """Start again from the first byte."""
        from tilesync.tiles.payload import Payload  # late: a run without changes reads no file

        self.size = 0
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False) if self._computes_md5 else None
        self._references = ReferenceCollector(self._blob.name, self._container_url)
        self._payload = Payload(self._blob.name, self._references)
        self._damage_reason: str | None = None
        self._is_finished = False
        self._stated_md5s = set[bytes]()

    def expect_md5(self, md5: bytes | None) -> None:
        """Check the blob against the MD5 of a response too.

        Raises RangeRefused if bytes were already fed without computing their MD5: they must be fetched again.
        """
        if md5 is None or md5 == self._blob.md5 or self._blob.sha256 is not None:
            return
        if self._md5 is None:
            self._computes_md5 = True
            if self.size:
                raise RangeRefused("the storage now states an MD5, but the bytes so far came without one")
            self._md5 = hashlib.md5(usedforsecurity=False)
        self._stated_md5s.add(md5)

    def feed(self, chunk: Chunk) -> None:
        """Check the next bytes, in order."""
        self.size += len(chunk)
        self._sha256.update(chunk)
        if self._md5 is not None:
            self._md5.update(chunk)
        if self._damage_reason is None:
            try:
                self._payload.feed(chunk)
            except BlobDamaged as error:
                self._damage_reason = str(error)

    def finish(self, *, known_sha256s: Collection[bytes] = ()) -> Digests:
        """Return the digests of the whole content. Raises BlobDamaged, which lists every problem.

        `known_sha256s`: SHA-256 of bytes that the container delivered before, or of unchanged files on disk. A content
        with one of these is what the container stores.
        """
        self._is_finished = True
        problems = list(self._find_mismatches())
        damage = self._find_damage()
        has_digest = self._blob.md5 is not None or self._blob.sha256 is not None or bool(self._stated_md5s)
        if damage and not problems and (has_digest or self.sha256 in known_sha256s):
            self._references.add_diagnostic(DAMAGED, damage)
        elif damage:
            problems.append(damage)
        if problems:
            raise BlobDamaged(f"{self._blob.name}: {'; '.join(problems)}")
        return Digests(self.size, self.sha256, self._md5.digest() if self._md5 is not None else self._blob.md5)

    def _find_mismatches(self) -> Iterator[str]:
        if self.size != self._blob.size != UNKNOWN_SIZE:
            yield f"it has {self.size} bytes, but the listing says {self._blob.size}"
        if self._md5 is not None and self._blob.md5 is not None and self._md5.digest() != self._blob.md5:
            yield "its MD5 is not the one that the container states"
        if self._md5 is not None and self._stated_md5s - {self._md5.digest()}:
            yield "its MD5 is not the one that the response states"
        if self._blob.sha256 is not None and self._sha256.digest() != self._blob.sha256:
            yield "its SHA-256 is not the one that the manifest states"

    def _find_damage(self) -> str | None:
        """Return the first error in the structure of the whole content; None if there is none."""
        if self._damage_reason is None:
            try:
                self._payload.finish()
            except BlobDamaged as error:
                self._damage_reason = str(error)
        return self._damage_reason

    @property
    def sha256(self) -> bytes:
        """SHA-256 of the bytes so far."""
        return self._sha256.digest()

    @property
    def pending_count(self) -> int:
        """Number of references and diagnostics that the next `drain` returns."""
        return len(self._references)

    def drain(self) -> ParsedContent:
        """Return the references and diagnostics found since the last call; the last ones come after `finish`."""
        references, diagnostics = self._references.drain(is_final=self._is_finished)
        if self._damage_reason is not None:  # references found before the damage do not count
            return ParsedContent(self._payload.kind, (), diagnostics)
        return ParsedContent(
            self._payload.kind, references, diagnostics, has_implicit_tiling=self._payload.has_implicit_tiling
        )
