"""Writer of a local destination: small files at once, large ones by drafts; reuse by hard link."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from operator import attrgetter
from threading import get_ident
from typing import TYPE_CHECKING

from tilesync.core.safe_names import are_all_safe, find_problem, group_by_folder
from tilesync.errors import BlobDamaged, DestinationError
from tilesync.model import Blob, Content, Digests, FileStamp, SasUrl, StoredFile, UnchangedFile, UnpackedFile, Version
from tilesync.runtime.os_errors import translate_os_errors, translate_read_errors
from tilesync.stores.local.directory_handles import DirectoryTree, Entry
from tilesync.stores.local.draft import LocalDraft
from tilesync.stores.local.fs import ThreadBatcher, copy_file, stamp_from_stat, try_hard_link
from tilesync.stores.local.gunzip import gunzip_to_file, is_gzip_file, read_chunks
from tilesync.stores.local.put_target import LocalPutTarget
from tilesync.stores.local.reader import LocalStoredFiles, SafePathResolver, find_unchanged_stamp

if TYPE_CHECKING:
    from tilesync.stores.worker_target import FindWorkerTarget


_file_name: Callable[[UnchangedFile], str] = attrgetter("name")


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
        self._batcher = ThreadBatcher()
        with translate_os_errors(f"cannot use {parts.path}"):
            leftover = parts.folder().scan()
            self._resumable_parts = {name for name, _ in leftover} if trust_parts else set()
        self.check_names = check_names

    def put_target(self, version: Version) -> LocalPutTarget:
        """Return the target for small files of a version."""
        unpacks = version.content is Content.DECODED
        return replace(self._put_target, unpacks=unpacks, is_published=version.is_published)

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
            return LocalDraft(
                version,
                blob,
                self._parts.folder().entry(part),
                received_bytes,
                move_into_place=self._move_part_into_place_batched,
                keep_part=self._keep_part,
            )

    def _part_size(self, part: str) -> int:
        """Return the bytes of a part that an earlier draft left; 0 if it has a second hard link."""
        self._resumable_parts.discard(part)
        try:
            stat_result = self._parts.folder().entry(part).stat()
        except OSError:
            return 0
        return stat_result.st_size if stat.S_ISREG(stat_result.st_mode) and stat_result.st_nlink == 1 else 0

    def _keep_part(self, part: Entry) -> None:
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

    def link_unchanged(self, version: Version, earlier: Version, files: Sequence[UnchangedFile]) -> list[UnchangedFile]:
        """Link unchanged files of the version `earlier`, folder by folder; in the flat layout they are in place.

        Each folder is looked up once for all its files, and each file takes two system calls: the link, and a stat of
        the result. What cannot be linked, or is not the recorded file, is left to `share`, which can copy or unpack.
        """
        if not are_all_safe([each.name for each in files]):
            files = [each for each in files if find_problem(each.name) is None]
        if self._fallback_resolvers:
            names = version.name, earlier.name
            return list(_find_in_place(self._resolver, self._fallback_resolvers[-1], names, files))
        return _link_files(self._resolver, version.name, earlier.name, files)

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

    async def _move_part_into_place_batched(self, version: str, blob: Blob, part: Entry) -> FileStamp:
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


def _link_files(
    resolver: SafePathResolver, version: str, earlier: str, files: Sequence[UnchangedFile]
) -> list[UnchangedFile]:
    """Link files of the version `earlier` into another one; return those that are in place now.

    An existing file of the version is kept if it is the recorded one, as after a kill. No other file is left in place.
    One thread: a second one takes the interpreter lock from the catalog, which records files meanwhile.
    """
    return [
        each
        for folder, inside in group_by_folder(files, _file_name)
        for each in _link_folder(resolver, version, earlier, folder, inside)
    ]


def _find_in_place(
    staged: SafePathResolver, shared: SafePathResolver, versions: Iterable[str], files: Sequence[UnchangedFile]
) -> Iterator[UnchangedFile]:
    """Yield the files that lie as recorded in the place that all versions share.

    A file that one of these versions has staged, which comes first, is left out.
    """
    for folder, inside in group_by_folder(files, _file_name):
        with suppress(OSError):
            staged_names = set[str]().union(*(staged.scan_folder(version, folder) for version in versions))
            place = shared.folder("", folder)
            for name, each in inside:
                if place.fd is not None and name not in staged_names and _is_recorded(place.fd, name, each):
                    yield each


def _link_folder(
    resolver: SafePathResolver, version: str, earlier: str, folder: str, inside: Iterable[tuple[str, UnchangedFile]]
) -> Iterator[UnchangedFile]:
    with suppress(OSError):
        source, target = resolver.folder(earlier, folder), resolver.folder(version, folder, make=True)
        if source.fd is not None and target.fd is not None:
            for name, each in inside:
                if _link(source.fd, target.fd, name, each):
                    yield each


def _link(source: int, target: int, name: str, recorded: UnchangedFile) -> bool:
    """Link one file from folder to folder; return whether the file in place is the recorded one."""
    is_new = True
    try:
        os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except FileExistsError:
        is_new = False
    except (OSError, NotImplementedError):
        return False
    if _is_recorded(target, name, recorded):
        return True
    if is_new:
        os.unlink(name, dir_fd=target)
    return False


def _is_recorded(folder: int, name: str, recorded: UnchangedFile) -> bool:
    """Return whether a file is the recorded one. Raises OSError if there is none."""
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    return (
        found.st_ino == recorded.inode
        and found.st_mtime_ns == recorded.mtime_ns
        and found.st_size == recorded.size
        and stat.S_ISREG(found.st_mode)
    )
