"""Files on their way into a local destination: drafts, parts and rename."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import get_ident

from tilesync.core.gzip import GZIP_DEFLATE_MAGIC
from tilesync.core.safe_names import are_all_safe, find_problem, raise_if_unsafe
from tilesync.errors import BlobDamaged, DestinationError
from tilesync.model import Blob, Content, Digests, FileStamp, SasUrl, StoredFile, UnpackedFile, Version
from tilesync.runtime.os_errors import to_destination_error, translate_os_errors, translate_read_errors
from tilesync.runtime.threads import THREAD_POOL, run_in_thread
from tilesync.stores.local.directory_handles import DirectoryTree, Entry
from tilesync.stores.local.fs import ThreadBatcher, copy_file, stamp_from_stat, try_hard_link, write_at, write_whole
from tilesync.stores.local.gunzip import GunzipWriter, gunzip_to_file, is_gzip_file, read_chunks
from tilesync.stores.local.reader import READ_CHUNK_BYTES, LocalStoredFiles, SafePathResolver, find_unchanged_stamp

_VERSION_PATH_BYTES = 160
"""Bytes kept for `/versions/<version>/` and the terminator."""


@dataclass(frozen=True, slots=True)
class LocalPutTarget:
    """Where small files are put, each written beside and then renamed. Picklable: other processes put theirs there.

    `unpacks`: a gzip payload lies there unpacked.
    """

    resolver: SafePathResolver
    parts: DirectoryTree
    unpacks: bool = False

    def put(self, version: str, blob: Blob, data: bytes, verify: Callable[[bytes], Digests]) -> StoredFile:
        """Place a file, once `prove` has proven its bytes. Raises what that raises, UnsafeName, DestinationError."""
        return self.put_verified(version, blob, data, verify(data))

    def put_verified(self, version: str, blob: Blob, data: bytes, digests: Digests) -> StoredFile:
        """Place a file whose bytes are proven. Raises UnsafeName, DestinationError."""
        doing = "write"
        try:  # `mapped` would cost a tenth of what a small file takes
            temporary = self.parts.folder().entry(f"whole-{os.getpid()}-{get_ident()}")
            held = (
                self._write_unpacked(temporary, blob, data, digests)
                if self.unpacks and data.startswith(GZIP_DEFLATE_MAGIC)
                else None
            )
            held = held or StoredFile(blob, digests.sha256, *write_whole(temporary, data, blob.last_modified))
            doing = "place"
            temporary.move(self.resolver.entry(version, blob.name, make=True))
        except OSError as error:
            raise to_destination_error(error, f"cannot {doing} {blob.name} in version {version}") from error
        return held

    def _write_unpacked(self, temporary: Entry, blob: Blob, data: bytes, digests: Digests) -> StoredFile | None:
        """The file, unpacked; None where the payload is broken: since it is proven, the container holds it so."""
        try:
            trace, size, sha256 = gunzip_to_file([data], temporary, blob.last_modified)
        except BlobDamaged:
            return None
        return StoredFile(blob, sha256, *trace, UnpackedFile(size, digests.sha256))


class LocalFiles(LocalStoredFiles):
    """Reading and writing: files come in behind the first door. `judge` refuses names that cannot be held."""

    is_picklable = False
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

    def reader(self) -> LocalStoredFiles:
        """What reads these files, and can be pickled."""
        return LocalStoredFiles(self._resolver, *self._fallback_resolvers)

    def put_target(self, version: Version) -> LocalPutTarget:
        """Where small files of a version are put."""
        return self._unpacking_target if version.content is Content.DECODED else self._put_target

    def free_bytes(self) -> int:
        """Bytes of room left for this user."""
        with translate_os_errors(f"cannot look at {self._parts.path}"):
            return shutil.disk_usage(self._parts.path).free

    def has_part(self, version: Version, blob: Blob) -> bool:
        """Whether an earlier run, or an earlier draft, left a part of this very content."""
        return bool(self._resumable_parts) and _part_name(version, blob) in self._resumable_parts

    def draft(self, version: Version, blob: Blob) -> LocalDraft:
        """A draft; its part is keyed by name and ETag, so a stale one is never continued."""
        part = _part_name(version, blob)
        known = blob.etag or blob.md5 is not None or blob.sha256 is not None
        held = self._part_size(part) if known and part in self._resumable_parts else 0
        with translate_os_errors(f"cannot use {self._parts.path}"):
            return LocalDraft(self, version, blob, self._parts.folder().entry(part), held)

    def _part_size(self, part: str) -> int:
        """Bytes of a part that an earlier draft left; of one that has another name elsewhere none count."""
        self._resumable_parts.discard(part)
        try:
            found = self._parts.folder().entry(part).stat()
        except OSError:
            return 0
        return found.st_size if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 else 0

    def keep_part(self, part: Entry) -> None:
        """Another draft of the same content may go on with this part."""
        self._resumable_parts.add(part.name)

    async def put(self, version: Version, blob: Blob, data: bytes, verify: Callable[[bytes], Digests]) -> StoredFile:
        """Place a small file, together with others."""
        return await self._batcher.run(partial(self.put_target(version).put, version.name, blob, data, verify))

    def move_part_into_place(self, version: str, blob: Blob, part: Entry) -> FileStamp:
        """Rename a finished part to its final name, with the blob's Last-Modified. Returns its trace."""
        with translate_os_errors(f"cannot place {blob.name} in version {version}"):
            if blob.last_modified is not None:
                part.set_mtime(blob.last_modified)
            final = self._resolver.entry(version, blob.name, make=True)
            part.move(final)
            return stamp_from_stat(final.stat())

    async def copy_from_source(
        self, version: Version, blob: Blob, url: SasUrl, head: bytes
    ) -> tuple[StoredFile | None, str]:
        """A folder takes nothing by itself."""
        return None, "a folder cannot"

    def transfer_slots(self, blob: Blob) -> int:
        """One: what comes goes to the disk."""
        return 1

    def find_present(self, version: Version, blobs: Sequence[Blob]) -> set[str]:
        """The names of those with an MD5 of which a file of that size lies in the version; of an unpacked one nothing
        tells.
        """
        there = {b.name for b in blobs if b.md5 is not None and self.size(version, b.name) == b.size}
        if version.content is Content.DECODED:
            there = {name for name in there if not self._is_gzip(version, name)}
        return there

    def _is_gzip(self, version: Version, name: str) -> bool:
        with translate_read_errors(f"cannot read {name}"):
            lying = self.find(version.name, name)
            return lying is not None and is_gzip_file(lying[0])

    def share(self, version: Version, requests: Sequence[tuple[Blob, Version, StoredFile]]) -> list[StoredFile | None]:
        """Place, as each blob, the file that another version holds: a hard link, or a copy where none can be made; one
        that is to be unpacked here is unpacked from there.

        None where that file is no longer what was left there, or cannot be reached: what stands in the way here is met
        by the fetch again. One that was moved here with the whole destination has another inode than it had: it counts
        when its bytes do.
        """
        return [self._try_share(version, *wish) for wish in requests]

    def _try_share(self, version: Version, blob: Blob, other: Version, stored: StoredFile) -> StoredFile | None:
        with suppress(DestinationError):
            return self._share(version, blob, other, stored)
        return None

    def _share(self, version: Version, blob: Blob, other: Version, stored: StoredFile) -> StoredFile | None:
        with translate_os_errors(f"cannot share {stored.blob.name} of version {other.name}"):
            lying = self.find(other.name, stored.blob.name)
            found = find_unchanged_stamp(lying[1], stored) if lying is not None else None
            if lying is None or found is None:
                return None
            if found.inode != stored.inode and self.digest(other, stored.blob.name) != stored.sha256:
                return None
            source = lying[0]
            if version.content is not other.content:
                if version.content is Content.STORED and stored.unpacked is not None:
                    return None
                if version.content is Content.DECODED and is_gzip_file(source):
                    return self._unpack(version, blob, source, stored)
            same = StoredFile(blob, stored.sha256, *found, stored.unpacked)
            there = self.find(version.name, blob.name) if self._fallback_resolvers else None
            if there is not None and there[0].path == source.path:
                return same
            final = self._resolver.entry(version.name, blob.name, make=True)
            if source.path == final.path:
                return same
            temporary = self._temporary()
            with suppress(FileExistsError):
                if try_hard_link(source, final):
                    if find_unchanged_stamp(final.find_stat(), stored) == found:
                        return same
                    final.unlink()
                    return None
            temporary.unlink()
            if try_hard_link(source, temporary):
                if find_unchanged_stamp(temporary.find_stat(), stored) != found:
                    return None
                temporary.move(final)
                temporary.unlink()  # still there when it replaced itself
                return same
            if copy_file(source, temporary) != stored.sha256:
                return None
            return StoredFile(
                blob, stored.sha256, *self.move_part_into_place(version.name, blob, temporary), stored.unpacked
            )

    def _unpack(self, version: Version, blob: Blob, source: Entry, original: StoredFile) -> StoredFile | None:
        """Place, unpacked, what another version holds as it is stored; None where that is not what was left there."""
        stored, temporary = hashlib.sha256(), self._temporary()

        def read() -> Iterator[bytes]:
            for piece in read_chunks(source):
                stored.update(piece)
                yield piece

        try:
            _, size, sha256 = gunzip_to_file(read(), temporary, blob.last_modified)
        except BlobDamaged:
            return None
        if stored.digest() != original.sha256:
            temporary.unlink()
            return None
        return StoredFile(
            blob, sha256, *self.move_part_into_place(version.name, blob, temporary), UnpackedFile(size, original.sha256)
        )

    def _temporary(self) -> Entry:
        """A name for what is shared, in the parts; another thread has another one."""
        return self._parts.folder().entry(f"shared-{get_ident()}")

    async def move_part_into_place_batched(self, version: str, blob: Blob, part: Entry) -> FileStamp:
        """Place a finished part, together with others."""
        return await self._batcher.run(partial(self.move_part_into_place, version, blob, part))

    def remove(self, version: Version, names: Iterable[str]) -> None:
        """Remove files that an unpublished version should not have, and folders left empty; missing is no error."""
        for name in names:
            with translate_os_errors(f"cannot remove {name}"), suppress(FileNotFoundError):
                self._resolver.entry(version.name, name).unlink()
            self._resolver.prune(version.name, name)

    def remove_parts(self) -> None:
        """Remove the parts that no transfer waits for any more."""
        with translate_os_errors(f"cannot tidy {self._parts.path}"):
            parts = self._parts.folder()
            for name, _ in parts.scan():
                parts.entry(name).unlink()
        self._resumable_parts.clear()


