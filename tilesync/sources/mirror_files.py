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
from tilesync.model import Blob, Page, SasUrl, StoredFile, Version
from tilesync.protocols import ReadOnlyPublication, StoredFiles
from tilesync.runtime.batching import ReadBatcher
from tilesync.runtime.threads import run_in_thread

FILES_PER_PAGE = 2000
"""Files of a page, as a manifest is read."""

READ_BYTES = 1 << 20
"""Bytes that are read at a time; a smaller file is read at once."""

PERMANENT_ERRNOS = frozenset(
    {errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.ENXIO, errno.ENAMETOOLONG}
)
"""What another look at a file does not cure: no permission, a symlink, a folder or a FIFO there. Source: open(2)."""

Throttle = Callable[[int], Awaitable[None]]
"""Returns when so many bytes may come."""

MANIFEST_ERRORS = (DestinationError, KeyError, TypeError, ValueError)
"""What reading something else than a manifest raises."""


def manifest_error(name: str, published: ReadOnlyPublication, display_name: str, error: Exception) -> TilesyncError:
    """What it means that the manifest of a version cannot be read: it retired meanwhile, or is damaged."""
    if name not in published.manifest_names():
        return ExportReplaced(f"version {name} is not held in {display_name} any more")
    return Incomplete(
        f"the manifest of version {name} in {display_name} cannot be read: {error}",
        hint="choose another version with --export-id, or mirror into SOURCE again first",
    )


@dataclass(frozen=True, slots=True)
class MirrorWorkerSource:
    """How other processes read the files of a held version."""

    files: StoredFiles
    version: Version


