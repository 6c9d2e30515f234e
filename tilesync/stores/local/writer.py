"""Writer of a local destination: small files at once, large ones through resumable parts; reuse by hard link."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, ClassVar

from tilesync.core.gzip import GZIP_DEFLATE_MAGIC
from tilesync.errors import BlobDamaged, DestinationError
from tilesync.model import Blob, Content, Digests, FileStamp, SasUrl, StoredFile, UnpackedFile, Version
from tilesync.runtime.os_errors import to_destination_error, translate_os_errors, translate_read_errors
from tilesync.runtime.threads import THREAD_POOL, run_in_thread
from tilesync.stores.local.directory_handles import DirectoryTree, Entry
from tilesync.stores.local.fs import ThreadBatcher, copy_file, stamp_from_stat, try_hard_link, write_at, write_whole
from tilesync.stores.local.gunzip import GunzipWriter, gunzip_to_file, is_gzip_file, read_chunks
from tilesync.stores.local.reader import READ_CHUNK_BYTES, LocalStoredFiles, SafePathResolver, find_unchanged_stamp

if TYPE_CHECKING:
    from tilesync.stores.worker_target import FindWorkerTarget


@dataclass(frozen=True, slots=True)
class LocalPutTarget:
    """Target for small files: each is written to a temporary file and then renamed. Picklable, for worker processes.

    `unpacks`: gzip payloads are stored unpacked.
    """

    resolver: SafePathResolver
    parts: DirectoryTree
    unpacks: bool = False

    requires_md5: ClassVar[bool] = False

    def put(self, version: str, blob: Blob, data: bytes, verify: Callable[[bytes], Digests]) -> StoredFile:
        """Verify the bytes and write the file. Raises what `verify` raises, UnsafeName, DestinationError."""
        return self.put_verified(version, blob, data, verify(data))

    def put_verified(self, version: str, blob: Blob, data: bytes, digests: Digests) -> StoredFile:
        """Write a file whose bytes are verified. Raises UnsafeName, DestinationError."""
        step = "write"
        try:  # `translate_os_errors` would take a tenth of the time of a small file
            temporary = self.parts.folder().entry(f"whole-{os.getpid()}-{get_ident()}")
            stored = (
                self._write_unpacked(temporary, blob, data, digests)
                if self.unpacks and data.startswith(GZIP_DEFLATE_MAGIC)
                else None
            )
            stored = stored or StoredFile(blob, digests.sha256, *write_whole(temporary, data, blob.last_modified))
            step = "move"
            temporary.move(self.resolver.entry(version, blob.name, make=True))
        except OSError as error:
            raise to_destination_error(error, f"cannot {step} {blob.name} into version {version}") from error
        return stored

    def _write_unpacked(self, temporary: Entry, blob: Blob, data: bytes, digests: Digests) -> StoredFile | None:
        """Write the file unpacked; None if the verified payload is broken: the container has it broken too."""
        try:
            stamp, size, sha256 = gunzip_to_file([data], temporary, blob.last_modified)
        except BlobDamaged:
            return None
        return StoredFile(blob, sha256, *stamp, UnpackedFile(size, digests.sha256))


class LocalFiles(LocalStoredFiles):
    """Reader and writer of files; new ones go through the first resolver. `check_names` refuses unsafe names."""

    has_hard_links = keeps_parts = True
    requires_md5 = states_encoding = False

    def __init__(
        self,
        resolvers: Sequence[SafePathResolver],
        parts: DirectoryTree,
        check_names: Callable[[Iterable[str]], None],
        *,
        trust_parts: bool,
    ) -> None:
        super().__init__(*resolvers)
        self._parts = parts
        self._put_target = LocalPutTarget(self._resolver, parts)
        self._unpacking_target = replace(self._put_target, unpacks=True)
        self._batcher = ThreadBatcher()
        with translate_os_errors(f"cannot use {parts.path}"):
            leftover = parts.folder().scan()
            self._resumable_parts = {name for name, _ in leftover} if trust_parts else set()
        self.check_names = check_names

    def put_target(self, version: Version) -> LocalPutTarget:
        """Return the target for small files of a version."""
        return self._unpacking_target if version.content is Content.DECODED else self._put_target

    def worker_target_finder(self) -> FindWorkerTarget:
        """Return the function that finds the target for workers."""

        async def find(version: Version) -> LocalPutTarget:
            return self.put_target(version)

        return find

    def free_bytes(self) -> int:
        """Return the bytes of free disk space for this user."""
        with translate_os_errors(f"cannot inspect {self._parts.path}"):
            return shutil.disk_usage(self._parts.path).free

    def has_part(self, version: Version, blob: Blob) -> bool:
        """Return whether an earlier run or draft left a part of exactly this content."""
        return bool(self._resumable_parts) and _part_name(version, blob) in self._resumable_parts

    def draft(self, version: Version, blob: Blob) -> LocalDraft:
        """Create a draft. Its part is named by blob name and ETag, so the part of other content is never continued."""
        part = _part_name(version, blob)
        is_identified = blob.etag or blob.md5 is not None or blob.sha256 is not None
        received_bytes = self._part_size(part) if is_identified and part in self._resumable_parts else 0
        with translate_os_errors(f"cannot use {self._parts.path}"):
            return LocalDraft(self, version, blob, self._parts.folder().entry(part), received_bytes)

    def _part_size(self, part: str) -> int:
        """Return the bytes of a part that an earlier draft left; 0 if it has a second hard link."""
        self._resumable_parts.discard(part)
        try:
            stat_result = self._parts.folder().entry(part).stat()
        except OSError:
            return 0
        return stat_result.st_size if stat.S_ISREG(stat_result.st_mode) and stat_result.st_nlink == 1 else 0

    def keep_part(self, part: Entry) -> None:
        """Keep a part for another draft of the same content."""
        self._resumable_parts.add(part.name)

    async def put(self, version: Version, blob: Blob, data: bytes, verify: Callable[[bytes], Digests]) -> StoredFile:
        """Verify and write a small file, batched with others in a thread."""
        return await self._batcher.run(partial(self.put_target(version).put, version.name, blob, data, verify))

    def move_part_into_place(self, version: str, blob: Blob, part: Entry) -> FileStamp:
        """Set the mtime of a finished part to the blob's Last-Modified and rename it into place. Returns its stamp."""
        with translate_os_errors(f"cannot move {blob.name} into version {version}"):
            if blob.last_modified is not None:
                part.set_mtime(blob.last_modified)
            final = self._resolver.entry(version, blob.name, make=True)
            part.move(final)
            return stamp_from_stat(final.stat())

    async def copy_from_source(
        self, version: Version, blob: Blob, url: SasUrl, head: bytes
    ) -> tuple[StoredFile | None, str]:
        """Refuse: a local folder cannot copy from a URL."""
        return None, "a local folder cannot copy from a URL"

    def transfer_slots(self, blob: Blob) -> int:
        """Return 1: every transfer ends on the same disk."""
        return 1

    def find_present(self, version: Version, blobs: Sequence[Blob]) -> set[str]:
        """Return the names of blobs with an MD5 whose file exists with the same size.

        Gzip files of unpacked content are left out: their size proves nothing.
        """
        present = {blob.name for blob in blobs if blob.md5 is not None and self.size(version, blob.name) == blob.size}
        if version.content is Content.DECODED:
            present = {name for name in present if not self._is_gzip(version, name)}
        return present

    def _is_gzip(self, version: Version, name: str) -> bool:
        with translate_read_errors(f"cannot read {name}"):
            found = self.find(version.name, name)
            return found is not None and is_gzip_file(found[0])

    def share(self, version: Version, requests: Sequence[tuple[Blob, Version, StoredFile]]) -> list[StoredFile | None]:
        """Reuse files of other versions: hard link, copy if no link is possible, or unpack if only that one is packed.

        None for a file that changed or cannot be read: it is downloaded, which reports an error of the target. A file
        with another inode, as after a move of the whole destination, counts if its SHA-256 is right.
        """
        return [self._try_share(version, *request) for request in requests]

    def _try_share(self, version: Version, blob: Blob, other: Version, stored: StoredFile) -> StoredFile | None:
        with suppress(DestinationError):
            return self._share(version, blob, other, stored)
        return None

    def _share(self, version: Version, blob: Blob, other: Version, stored: StoredFile) -> StoredFile | None:
        with translate_os_errors(f"cannot reuse {stored.blob.name} of version {other.name}"):
            existing = self.find(other.name, stored.blob.name)
            stamp = find_unchanged_stamp(existing[1], stored) if existing is not None else None
            if existing is None or stamp is None:
                return None
            if stamp.inode != stored.inode and self.digest(other, stored.blob.name) != stored.sha256:
                return None  # replaced by a file with other bytes, not only moved with the destination
            source = existing[0]
            if version.content is not other.content:
                if version.content is Content.STORED and stored.unpacked is not None:
                    return None  # packing again would not give the container's bytes
                if version.content is Content.DECODED and is_gzip_file(source):
                    return self._unpack(version, blob, source, stored)
            linked = StoredFile(blob, stored.sha256, *stamp, stored.unpacked)
            present = self.find(version.name, blob.name) if self._fallback_resolvers else None
            if present is not None and present[0].path == source.path:
                return linked  # flat layout: the file is in its place already
            final = self._resolver.entry(version.name, blob.name, make=True)
            if source.path == final.path:
                return linked
            temporary = self._temporary()
            with suppress(FileExistsError):  # an existing file is replaced below: link(2) cannot
                if try_hard_link(source, final):
                    if find_unchanged_stamp(final.find_stat(), stored) == stamp:
                        return linked
                    final.unlink()  # the source changed between the check and the link
                    return None
            temporary.unlink()
            if try_hard_link(source, temporary):
                if find_unchanged_stamp(temporary.find_stat(), stored) != stamp:
                    return None
                temporary.move(final)
                temporary.unlink()  # rename(2) does nothing if both names are hard links to one file
                return linked
            if copy_file(source, temporary) != stored.sha256:
                return None
            return StoredFile(
                blob, stored.sha256, *self.move_part_into_place(version.name, blob, temporary), stored.unpacked
            )

    def _unpack(self, version: Version, blob: Blob, source: Entry, original: StoredFile) -> StoredFile | None:
        """Unpack the stored file of another version into place; None if its SHA-256 or its gzip payload is wrong."""
        hasher, temporary = hashlib.sha256(), self._temporary()

        def read() -> Iterator[bytes]:
            for chunk in read_chunks(source):
                hasher.update(chunk)
                yield chunk

        try:
            _, size, sha256 = gunzip_to_file(read(), temporary, blob.last_modified)
        except BlobDamaged:
            return None
        if hasher.digest() != original.sha256:
            temporary.unlink()
            return None
        return StoredFile(
            blob, sha256, *self.move_part_into_place(version.name, blob, temporary), UnpackedFile(size, original.sha256)
        )

    def _temporary(self) -> Entry:
        """Return a temporary entry in the parts, one per thread."""
        return self._parts.folder().entry(f"shared-{get_ident()}")

    async def move_part_into_place_batched(self, version: str, blob: Blob, part: Entry) -> FileStamp:
        """Move a finished part into place, batched with others in a thread."""
        return await self._batcher.run(partial(self.move_part_into_place, version, blob, part))

    def remove(self, version: Version, names: Iterable[str]) -> None:
        """Remove files that an unpublished version should not have, and empty folders; a missing file is no error."""
        for name in names:
            with translate_os_errors(f"cannot remove {name}"), suppress(FileNotFoundError):
                self._resolver.entry(version.name, name).unlink()
            self._resolver.prune(version.name, name)

    def remove_parts(self) -> None:
        """Remove all parts: no transfer needs them any more."""
        with translate_os_errors(f"cannot clean up {self._parts.path}"):
            parts = self._parts.folder()
            for name, _ in parts.scan():
                parts.entry(name).unlink()
        self._resumable_parts.clear()


