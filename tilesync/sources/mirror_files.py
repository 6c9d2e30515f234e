"""The files of a held version as a Source: the manifest lists them, and says what their bytes must be."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

from tilesync.core.manifest import read_line
from tilesync.errors import (
    BlobDamaged,
    BlobMissing,
    BlobUnreachable,
    DestinationError,
    ExportReplaced,
    Incomplete,
    TilesyncError,
    Transient,
)
from tilesync.model import Blob, Held, Page, SasUrl, Version
from tilesync.protocols import HeldFiles, Published
from tilesync.runtime.batching import Reading
from tilesync.runtime.threads import in_thread

PAGE = 2000
"""Files of a page, as a manifest is read."""

PIECE = 1 << 20
"""Bytes that are read at a time; a smaller file is read at once."""

FOR_GOOD = frozenset(
    {errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.ENXIO, errno.ENAMETOOLONG}
)
"""What another look at a file does not cure: no permission, a symlink, a folder or a FIFO there. Source: open(2)."""

Pace = Callable[[int], Awaitable[None]]
"""Returns when so many bytes may come."""

NOT_A_MANIFEST = (DestinationError, KeyError, TypeError, ValueError)
"""What reading something else than a manifest raises."""


def unreadable(name: str, published: Published, shown: str, error: Exception) -> TilesyncError:
    """What it means that the manifest of a version cannot be read: it retired meanwhile, or is damaged."""
    if name not in published.manifest_names():
        return ExportReplaced(f"version {name} is not held in {shown} any more")
    return Incomplete(
        f"the manifest of version {name} in {shown} cannot be read: {error}",
        hint="choose another version with --export-id, or mirror into SOURCE again first",
    )


@dataclass(frozen=True, slots=True)
class HeldWay:
    """How other processes read the files of a held version."""

    files: HeldFiles
    version: Version


class HeldSource:
    """The files of one held version as they lie, each what the manifest says of it: that tells the SHA-256 that they
    must have.

    `pace` is how fast their bytes may come. A version that retires meanwhile is ExportReplaced; a file that is gone, or
    cannot be read, fails by itself.
    """

    has_link = False
    undated = 0

    def __init__(
        self, version: Version, published: Published, files: HeldFiles, shown: str, *, pace: Pace | None = None
    ) -> None:
        self._pace = pace
        self.has_way = files.portable and pace is None
        self._version = version
        self._published = published
        self._files = files
        self._shown = shown
        self._reading = Reading()
        self.place = f"{version.name} {version.published} {shown}"
        self.remedy = f"`tilesync verify {shown}` tells what is damaged there; what arrived is kept"

    async def pages(self, marker: str | None) -> AsyncIterator[Page]:
        """The files of the manifest, some thousand a page; a marker is the number of those before.

        Raises Incomplete when the manifest is damaged, or ends too early.
        """
        lines, known = self._lines(), int(marker or 0)
        count, size, more = 0, 0, True
        while more:
            batch = await in_thread(self._take, lines, PAGE)
            count, size = count + len(batch), size + sum(blob.size for blob in batch)
            more = len(batch) >= PAGE
            if not more and (count, size) != (self._version.files, self._version.bytes):
                cut = ValueError(f"it names {count} files of {size} bytes, not {self._version.files} files")
                raise unreadable(self._version.name, self._published, self._shown, cut)
            if count > known or not more:
                yield Page(tuple(batch), str(count) if more else None)

    def _take(self, lines: Iterator[Held], most: int) -> list[Blob]:
        try:
            return [held.lying._replace(sha256=held.sha256 or None) for held in islice(lines, most)]
        except NOT_A_MANIFEST as error:
            raise unreadable(self._version.name, self._published, self._shown, error) from error

    def _lines(self) -> Iterator[Held]:
        """What the manifest says of each file. Raises one of NOT_A_MANIFEST."""
        lines = self._published.manifest(self._version.name)
        next(lines, None)
        yield from map(read_line, lines)

    async def open(self, blob: Blob, offset: int, *, ahead: int = 1) -> HeldBody:
        """The bytes of `blob` from `offset` on. What it holds is not looked at: its SHA-256 tells in the end.

        Raises BlobMissing, BlobDamaged for what cannot be read, ExportReplaced, Transient.
        """
        return await self._reading.run(partial(self._open, blob, offset))

    async def peek(self, blob: Blob, count: int) -> bytes:
        """The first bytes of `blob`."""
        body = await self.open(blob, 0)
        try:
            return (await body.read(count))[:count]
        finally:
            await body.aclose()

    async def first(self, name: str) -> tuple[Blob, HeldBody]:
        """What the manifest says of a file, and its bytes from the start."""

        def find() -> tuple[Blob, HeldBody]:
            blob = self._find(name)
            return blob, self._open(blob, 0)

        return await self._reading.run(find)

    async def unchanged(self, held: Held) -> bool:
        """Whether the bytes are what is held elsewhere."""
        return await self._reading.run(partial(self._digest, held.blob.name)) == held.stored_sha256

    async def home(self) -> str:
        """The bare URL of the container that it was mirrored from."""
        return self._version.home

    async def listable(self) -> bool:
        """It is: the manifest lists it."""
        return True

    async def way(self) -> HeldWay:
        """The files themselves."""
        return HeldWay(self._files, replace(self._version, record={}))

    async def link(self) -> SasUrl:
        """Never asked for."""
        raise NotImplementedError

    def _open(self, blob: Blob, offset: int) -> HeldBody:
        if blob.sha256 is None and blob.md5 is None and self._digest(blob.name) != self._find(blob.name).sha256:
            raise BlobDamaged(f"{blob.name}: its SHA-256 is not the one that the manifest states")
        pieces = self._pieces(blob.name, offset)
        first = next(pieces, b"")
        return HeldBody(self._reading, offset, first, pieces if len(first) >= PIECE else None, self._pace)

    def _find(self, name: str) -> Blob:
        for blob in iter(partial(self._take, self._lines(), 1), []):
            if blob[0].name == name:
                return blob[0]
        raise BlobMissing(f"{name} is not in version {self._version.name} of {self._shown}")

    def _digest(self, name: str) -> bytes | None:
        try:
            return self._files.digest(self._version, name)
        except DestinationError as error:
            raise self._failure(name, error) from error

    def _pieces(self, name: str, offset: int) -> Generator[bytes, None, None]:
        """The bytes of a file, PIECE or more at a time."""
        pieces, size = list[bytes](), 0
        try:
            for chunk in self._files.chunks(self._version, name, offset=offset):
                pieces.append(chunk)
                size += len(chunk)
                if size >= PIECE:
                    yield b"".join(pieces)
                    pieces, size = [], 0
        except DestinationError as error:
            raise self._failure(name, error) from error
        if pieces:
            yield b"".join(pieces)

    def _failure(self, name: str, error: DestinationError) -> TilesyncError:
        """What it means that a file cannot be read."""
        cause = error.__cause__
        if not isinstance(cause, OSError):
            with suppress(DestinationError):
                if self._files.size(self._version, name) is None:
                    cause = FileNotFoundError(errno.ENOENT, "")
        if isinstance(cause, FileNotFoundError):
            if self._version.name not in self._published.manifest_names():
                return ExportReplaced(f"version {self._version.name} is not held in {self._shown} any more")
            return BlobMissing(f"{name} is not there any more in version {self._version.name} of {self._shown}")
        if isinstance(cause, OSError) and cause.errno not in FOR_GOOD:
            return Transient(str(error))
        if cause is None:
            return BlobUnreachable(str(error))  # the store keeps it back, as one that is archived
        return BlobDamaged(str(error))


class HeldBody:
    """The bytes of one held file from byte `start` on: the first piece is here, `rest` gives the others."""

    md5: bytes | None = None

    def __init__(
        self,
        reading: Reading,
        start: int,
        first: bytes,
        rest: Generator[bytes, None, None] | None,
        pace: Pace | None,
    ) -> None:
        self._pace = pace
        self._reading = reading
        self.start = start
        self._first = first
        self._rest = rest

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes, piece by piece."""
        piece = self._first
        while piece:
            if self._pace is not None:
                await self._pace(len(piece))
            yield piece
            rest = self._rest
            piece = await self._reading.run(partial(next, rest, b"")) if rest is not None else b""

    async def read(self, most: int) -> bytes:
        """The bytes, all at once; of more than `most` no more than shows that there are more."""
        pieces, size = list[bytes](), 0
        async for piece in self.chunks():
            pieces.append(piece)
            size += len(piece)
            if size > most:
                break
        return b"".join(pieces)

    async def aclose(self) -> None:
        """Let go of the file. May be called twice."""
        rest, self._rest = self._rest, None
        if rest is not None:
            with suppress(ValueError):  # a read that was cancelled is under way still, and lets go of it
                rest.close()
