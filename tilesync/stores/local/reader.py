"""Reader of a local destination: stored files, and the only way from a blob name to a path."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

from tilesync.core.safe_names import are_all_safe, find_problem, group_by_folder, list_parent_folders
from tilesync.errors import UnsafeName
from tilesync.model import FileStamp, RecordedFile, StoredFile, Version
from tilesync.protocols import MAX_WHOLE_FILE_BYTES, PresencePage, WholeFile
from tilesync.runtime.os_errors import to_read_error, translate_read_errors
from tilesync.runtime.safe_open import BINARY, NO_FOLLOW, NO_WAIT, WrongFileType
from tilesync.stores.base import VERSIONS_DIR
from tilesync.stores.local.directory_handles import NOT_FOUND_ERRORS, DirectoryHandle, DirectoryTree, Entry
from tilesync.stores.local.fs import stamp_from_stat
from tilesync.stores.presence_pages import FILES_PER_CHANGED_PAGE, check_catalog_pages, find_changed_pages

if TYPE_CHECKING:
    from tilesync.catalog.catalog import Catalog

T = TypeVar("T")

READ_CHUNK_BYTES = 1 << 20
"""Bytes read at a time."""


_READ_FLAGS = os.O_RDONLY | NO_FOLLOW | NO_WAIT | BINARY
"""Flags to open a file that may turn out to be no regular one."""


def _read_chunk_bytes(size: int) -> int:
    """Return the bytes to read at a time: allocating a large buffer costs more than reading a small file."""
    return min(READ_CHUNK_BYTES, max(1 << 16, size + 1))


def find_unchanged_stamp(found: os.stat_result | None, stored: StoredFile) -> FileStamp | None:
    """Return the stamp of a file whose size and mtime are as recorded; None for any other file, or none."""
    if found is None or not stat.S_ISREG(found.st_mode):
        return None
    stamp = stamp_from_stat(found)
    return stamp if (found.st_size, stamp.mtime_ns) == (stored.size, stored.mtime_ns) else None


def _blob_name(stored: StoredFile) -> str:
    return stored.blob.name


def _recorded_name(recorded: RecordedFile) -> str:
    return recorded.name


def _has_stamp(name: str, folder: int | None, size: int, mtime_ns: int) -> bool:
    """Return whether a name is a regular file of this size and mtime."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return found.st_mtime_ns == mtime_ns and found.st_size == size and stat.S_ISREG(found.st_mode)


def _read_whole(name: str, size: int, folder: int | None) -> WholeFile | None:
    """Read a regular file of exactly `size` bytes; None for anything else, and if that fails."""
    try:
        descriptor = os.open(name, _READ_FLAGS, dir_fd=folder)
    except OSError:
        return None
    try:
        found = os.fstat(descriptor)
        if found.st_size != size or not stat.S_ISREG(found.st_mode):
            return None
        data = os.read(descriptor, size + 1)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return WholeFile(data, *stamp_from_stat(found)) if len(data) == size else None