def _part_name(version: Version, blob: Blob) -> str:
    content = (version.name, blob.name, blob.etag, blob.size, blob.md5, blob.last_modified)
    return hashlib.sha256(repr(content).encode(errors="surrogatepass")).hexdigest()[:32]


class LocalDraft:
    """A blob on its way to a file, in a part, which holds what is stored; it is unpacked when it is whole."""

    def __init__(self, files: LocalFiles, version: Version, blob: Blob, part: Entry, received_bytes: int) -> None:
        self._files = files
        self._version = version
        self._blob = blob
        self._part = part
        self.received_bytes = received_bytes

    async def received_chunks(self) -> AsyncIterator[bytes]:
        """The held bytes, for the checks of a resumed transfer."""
        import aiofiles

        left = self.received_bytes
        if not left:
            return
        with translate_os_errors(f"cannot read the part of {self._blob.name}"):
            async with aiofiles.open(self._part.open(), "rb", executor=THREAD_POOL.get()) as file:
                while left and (chunk := await file.read(min(left, READ_CHUNK_BYTES))):
                    left -= len(chunk)
                    yield chunk

    async def append(self, chunk: bytes) -> None:
        """Add `chunk` at its own offset: cut off half-way or done again, the part is right as far as it goes."""
        with translate_os_errors(f"cannot write {self._blob.name}"):
            await run_in_thread(write_at, self._part, self.received_bytes, chunk)
        self.received_bytes += len(chunk)

    async def restart(self) -> None:
        """Forget the held bytes."""
        if self.received_bytes:
            with translate_os_errors(f"cannot remove the part of {self._blob.name}"):
                self._part.unlink()
        self.received_bytes = 0

    async def commit(self, digests: Digests) -> StoredFile:
        """Place the whole file under its final name."""
        if not self.received_bytes:
            await self.append(b"")
        with translate_os_errors(f"cannot read the part of {self._blob.name}"):
            packed = self._version.content is Content.DECODED and await run_in_thread(is_gzip_file, self._part)
        held = await self._unpack(digests) if packed else None
        if held is None:
            held = StoredFile(
                self._blob,
                digests.sha256,
                *await self._files.move_part_into_place_batched(self._version.name, self._blob, self._part),
            )
        self.received_bytes = 0
        return held

    async def _unpack(self, digests: Digests) -> StoredFile | None:
        """Place what the part holds, unpacked; the part stays until that is done, however it is interrupted. None where
        the payload is broken: since it is proven, the container holds it so.
        """
        beside = self._part.folder.entry(f"{self._part.name}-unpacked")
        try:
            with translate_os_errors(f"cannot unpack {self._blob.name}"):
                unpacking = GunzipWriter(read_chunks(self._part), beside)
                try:
                    while await run_in_thread(unpacking.write_next):
                        pass
                finally:
                    unpacking.close()
            trace = await self._files.move_part_into_place_batched(self._version.name, self._blob, beside)
        except BlobDamaged:
            return None
        finally:
            beside.unlink()
        self._part.unlink()
        return StoredFile(self._blob, unpacking.sha256, *trace, UnpackedFile(unpacking.size, digests.sha256))

    async def suspend(self) -> None:
        """Keep what has arrived in the part, for a later run."""
        if self.received_bytes:
            self._files.keep_part(self._part)


