"""Source that lists and reads the files of a version in another mirror, by its manifest."""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import suppress
from functools import cached_property, partial
from itertools import islice

from tilesync.core.manifest import UNPROVEN, read_line
from tilesync.errors import (
    BlobDamaged,
    BlobMissing,
    BlobUnreachable,
    DamagedPackage,
    DestinationError,
    ExportReplaced,
    Incomplete,
    TilesyncError,
    Transient,
)
from tilesync.model import Blob, Page, SasUrl, StoredFile, Version
from tilesync.protocols import MirrorWorkerSource, ReadOnlyPublication, StoredFiles
from tilesync.runtime.batching import ReadBatcher
from tilesync.runtime.threads import run_in_thread

FILES_PER_PAGE = 2000
"""Files in one page of a manifest."""

READ_BYTES = 1 << 20
"""Bytes of one read; a smaller file is read at once."""

PERMANENT_ERRNOS = frozenset(
    {errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.ENXIO, errno.ENAMETOOLONG}
)
"""Errors that a retry does not cure: no permission, or a symlink, folder or FIFO in its place. Source: open(2)."""

Throttle = Callable[[int], Awaitable[None]]
"""Waits until the bandwidth limit allows so many bytes."""

MANIFEST_ERRORS = (DestinationError, KeyError, TypeError, ValueError)
"""Errors of reading a file that is not a valid manifest."""


def manifest_error(name: str, published: ReadOnlyPublication, display_name: str, error: Exception) -> TilesyncError:
    """Return the error for a manifest that cannot be read: the version was removed meanwhile, or it is damaged."""
    if name not in published.manifest_names():
        return ExportReplaced(f"version {name} is no longer in {display_name}")
    return Incomplete(
        f"the manifest of version {name} in {display_name} cannot be read: {error}",
        hint="choose another version with --export-id, or mirror into SOURCE again first",
    )