def _part_name(version: Version, blob: Blob) -> str:
    content = (version.name, blob.name, blob.etag, blob.size, blob.md5, blob.last_modified)
    return hashlib.sha256(repr(content).encode(errors="surrogatepass")).hexdigest()[:32]


class LocalDraft:
    """Draft of a file: bytes are received into a part as they are stored, and unpacked after the last one."""

    def __init__(self, files: LocalFiles, version: Version, blob: Blob, part: Entry, received_bytes: int) -> None:
        self._files = files
        self._version = version
        self._blob = blob
        self._part = part
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

    async def append(self, chunk: bytes) -> None:
        """Write `chunk` at its own offset, so that an interrupted or repeated call leaves a correct part."""
        with translate_os_errors(f"cannot write {self._blob.name}"):
            await run_in_thread(write_at, self._part, self.received_bytes, chunk)
        self.received_bytes += len(chunk)

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
                *await self._files.move_part_into_place_batched(self._version.name, self._blob, self._part),
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
            stamp = await self._files.move_part_into_place_batched(self._version.name, self._blob, unpacked)
        except BlobDamaged:
            return None
        finally:
            unpacked.unlink()
        self._part.unlink()
        return StoredFile(self._blob, writer.sha256, *stamp, UnpackedFile(writer.size, digests.sha256))

    async def suspend(self) -> None:
        """Keep the received bytes in the part, for a later run."""
        if self.received_bytes:
            self._files.keep_part(self._part)