def check_file_names(names: Iterable[str], *, path_bytes: int, reserved: str = "") -> None:
    """Raise UnsafeName, naming the offenders, when any of the names cannot be held in a folder. `ours`: the name of a
    folder there that is not for them.
    """
    windows, names = os.name == "nt", list(names)
    if not reserved and not windows and are_all_safe(names, path_bytes=path_bytes):
        return
    bad = [
        (name, why)
        for name in names
        if (
            why := find_problem(name, path_bytes=path_bytes, windows=windows, reserved=reserved)
            or _encoding_problem(name)
        )
    ]
    raise_if_unsafe(bad, "a folder cannot hold safely", elsewhere="; an object store can hold more names")


def _encoding_problem(name: str) -> str | None:
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return "cannot be written in this locale (try LC_ALL=C.UTF-8)"
    return None


def max_name_bytes(root: Path) -> int:
    """Bytes that a blob name may have below `root`: what the system's longest path leaves; 0 when it has none."""
    if not hasattr(os, "pathconf"):
        return 0
    there = next(folder for folder in (root, *root.parents) if folder.is_dir())
    with translate_os_errors(f"cannot look at {there}"):
        return max(1, os.pathconf(there, "PC_PATH_MAX") - len(os.fsencode(root)) - _VERSION_PATH_BYTES)


def is_case_insensitive(folder: DirectoryTree) -> bool:
    """Whether the disk takes names that differ only in case for the same."""
    with translate_os_errors(f"cannot write to {folder.path}"):
        probe = folder.folder().entry("case-Probe")
        os.close(probe.create())
        folds = folder.folder().entry("CASE-pROBE").find_stat() is not None
        probe.unlink()
    return folds
