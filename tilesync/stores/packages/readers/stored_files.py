"""Stored files in a package: the one version that it contains."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING

from tilesync.errors import DestinationError
from tilesync.model import FileStamp, StoredFile, Version
from tilesync.protocols import PresencePage
from tilesync.stores.packages.readers.opening import PackageReference, describe_package, open_package
from tilesync.stores.packages.readers.package import OWN_ENTRIES, Package, PackageEntry, find_file
from tilesync.stores.presence_pages import check_catalog_pages, find_changed_pages

if TYPE_CHECKING:
    from tilesync.catalog.catalog import Catalog

MAX_CACHED_ENTRIES = 1024
"""Entries that are kept after a search: a job asks for the size of a file, then for its bytes."""


class _EntriesAhead:
    """Files of a package in its order, read ahead of a check that asks for them in about this order."""

    def __init__(self, package: Package) -> None:
        self._following = (entry for entry in package.entries() if entry.name not in OWN_ENTRIES)
        self._entries: dict[str, PackageEntry] = {}
        self._lock = Lock()

    def pop(self, name: str) -> PackageEntry | None:
        """Return the entry of a name, once; None if it is not among those that were read ahead."""
        with self._lock:
            if name not in self._entries:
                for entry in islice(self._following, MAX_CACHED_ENTRIES - len(self._entries)):
                    self._entries[entry.name] = entry
            return self._entries.pop(name, None)


class PackageStoredFiles:
    """Read access to the files in a package. A copy for another process opens the package when it is first used."""

    parallel_reads = 1
    changed_pages = find_changed_pages

    def __init__(self, reference: PackageReference, package: Package | None = None) -> None:
        self._reference = reference
        self._package = package
        self._lock = Lock()
        self._entries: dict[str, PackageEntry | None] = {}
        self._ahead: _EntriesAhead | None = None

    def __reduce__(self) -> tuple[type[PackageStoredFiles], tuple[PackageReference]]:
        return PackageStoredFiles, (self._reference,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self._reference == other._reference

    def __hash__(self) -> int:
        return hash(self._reference)

    def _open(self) -> Package:
        with self._lock:
            if self._package is None:
                self._package = open_package(self._reference)
            return self._package

    def _find(self, name: str) -> PackageEntry | None:
        entries = self._entries
        if name in entries:
            return entries[name]
        if len(entries) >= MAX_CACHED_ENTRIES:
            entries = self._entries = {}  # replaced, not cleared: other threads may use the old one
        entry = self._ahead.pop(name) if self._ahead is not None else None
        entries[name] = entry = entry or find_file(self._open(), name)
        return entry

    def _find_existing(self, name: str) -> PackageEntry:
        entry = self._find(name)
        if entry is None:
            error = DestinationError(f"{name} is not in the package {self._reference.path}")
            raise error from FileNotFoundError(name)
        return entry

    def worker_reader(self) -> PackageStoredFiles:
        """Return a picklable reader of these files. It notices if the package is replaced meanwhile."""
        return PackageStoredFiles(describe_package(self._open()))

    def prepare_listing(self, version: Version) -> None:
        """Build the index of the package if it has none, and read ahead from its first entry on."""
        package = self._open()
        package.prepare_search()
        self._ahead = _EntriesAhead(package)

    def size(self, version: Version, name: str) -> int | None:
        """Return the size of a file in bytes; None if the package does not have it."""
        entry = self._find(name)
        return entry.size if entry is not None else None

    def stamp(self, version: Version, name: str) -> FileStamp | None:
        """Return the stamp of the package itself, for a file that it has; None for any other."""
        return self._stamp() if self._find(name) is not None else None

    def _stamp(self) -> FileStamp:
        return FileStamp(self._open().file.stamp.mtime_ns)

    def unchanged(self, version: Version, stored: Sequence[StoredFile]) -> list[bool]:
        """Return for each file whether the package has it with this size, and has not changed."""
        mtime_ns = self._stamp().mtime_ns
        return [file.mtime_ns == mtime_ns and self.size(version, file.blob.name) == file.size for file in stored]

    def presence_pages(self, version: Version, catalog: Catalog, cursor: str) -> Iterator[PresencePage]:
        """Check the files that the catalog lists, page by page, from the key `cursor` on."""
        return check_catalog_pages(version, catalog, cursor, self.unchanged)

    def read_into(self, version: Version, name: str, consume: Callable[[bytes], object]) -> FileStamp | None:
        """Read a file into `consume` and return its stamp; None if there is no such file.

        Raises BlobDamaged if its bytes contradict the package.
        """
        entry = self._find(name)
        if entry is None:
            return None
        for chunk in self._open().read(entry):
            consume(chunk)
        return self._stamp()

    def read_whole(self, version: Version, stored: Sequence[StoredFile]) -> Iterator[None]:
        """Yield None for each: the CRC of an entry is checked chunk by chunk."""
        yield from [None] * len(stored)

    def digest(self, version: Version, name: str) -> bytes | None:
        """Read a file and return its SHA-256; None if there is no such file."""
        sha256 = hashlib.sha256()
        return None if self.read_into(version, name, sha256.update) is None else sha256.digest()

    def chunks(self, version: Version, name: str, *, offset: int = 0) -> Iterator[bytes]:
        """Yield the bytes of a file from `offset` on."""
        yield from self._open().read(self._find_existing(name), offset)

    def read(self, version: Version, name: str) -> bytes:
        """Return the bytes of a file."""
        return b"".join(self.chunks(version, name))

    def close(self) -> None:
        """Close the package. May be called twice."""
        with self._lock:
            package, self._package = self._package, None
        if package is not None:
            package.close()