class SafePathResolver:
    """Resolver of blob names to entries below a version's folder, without symlinks. No other code makes such paths.

    The versions' folders are below the folder `within` of the root. None: all versions share the root itself.
    """

    def __init__(self, root: DirectoryTree | Path, *, within: str | None = VERSIONS_DIR) -> None:
        self._tree = root if isinstance(root, DirectoryTree) else DirectoryTree(root)
        self._within = within

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SafePathResolver) and (self._tree, self._within) == (other._tree, other._within)

    def __hash__(self) -> int:
        return hash((self._tree, self._within))

    def entry(self, version: str, name: str, *, make: bool = False) -> Entry:
        """Return the entry of a version's file, whether it exists or not; create its folders if `make`.

        Raises UnsafeName for a name that no folder can store safely, WrongFileType if a symlink or a file is where a
        folder is needed, FileNotFoundError if a folder is missing, OSError.
        """
        if why := find_problem(name, windows=os.name == "nt"):
            raise UnsafeName(f"{name!r} {why}")
        folder, _, leaf = name.rpartition("/")
        return self._tree.folder(self._path(version, folder), make=make).entry(leaf)

    def folder(self, version: str, path: str, *, make: bool = False) -> DirectoryHandle:
        """Open a folder of a version, whose path must be safe. Raises as `entry` does, but for UnsafeName."""
        return self._tree.folder(self._path(version, path), make=make)

    def scan_folder(self, version: str, path: str) -> set[str]:
        """List the names in a folder of a version; none if it does not exist. Raises WrongFileType, OSError."""
        folder = self._tree.find(self._path(version, path))
        return set() if folder is None else {name for name, _ in folder.scan()}

    def _path(self, version: str, folder: str = "") -> str:
        return folder if self._within is None else f"{self._within}/{version}/{folder}".rstrip("/")

    def prune(self, version: str, name: str) -> None:
        """Remove the folders of a name that are empty now."""
        for folder in reversed(list_parent_folders(name)):
            parent, _, leaf = folder.rpartition("/")
            with contextlib.suppress(OSError):  # not empty, or missing: both are fine
                self._tree.folder(self._path(version, parent)).remove_empty(leaf)

    def names(self, version: str) -> Iterator[str]:
        """List the files in a version's folder, as blob names; symlinks are not followed."""
        with translate_read_errors(f"cannot inspect version {version} in {self._tree.path}"):
            folder = self._tree.find(self._path(version))
            yield from (name for name, _ in folder.walk()) if folder is not None else ()

    def walk(self, version: str, folder: str) -> Iterator[tuple[str, Entry]]:
        """Iterate over the files in one folder of a version, as blob names. Raises OSError."""
        handle = self._tree.folder(self._path(version, folder))
        return ((f"{folder}/{name}", entry) for name, entry in handle.walk())

    def remove_version(self, version: str) -> None:
        """Remove the folder of a version and everything in it. Raises OSError."""
        if self._within is not None and self._tree.find_stat(self._path(version)) is not None:
            self._tree.folder(self._within).remove(version)


class BatchPathResolver(SafePathResolver):
    """Resolver for files that are written within seconds: each of their folders is opened, and checked, once.

    If a folder is moved meanwhile, its files go with it; the check of all files before publishing finds that.
    """

    def __init__(self, resolver: SafePathResolver) -> None:
        super().__init__(resolver._tree, within=resolver._within)
        self._folders: dict[tuple[str, str], DirectoryHandle] = {}

    def entry(self, version: str, name: str, *, make: bool = False) -> Entry:
        """Return the entry of a version's file, as any resolver does."""
        parent, _, leaf = name.rpartition("/")
        folder = self._folders.get((version, parent))
        if folder is None or find_problem(name, windows=os.name == "nt"):
            entry = super().entry(version, name, make=make)
            self._folders[version, parent] = entry.folder
            return entry
        return Entry(folder, leaf)