class MirrorSource:
    """Source of the stored files of one version, each with the SHA-256 that the manifest states.

    `throttle` limits the bandwidth. A version that is removed meanwhile raises ExportReplaced; a file that is missing
    or unreadable fails alone.
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
        self._worker_reader = files.worker_reader() if throttle is None else None
        self.has_worker_source = self._worker_reader is not None
        self._version = version
        self._published = published
        self._files = files
        self._display_name = display_name
        self._reading = ReadBatcher()
        self.inventory_key = f"{version.name} {version.summary.published_at} {display_name}"
        self.remedy = f"`tilesync verify {display_name}` shows what is damaged there; files that arrived are kept"

    async def pages(self, marker: str | None) -> AsyncGenerator[Page, None]:
        """Yield the files of the manifest, FILES_PER_PAGE in each page; a marker is the number of files before it.

        Raises Incomplete when the manifest is damaged or cut off.
        """
        lines, skipped_files = self._read_manifest_lines(), int(marker or 0)
        count, size, has_more = 0, 0, True
        while has_more:
            batch = await run_in_thread(self._read_blobs, lines, FILES_PER_PAGE)
            count, size = count + len(batch), size + sum(blob.size for blob in batch)
            has_more = len(batch) >= FILES_PER_PAGE
            if not has_more and (count, size) != (self._version.summary.files, self._version.summary.bytes):
                error = ValueError(f"it lists {count} files of {size} bytes, not {self._version.summary.files} files")
                raise manifest_error(self._version.name, self._published, self._display_name, error)
            if count > skipped_files or not has_more:
                yield Page.of(batch, str(count) if has_more else None)

    def _read_blobs(self, lines: Iterator[StoredFile], max_blobs: int) -> list[Blob]:
        try:
            return [stored.on_disk._replace(sha256=stored.sha256 or None) for stored in islice(lines, max_blobs)]
        except MANIFEST_ERRORS as error:
            raise manifest_error(self._version.name, self._published, self._display_name, error) from error

    def _read_manifest_lines(self) -> Iterator[StoredFile]:
        """Yield the files of the manifest. Raises one of MANIFEST_ERRORS."""
        lines = self._published.manifest(self._version.name)
        next(lines, None)
        yield from map(read_line, lines)

    async def open(
        self, blob: Blob, offset: int, *, prefetch_bytes: int = 1, until: int | None = None
    ) -> MirrorFileBody:
        """Open `blob` from byte `offset` on. Its content is not checked here: the caller compares the SHA-256.

        Raises BlobMissing, BlobDamaged for a file that cannot be read, ExportReplaced, Transient.
        """
        return await self._reading.run(partial(self._open_file, blob, offset))

    async def peek(self, blob: Blob, count: int) -> bytes:
        """Read the first bytes of `blob`."""
        body = await self.open(blob, 0)
        try:
            return (await body.read(count))[:count]
        finally:
            await body.aclose()

    async def open_by_name(self, name: str) -> tuple[Blob, MirrorFileBody]:
        """Open a file by its name. Return its entry in the manifest, and its body."""

        def find() -> tuple[Blob, MirrorFileBody]:
            blob = self._find_blob(name)
            return blob, self._open_file(blob, 0)

        return await self._reading.run(find)

    async def is_unchanged(self, stored: StoredFile) -> bool:
        """Return whether the file has the SHA-256 of `stored`."""
        return await self._reading.run(partial(self._compute_digest, stored.blob.name)) == stored.stored_sha256

    async def container_url(self) -> str:
        """Return the URL, without signature, of the container that it was mirrored from."""
        return self._version.container_url

    async def is_listable(self) -> bool:
        """Return True: the manifest lists all files."""
        return True

    async def worker_source(self) -> MirrorWorkerSource:
        """Return what worker processes need to read the files."""
        assert self._worker_reader is not None, "this source has no worker source"
        is_unproven = await run_in_thread(lambda: self._is_unproven)
        return MirrorWorkerSource(self._worker_reader, self._version.with_facts(record={}), is_unproven)

    async def link(self) -> SasUrl:
        """Not supported: this source has no link."""
        raise NotImplementedError

    def _open_file(self, blob: Blob, offset: int) -> MirrorFileBody:
        if (
            blob.sha256 is None
            and blob.md5 is None
            and not self._is_unproven
            and self._compute_digest(blob.name) != self._find_blob(blob.name).sha256
        ):
            raise BlobDamaged(f"{blob.name}: its SHA-256 is not the one that the manifest states")
        pieces = self._read_pieces(blob.name, offset)
        first_piece = next(pieces, b"")
        return MirrorFileBody(
            self._reading, offset, first_piece, pieces if len(first_piece) >= READ_BYTES else None, self._throttle
        )

    @cached_property
    def _is_unproven(self) -> bool:
        """True if the manifest states no digests, because tilesync did not write the package."""
        header = next(self._published.manifest(self._version.name), {})
        return header.get("proof") == UNPROVEN

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
        """Yield the bytes of a file, at least READ_BYTES at a time."""
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
        """Return the error for a file that cannot be read."""
        if isinstance(error, DamagedPackage):
            return BlobDamaged(f"{name}: {error}")
        cause = error.__cause__
        if not isinstance(cause, OSError):
            with suppress(DestinationError):
                if self._files.size(self._version, name) is None:
                    cause = FileNotFoundError(errno.ENOENT, "")
        if isinstance(cause, FileNotFoundError):
            if self._version.name not in self._published.manifest_names():
                return ExportReplaced(f"version {self._version.name} is no longer in {self._display_name}")
            return BlobMissing(f"{name} is missing in version {self._version.name} of {self._display_name}")
        if isinstance(cause, OSError) and cause.errno not in PERMANENT_ERRNOS:
            return Transient(str(error))
        if cause is None:
            return BlobUnreachable(str(error))  # the store refuses it, for example because it is archived
        return BlobDamaged(str(error))


class MirrorFileBody:
    """Body of one stored file from byte `start` on: its first piece, and a generator of the others."""

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
        """Yield the bytes, piece by piece."""
        piece = self._first_piece
        while piece:
            if self._throttle is not None:
                await self._throttle(len(piece))
            yield piece
            rest = self._other_pieces
            piece = await self._reading.run(partial(next, rest, b"")) if rest is not None else b""

    async def read(self, max_bytes: int) -> bytes:
        """Read all bytes; a file of more than `max_bytes` is read only until that is known."""
        pieces, size = list[bytes](), 0
        async for piece in self.chunks():
            pieces.append(piece)
            size += len(piece)
            if size > max_bytes:
                break
        return b"".join(pieces)

    async def aclose(self) -> None:
        """Close the file. May be called twice."""
        rest, self._other_pieces = self._other_pieces, None
        if rest is not None:
            with suppress(ValueError):  # a cancelled read still runs in its thread, and closes the file itself
                rest.close()
