"""Files that a local destination holds, and the one door from a blob name to a path."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TypeVar

from tilesync.core.safe_names import find_problem, list_parent_folders
from tilesync.errors import UnsafeName
from tilesync.model import FileStamp, StoredFile, Version
from tilesync.protocols import Catalog, PresencePage
from tilesync.runtime.os_errors import to_read_error, translate_read_errors
from tilesync.runtime.safe_open import WrongFileType
from tilesync.stores.local.directory_handles import NOT_FOUND_ERRORS, DirectoryTree, Entry
from tilesync.stores.local.fs import stamp_from_stat

T = TypeVar("T")

VERSIONS_DIR = "versions"

FILES_PER_PRESENCE_PAGE = 256
"""Files of one look: on a slow disk each may take some milliseconds."""

READ_CHUNK_BYTES = 1 << 20
"""Bytes read at a time."""


def _read_chunk_bytes(size: int) -> int:
    """How much of a file is read at a time: the room for a large piece costs more than a small file."""
    return min(READ_CHUNK_BYTES, max(1 << 16, size + 1))


def find_unchanged_stamp(found: os.stat_result | None, stored: StoredFile) -> FileStamp | None:
    """The trace of a file that has the size and mtime with which it was left; None for another one, or none."""
    if found is None or not stat.S_ISREG(found.st_mode):
        return None
    trace = stamp_from_stat(found)
    return trace if (found.st_size, trace.mtime_ns) == (stored.size, stored.mtime_ns) else None


class SafePathResolver:
    """The only way from a blob name to an entry of a folder: below a version's folder, through real folders only.

    The folders of the versions stand below the folder `within` of the root; where that is None all versions share the
    root itself.
    """

    def __init__(self, root: DirectoryTree | Path, *, within: str | None = VERSIONS_DIR) -> None:
        self._tree = root if isinstance(root, DirectoryTree) else DirectoryTree(root)
        self._within = within

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SafePathResolver) and (self._tree, self._within) == (other._tree, other._within)

    def __hash__(self) -> int:
        return hash((self._tree, self._within))

    def entry(self, version: str, name: str, *, make: bool = False) -> Entry:
        """Where a file of a version lies, or is to lie; its folders are made when `make`.

        Raises UnsafeName for a name that no folder can hold safely, WrongFileType when a symlink or a file stands
        where a folder is needed, FileNotFoundError where none does, OSError.
        """
        if why := find_problem(name, windows=os.name == "nt"):
            raise UnsafeName(f"{name!r} {why}")
        folder, _, leaf = name.rpartition("/")
        return self._tree.folder(self._path(version, folder), make=make).entry(leaf)

    def _path(self, version: str, folder: str = "") -> str:
        return folder if self._within is None else f"{self._within}/{version}/{folder}".rstrip("/")

    def prune(self, version: str, name: str) -> None:
        """Remove the folders of a name that hold nothing any more."""
        for folder in reversed(list_parent_folders(name)):
            above, _, leaf = folder.rpartition("/")
            with contextlib.suppress(OSError):  # not empty, or not there: both are fine
                self._tree.folder(self._path(version, above)).remove_empty(leaf)

    def names(self, version: str) -> Iterator[str]:
        """What lies in the folder of a version, by names as blobs have them; symlinks are not followed."""
        with translate_read_errors(f"cannot look at version {version} in {self._tree.path}"):
            folder = self._tree.find(self._path(version))
            yield from (name for name, _ in folder.walk()) if folder is not None else ()

    def walk(self, version: str, folder: str) -> Iterator[tuple[str, Entry]]:
        """What lies in a folder of a version, by names as blobs have them. Raises OSError."""
        inside = self._tree.folder(self._path(version, folder))
        return ((f"{folder}/{each}", entry) for each, entry in inside.walk())

    def remove_version(self, version: str) -> None:
        """Remove the folder of a version with all that is left there. Raises OSError."""
        if self._within is not None and self._tree.find_stat(self._path(version)) is not None:
            self._tree.folder(self._within).remove(version)


class LocalStoredFiles:
    """Reading: the files of the versions of a destination, as they lie there now.

    A file that is not behind the first door is looked for behind the next one; where versions share a place like that,
    a file of another inode is another file.
    """

    is_picklable = True
    parallel_reads = 1

    def __init__(self, resolver: SafePathResolver, *fallbacks: SafePathResolver) -> None:
        self._resolver = resolver
        self._fallback_resolvers = fallbacks

    def find(self, version: str, name: str) -> tuple[Entry, os.stat_result] | None:
        """Where a file of a version lies, and what stands there; None where nothing does.

        Raises UnsafeName, WrongFileType where a symlink or a file stands in place of a folder, OSError.
        """
        return self._try_resolvers(version, name, lambda entry: (entry, entry.stat()))

    def _try_resolvers(self, version: str, name: str, action: Callable[[Entry], T]) -> T | None:
        """What `work` gives for the file behind the first door where it is there. Raises likewise."""
        for door in (self._resolver, *self._fallback_resolvers):
            try:
                return action(door.entry(version, name))
            except NOT_FOUND_ERRORS:
                continue
            except WrongFileType as error:  # another version may have a file where this one has a folder
                if error.needed == "file" or not self._fallback_resolvers:
                    raise
        return None

    def names(self, version: Version) -> Iterator[str]:
        """What lies in the folder of a version, whether it is known or not."""
        return self._resolver.names(version.name)

    def unchanged(self, version: Version, stored: Sequence[StoredFile]) -> list[bool]:
        """For each, whether size and mtime, and where versions share a place the inode, are as they were left."""
        return [self._is_unchanged(version.name, item) for item in stored]

    def _is_unchanged(self, version: str, stored: StoredFile) -> bool:
        found = find_unchanged_stamp(self._stat(version, stored.blob.name), stored)
        return found is not None and (not self._fallback_resolvers or found.inode == stored.inode)

    def prepare_listing(self, version: Version) -> None:
        """Nothing: a look costs little."""

    def presence_pages(self, version: Version, catalog: Catalog, cursor: str) -> Iterator[PresencePage]:
        """Looks at what the catalog holds, in its order, from behind the key `place` on."""
        more = True
        while more:
            batch = catalog.list_stored(version, cursor, limit=FILES_PER_PRESENCE_PAGE)
            more, held = len(batch) == FILES_PER_PRESENCE_PAGE, [each for _, each in batch]
            cursor = batch[-1][0] if more else ""
            doubtful = [each for each, same in zip(held, self.unchanged(version, held), strict=True) if not same]
            yield PresencePage(len(held), doubtful, cursor)

    def size(self, version: Version, name: str) -> int | None:
        """The size of the file; None when there is no such regular file."""
        found = self._stat_regular(version, name)
        return found.st_size if found is not None else None

    def stamp(self, version: Version, name: str) -> FileStamp | None:
        """The trace of the file; None when there is no such regular file."""
        found = self._stat_regular(version, name)
        return stamp_from_stat(found) if found is not None else None

    def _stat_regular(self, version: Version, name: str) -> os.stat_result | None:
        """What stands there where it is a regular file."""
        found = self._stat(version.name, name)
        return found if found is not None and stat.S_ISREG(found.st_mode) else None

    def _stat(self, version: str, name: str) -> os.stat_result | None:
        """What stands there. Raises Unreadable where that cannot be told, DestinationError for links on the way."""
        try:
            lying = self.find(version, name)
        except OSError as error:
            raise to_read_error(error, f"cannot look at {name}") from error
        return lying[1] if lying is not None else None

    def read_into(self, version: Version, name: str, consume: Callable[[bytes], object]) -> FileStamp | None:
        """Give the bytes of the file, read anew, to `into`; its trace, None when there is no such regular file."""
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
                most = _read_chunk_bytes(os.fstat(file.fileno()).st_size)
                while chunk := file.read(most):
                    consume(chunk)
                return stamp_from_stat(os.fstat(file.fileno()))

    def _open(self, version: Version, name: str) -> IO[bytes]:
        """Raises FileNotFoundError, WrongFileType, OSError."""
        descriptor = self._try_resolvers(version.name, name, Entry.open)
        if descriptor is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return open(descriptor, "rb", buffering=0)

    def digest(self, version: Version, name: str) -> bytes | None:
        """SHA-256 of the file, read anew; None when there is no such regular file."""
        sha256 = hashlib.sha256()
        return None if self.read_into(version, name, sha256.update) is None else sha256.digest()

    def chunks(self, version: Version, name: str, *, offset: int = 0) -> Iterator[bytes]:
        """The bytes of one file from `offset` on, piece by piece."""
        with translate_read_errors(f"cannot read {name}"), self._open(version, name) as file:
            most = _read_chunk_bytes(os.fstat(file.fileno()).st_size)
            file.seek(offset)
            while chunk := file.read(most):
                yield chunk

    def read(self, version: Version, name: str) -> bytes:
        """The bytes of one file."""
        with translate_read_errors(f"cannot read {name}"), self._open(version, name) as file:
            return file.read()
