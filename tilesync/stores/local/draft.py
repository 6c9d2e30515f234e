"""Draft of a large local file: received into a part, which a later run can resume, then moved into place."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from tilesync.errors import BlobDamaged
from tilesync.model import Blob, Chunk, Content, Digests, FileStamp, StoredFile, UnpackedFile, Version
from tilesync.runtime.os_errors import translate_os_errors
from tilesync.runtime.threads import THREAD_POOL, run_in_thread
from tilesync.stores.local.directory_handles import Entry
from tilesync.stores.local.fs import write_at
from tilesync.stores.local.gunzip import GunzipWriter, is_gzip_file, read_chunks
from tilesync.stores.local.reader import READ_CHUNK_BYTES


class LocalDraft:
    """Draft of a file: bytes are received into a part as they are stored, and unpacked after the last one."""

    def __init__(
        self,
        version: Version,
        blob: Blob,
        part: Entry,
        received_bytes: int,
        *,
        move_into_place: Callable[[str, Blob, Entry], Awaitable[FileStamp]],
        keep_part: Callable[[Entry], None],
    ) -> None:
        self._version = version
        self._blob = blob
        self._part = part
        self._move_into_place = move_into_place
        self._keep_part = keep_part
        self.received_bytes = received_bytes

    async def received_chunks(self) -> AsyncIterator[bytes]:
        """Read the received bytes, to verify a resumed transfer."""
        import aiofiles

        remaining = self.received_bytes
        if not remaining:
            return
        with translate_os_errors(f"cannot read the part of {self._blob.name}"):
            async with aiofiles.open(self._part.open(), "rb", executor=THREAD_POOL.get()) as file:
                while remaining and (chunk := await file.read(min(remaining, READ_CHUNK_BYTES))):
                    remaining -= len(chunk)
                    yield chunk

    async def append(self, chunk: Chunk, check: Callable[[], None] | None = None) -> None:
        """Write `chunk` at its own offset, so that an interrupted or repeated call leaves a correct part."""
        await run_in_thread(self._check_and_write, chunk, check)
        self.received_bytes += len(chunk)

    def _check_and_write(self, chunk: Chunk, check: Callable[[], None] | None) -> None:
        if check is not None:
            check()
        with translate_os_errors(f"cannot write {self._blob.name}"):
            write_at(self._part, self.received_bytes, chunk)

    async def restart(self) -> None:
        """Discard the received bytes."""
        if self.received_bytes:
            with translate_os_errors(f"cannot remove the part of {self._blob.name}"):
                self._part.unlink()
        self.received_bytes = 0

    async def commit(self, digests: Digests) -> StoredFile:
        """Move the complete file to its final name."""
        if not self.received_bytes:
            await self.append(b"")
        with translate_os_errors(f"cannot read the part of {self._blob.name}"):
            needs_unpacking = self._version.content is Content.DECODED and await run_in_thread(is_gzip_file, self._part)
        stored = await self._unpack(digests) if needs_unpacking else None
        if stored is None:
            stored = StoredFile(
                self._blob,
                digests.sha256,
                *await self._move_into_place(self._version.name, self._blob, self._part),
            )
        self.received_bytes = 0
        return stored

    async def _unpack(self, digests: Digests) -> StoredFile | None:
        """Unpack the part and move the result into place; the part is kept until then, for a run that is interrupted.

        None if the verified payload is broken: the container has it broken too.
        """
        unpacked = self._part.folder.entry(f"{self._part.name}-unpacked")
        try:
            with translate_os_errors(f"cannot unpack {self._blob.name}"):
                writer = GunzipWriter(read_chunks(self._part), unpacked)
                try:
                    while await run_in_thread(writer.write_next):
                        pass
                finally:
                    writer.close()
            stamp = await self._move_into_place(self._version.name, self._blob, unpacked)
        except BlobDamaged:
            return None
        finally:
            unpacked.unlink()
        self._part.unlink()
        return StoredFile(self._blob, writer.sha256, *stamp, UnpackedFile(writer.size, digests.sha256))

    async def suspend(self) -> None:
        """Keep the received bytes in the part, for a later run."""
        if self.received_bytes:
            self._keep_part(self._part)