class MirrorSource:
    """The files of one held version as they lie, each what the manifest says of it: that tells the SHA-256 that they
    must have.

    `pace` is how fast their bytes may come. A version that retires meanwhile is ExportReplaced; a file that is gone, or
    cannot be read, fails by itself.
    """

    has_link = False
    undated = 0

    def __init__(
        self,
        version: Version,
        published: ReadOnlyPublication,
        files: StoredFiles,
        display_name: str,
        *,
        throttle: Throttle | None = None,
    ) -> None:
        self._throttle = throttle
        self.has_worker_source = files.is_picklable and throttle is None
        self._version = version
        self._published = published
        self._files = files
        self._display_name = display_name
        self._reading = ReadBatcher()
        self.inventory_key = f"{version.name} {version.published_at} {display_name}"
        self.remedy = f"`tilesync verify {display_name}` tells what is damaged there; what arrived is kept"

    async def pages(self, marker: str | None) -> AsyncIterator[Page]:
        """The files of the manifest, some thousand a page; a marker is the number of those before.

        Raises Incomplete when the manifest is damaged, or ends too early.
        """
        lines, known = self._read_manifest_lines(), int(marker or 0)
        count, size, more = 0, 0, True
        while more:
            batch = await run_in_thread(self._read_blobs, lines, FILES_PER_PAGE)
            count, size = count + len(batch), size + sum(blob.size for blob in batch)
            more = len(batch) >= FILES_PER_PAGE
            if not more and (count, size) != (self._version.files, self._version.bytes):
                cut = ValueError(f"it names {count} files of {size} bytes, not {self._version.files} files")
                raise manifest_error(self._version.name, self._published, self._display_name, cut)
            if count > known or not more:
                yield Page(tuple(batch), str(count) if more else None)

    def _read_blobs(self, lines: Iterator[StoredFile], max_blobs: int) -> list[Blob]:
        try:
            return [held.on_disk._replace(sha256=held.sha256 or None) for held in islice(lines, max_blobs)]
        except MANIFEST_ERRORS as error:
            raise manifest_error(self._version.name, self._published, self._display_name, error) from error

    def _read_manifest_lines(self) -> Iterator[StoredFile]:
        """What the manifest says of each file. Raises one of NOT_A_MANIFEST."""
        lines = self._published.manifest(self._version.name)
        next(lines, None)
        yield from map(read_line, lines)

    async def open(self, blob: Blob, offset: int, *, prefetch_bytes: int = 1) -> MirrorFileBody:
        """The bytes of `blob` from `offset` on. What it holds is not looked at: its SHA-256 tells in the end.

        Raises BlobMissing, BlobDamaged for what cannot be read, ExportReplaced, Transient.
        """
        return await self._reading.run(partial(self._open_file, blob, offset))

    async def peek(self, blob: Blob, count: int) -> bytes:
        """The first bytes of `blob`."""
        body = await self.open(blob, 0)
        try:
            return (await body.read(count))[:count]
        finally:
            await body.aclose()

    async def open_by_name(self, name: str) -> tuple[Blob, MirrorFileBody]:
        """What the manifest says of a file, and its bytes from the start."""

        def find() -> tuple[Blob, MirrorFileBody]:
            blob = self._find_blob(name)
            return blob, self._open_file(blob, 0)

        return await self._reading.run(find)

    async def is_unchanged(self, stored: StoredFile) -> bool:
        """Whether the bytes are what is held elsewhere."""
        return await self._reading.run(partial(self._compute_digest, stored.blob.name)) == stored.stored_sha256

    async def container_url(self) -> str:
        """The bare URL of the container that it was mirrored from."""
        return self._version.container_url

    async def is_listable(self) -> bool:
        """It is: the manifest lists it."""
        return True

    async def worker_source(self) -> MirrorWorkerSource:
        """The files themselves."""
        return MirrorWorkerSource(self._files, replace(self._version, record={}))

    async def link(self) -> SasUrl:
        """Never asked for."""
        raise NotImplementedError

    def _open_file(self, blob: Blob, offset: int) -> MirrorFileBody:
        if (
            blob.sha256 is None
            and blob.md5 is None
            and self._compute_digest(blob.name) != self._find_blob(blob.name).sha256
        ):
            raise BlobDamaged(f"{blob.name}: its SHA-256 is not the one that the manifest states")
        pieces = self._read_pieces(blob.name, offset)
        first = next(pieces, b"")
        return MirrorFileBody(
            self._reading, offset, first, pieces if len(first) >= READ_BYTES else None, self._throttle
        )

    def _find_blob(self, name: str) -> Blob:
        for blob in iter(partial(self._read_blobs, self._read_manifest_lines(), 1), []):
            if blob[0].name == name:
                return blob[0]
        raise BlobMissing(f"{name} is not in version {self._version.name} of {self._display_name}")

    def _compute_digest(self, name: str) -> bytes | None:
        try:
            return self._files.digest(self._version, name)
        except DestinationError as error:
            raise self._read_error(name, error) from error

    def _read_pieces(self, name: str, offset: int) -> Generator[bytes, None, None]:
        """The bytes of a file, PIECE or more at a time."""
        pieces, size = list[bytes](), 0
        try:
            for chunk in self._files.chunks(self._version, name, offset=offset):
                pieces.append(chunk)
                size += len(chunk)
                if size >= READ_BYTES:
                    yield b"".join(pieces)
                    pieces, size = [], 0
        except DestinationError as error:
            raise self._read_error(name, error) from error
        if pieces:
            yield b"".join(pieces)

    def _read_error(self, name: str, error: DestinationError) -> TilesyncError:
        """What it means that a file cannot be read."""
        cause = error.__cause__
        if not isinstance(cause, OSError):
            with suppress(DestinationError):
                if self._files.size(self._version, name) is None:
                    cause = FileNotFoundError(errno.ENOENT, "")
        if isinstance(cause, FileNotFoundError):
            if self._version.name not in self._published.manifest_names():
                return ExportReplaced(f"version {self._version.name} is not held in {self._display_name} any more")
            return BlobMissing(f"{name} is not there any more in version {self._version.name} of {self._display_name}")
        if isinstance(cause, OSError) and cause.errno not in PERMANENT_ERRNOS:
            return Transient(str(error))
        if cause is None:
            return BlobUnreachable(str(error))  # the store keeps it back, as one that is archived
        return BlobDamaged(str(error))


class MirrorFileBody:
    """The bytes of one held file from byte `start` on: the first piece is here, `rest` gives the others."""

    md5: bytes | None = None

    def __init__(
        self,
        reading: ReadBatcher,
        start: int,
        first_piece: bytes,
        other_pieces: Generator[bytes, None, None] | None,
        throttle: Throttle | None,
    ) -> None:
        self._throttle = throttle
        self._reading = reading
        self.start = start
        self._first_piece = first_piece
        self._other_pieces = other_pieces

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes, piece by piece."""
        piece = self._first_piece
        while piece:
            if self._throttle is not None:
                await self._throttle(len(piece))
            yield piece
            rest = self._other_pieces
            piece = await self._reading.run(partial(next, rest, b"")) if rest is not None else b""

    async def read(self, max_bytes: int) -> bytes:
        """The bytes, all at once; of more than `most` no more than shows that there are more."""
        pieces, size = list[bytes](), 0
        async for piece in self.chunks():
            pieces.append(piece)
            size += len(piece)
            if size > max_bytes:
                break
        return b"".join(pieces)

    async def aclose(self) -> None:
        """Let go of the file. May be called twice."""
        rest, self._other_pieces = self._other_pieces, None
        if rest is not None:
            with suppress(ValueError):  # a read that was cancelled is under way still, and lets go of it
                rest.close()