class LocalStoredFiles:
    """The stored files of all versions, read from disk each time.

    A file that the first resolver does not find is looked up with the next one. With several resolvers versions share
    one place, and a file with another inode is another file.
    """

    parallel_reads = 1

    def __init__(self, resolver: SafePathResolver, *fallbacks: SafePathResolver) -> None:
        self._resolver = resolver
        self._fallback_resolvers = fallbacks

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[object, ...]:
        return (type(self), self._resolver, *self._fallback_resolvers)

    def find(self, version: str, name: str) -> tuple[Entry, os.stat_result] | None:
        """Find a version's file; return its entry and its stat result, None if it does not exist.

        Raises UnsafeName, WrongFileType if a symlink or a file is where a folder is needed, OSError.
        """
        return self._try_resolvers(version, name, lambda entry: (entry, entry.stat()))

    def _try_resolvers(self, version: str, name: str, action: Callable[[Entry], T]) -> T | None:
        """Return the result of `action` from the first resolver that finds the file, or None. Raises as `find` does."""
        for resolver in (self._resolver, *self._fallback_resolvers):
            try:
                return action(resolver.entry(version, name))
            except NOT_FOUND_ERRORS:
                continue
            except WrongFileType as error:  # in a shared place another version may have a file where this has a folder
                if error.needed == "file" or not self._fallback_resolvers:
                    raise
        return None

    def worker_reader(self) -> LocalStoredFiles:
        """Return a picklable reader of these files."""
        return LocalStoredFiles(self._resolver, *self._fallback_resolvers)

    def names(self, version: Version) -> Iterator[str]:
        """List the files in a version's folder, known to the catalog or not."""
        return self._resolver.names(version.name)

    def unchanged(self, version: Version, stored: Sequence[StoredFile]) -> list[bool]:
        """Return for each file whether size and mtime are as recorded; the inode too if versions share one place.

        Where each version has its own folder, each folder in it is looked up once for all of its files. Files that seem
        changed are looked at again, one by one.
        """
        if self._fallback_resolvers or not are_all_safe([item.blob.name for item in stored]):
            return [self._is_unchanged(version.name, item) for item in stored]
        return [
            is_same or self._is_unchanged(version.name, item)
            for folder, inside in group_by_folder(stored, _blob_name)
            for item, is_same in self._compare_folder(version.name, folder, inside)
        ]

    def _compare_folder(
        self, version: str, folder: str, inside: Iterable[tuple[str, StoredFile]]
    ) -> Iterator[tuple[StoredFile, bool]]:
        """Yield each file of one folder, and whether it certainly is as recorded."""
        handle = self._find_folder(version, folder)
        for name, item in inside:
            if handle is None:
                yield item, False
                continue
            blob, _, mtime_ns, _, unpacked = item
            size = blob.size if unpacked is None else unpacked.size
            yield item, _has_stamp(name, handle.fd, size, mtime_ns)

    def _find_folder(self, version: str, folder: str) -> DirectoryHandle | None:
        """Open a folder of a version; None where it cannot be opened, or where the system has no descriptors of it."""
        with contextlib.suppress(OSError):
            handle = self._resolver.folder(version, folder)
            return handle if handle.fd is not None else None
        return None

    def _is_unchanged(self, version: str, stored: StoredFile) -> bool:
        found = find_unchanged_stamp(self._stat(version, stored.blob.name), stored)
        return found is not None and (not self._fallback_resolvers or found.inode == stored.inode)

    def read_whole(self, version: Version, stored: Sequence[StoredFile]) -> Iterator[WholeFile | None]:
        """Yield each file with one read, None for those that need `read_into`.

        Each folder is looked up once for all of its files, and a file is opened, inspected, read and closed by four
        calls of the system. The stamp is that before the read, so it can never hide a later change.
        """
        if self._fallback_resolvers or not are_all_safe([item.blob.name for item in stored]):
            yield from [None] * len(stored)
            return
        for folder, inside in group_by_folder(stored, _blob_name):
            handle = self._find_folder(version.name, folder)
            for name, item in inside:
                if handle is None or item.size > MAX_WHOLE_FILE_BYTES:
                    yield None
                else:
                    yield _read_whole(name, item.size, handle.fd)

    def prepare_listing(self, version: Version) -> None:
        """Do nothing: a stat of a local file is cheap."""

    def changed_pages(self, version: Version, catalog: Catalog) -> Iterator[list[StoredFile]]:
        """Check all files that the catalog lists; yield those that differ, page by page.

        Where each version has its own folder, only size and mtime are read of each file: everything else that the
        catalog knows is read of those that seem changed, which are looked at again.
        """
        if self._fallback_resolvers:
            yield from find_changed_pages(self, version, catalog)
            return
        after = ""
        while batch := catalog.unchanged.list_stamps(version, after, limit=FILES_PER_CHANGED_PAGE):
            after, names = batch[-1][0], list(self._find_suspects(version.name, [each for _, each in batch]))
            suspects = [*catalog.find_stored(version, names).values()] if names else []
            is_same = self.unchanged(version, suspects)
            yield [each for each, same in zip(suspects, is_same, strict=True) if not same]

    def _find_suspects(self, version: str, recorded: Sequence[RecordedFile]) -> Iterator[str]:
        """Yield the names of the files that are not certainly as recorded."""
        if not are_all_safe([each.name for each in recorded]):
            yield from (each.name for each in recorded)
            return
        for folder, inside in group_by_folder(recorded, _recorded_name):
            handle = self._find_folder(version, folder)
            for name, (full_name, size, mtime_ns) in inside:
                if handle is None or not _has_stamp(name, handle.fd, size, mtime_ns):
                    yield full_name

    def presence_pages(self, version: Version, catalog: Catalog, cursor: str) -> Iterator[PresencePage]:
        """Check the files that the catalog lists, page by page, from the key `cursor` on."""
        return check_catalog_pages(version, catalog, cursor, self.unchanged)

    def size(self, version: Version, name: str) -> int | None:
        """Return the size of the file in bytes; None if it is not a regular file."""
        stat_result = self._stat_regular(version, name)
        return stat_result.st_size if stat_result is not None else None

    def stamp(self, version: Version, name: str) -> FileStamp | None:
        """Return the stamp of the file; None if it is not a regular file."""
        stat_result = self._stat_regular(version, name)
        return stamp_from_stat(stat_result) if stat_result is not None else None

    def _stat_regular(self, version: Version, name: str) -> os.stat_result | None:
        """Stat the file; None if it is not a regular file."""
        stat_result = self._stat(version.name, name)
        return stat_result if stat_result is not None and stat.S_ISREG(stat_result.st_mode) else None

    def _stat(self, version: str, name: str) -> os.stat_result | None:
        """Stat the file; None if it does not exist. Raises Unreadable, DestinationError for symlinks on the path."""
        try:
            found = self.find(version, name)
        except OSError as error:
            raise to_read_error(error, f"cannot inspect {name}") from error
        return found[1] if found is not None else None

    def read_into(self, version: Version, name: str, consume: Callable[[bytes], object]) -> FileStamp | None:
        """Read the file in chunks into `consume` and return its stamp; None if it is not a regular file."""
        with translate_read_errors(f"cannot read {name}"):
            try:
                file = self._open(version, name)
            except FileNotFoundError:
                return None
            except WrongFileType as error:
                if error.needed == "file":
                    return None
                raise
            with file:
                chunk_bytes = _read_chunk_bytes(os.fstat(file.fileno()).st_size)
                while chunk := file.read(chunk_bytes):
                    consume(chunk)
                return stamp_from_stat(os.fstat(file.fileno()))

    def _open(self, version: Version, name: str) -> IO[bytes]:
        """Raises FileNotFoundError, WrongFileType, OSError."""
        descriptor = self._try_resolvers(version.name, name, Entry.open)
        if descriptor is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return open(descriptor, "rb", buffering=0)

    def digest(self, version: Version, name: str) -> bytes | None:
        """Read the file and return its SHA-256; None if it is not a regular file."""
        sha256 = hashlib.sha256()
        return None if self.read_into(version, name, sha256.update) is None else sha256.digest()

    def chunks(self, version: Version, name: str, *, offset: int = 0) -> Iterator[bytes]:
        """Read the file in chunks from `offset` on."""
        with translate_read_errors(f"cannot read {name}"), self._open(version, name) as file:
            chunk_bytes = _read_chunk_bytes(os.fstat(file.fileno()).st_size)
            file.seek(offset)
            while chunk := file.read(chunk_bytes):
                yield chunk

    def read(self, version: Version, name: str) -> bytes:
        """Read the whole file."""
        with translate_read_errors(f"cannot read {name}"), self._open(version, name) as file:
            return file.read()
