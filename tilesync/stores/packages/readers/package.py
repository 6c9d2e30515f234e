"""Package as its readers see it: entries that are found by name, listed in order, and read as bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from tilesync.core.safe_names import find_entry_problem, quote_name
from tilesync.errors import DamagedPackage, DestinationError, ExportReplaced
from tilesync.stores.packages.formats import INDEX_ENTRY, MANIFEST_ENTRY
from tilesync.stores.packages.readers.name_index import NameIndex, build_index_file
from tilesync.stores.packages.readers.package_input import PackageInput, PackageStamp

OWN_ENTRIES = frozenset({MANIFEST_ENTRY, INDEX_ENTRY})
"""Entries of a package that are no files of its version."""


class PackageEntry(NamedTuple):
    """Entry of a package.

    `size`: bytes when it is read. `offset`: where its header begins; in a .3dtiles file its row. `packed_size`: bytes
    in the package. `method`: number of the compression method of a Zip entry. `crc32`: of the unpacked bytes, None in
    formats without one. `data_offset`: where its bytes begin; None if that is not known yet.
    """

    name: str
    size: int
    offset: int
    packed_size: int
    method: int = 0
    crc32: int | None = None
    data_offset: int | None = None


class IndexReference(NamedTuple):
    """Index that was built for a package: where other processes find it while it is open, and its stamp."""

    path: Path
    stamp: PackageStamp


class Package(ABC):
    """An open package. All methods may be called by several threads.

    Entries are found by an index that is built when it is first needed, unless the format has a better way. `index`:
    the one that another process has built. Every method raises DamagedPackage for a structure that is damaged or not
    supported.
    """

    def __init__(self, file: PackageInput, index: IndexReference | None = None) -> None:
        self.file = file
        self._shared_index = index
        self._index_file: PackageInput | None = None
        self._lock = Lock()

    @abstractmethod
    def entries(self) -> Iterator[PackageEntry]:
        """Yield all entries that are files, in the order of the package, with safe names."""

    @abstractmethod
    def read_place(self, place: int) -> PackageEntry | None:
        """Read the entry at a place of the index."""

    @abstractmethod
    def chunks(self, entry: PackageEntry, offset: int = 0) -> Iterator[bytes]:
        """Yield the bytes of an entry from `offset` on.

        Raises BlobDamaged if they contradict the directory: the size, or the CRC-32 if all bytes are read.
        """

    def read(self, entry: PackageEntry, offset: int = 0) -> Iterator[bytes]:
        """Yield the bytes of an entry from `offset` on, the last ones after all checks: a server stops at the last.

        Raises what `chunks` raises, and ExportReplaced if the package changed.
        """
        last = b""
        for chunk in self.chunks(entry, offset):
            if last:
                yield last
            last = chunk
        self.file.check_unchanged()
        if last:
            yield last

    def list_places(self) -> Iterator[tuple[str, int]]:
        """Yield the name of each entry, and the place from which `read_place` reads it."""
        return ((entry.name, entry.offset) for entry in self.entries())

    def first(self) -> PackageEntry | None:
        """Return the first entry that is a file, without a search; None if there is none."""
        return next(self.entries(), None)

    def find(self, name: str) -> PackageEntry | None:
        """Return the entry of a name; None if there is none."""
        found = map(self.read_place, self.search_index().find_offsets(name))
        return next((entry for entry in found if entry is not None and entry.name == name), None)

    def search_index(self) -> NameIndex:
        """Return the index by which `find` searches."""
        return self.build_index()

    def build_index(self) -> NameIndex:
        """Return the index of names and places; build it if there is none, and refuse a name with two entries."""
        with self._lock:
            if self._index_file is None:
                self._index_file = self._open_shared_index() or self._write_index()
            return NameIndex(self._index_file)

    def _write_index(self) -> PackageInput:
        file = build_index_file(self.list_places())
        for _, records in groupby(NameIndex(file).records(), key=itemgetter(0)):
            first, *others = records
            if others:
                self._refuse_equal_names([place for _, place in (first, *others)])
        return file

    def _refuse_equal_names(self, places: Iterable[int]) -> None:
        names = [entry.name for entry in map(self.read_place, places) if entry is not None]
        if len(set(names)) < len(names):
            raise DamagedPackage(
                f"the package {self.file.path} has two entries of one name: {names[0]}",
                hint="make the package again: only one of them can be right",
            )

    def _open_shared_index(self) -> PackageInput | None:
        """Open the index of another process; None if the system does not allow that, or the process closed it."""
        if self._shared_index is not None:
            with suppress(DestinationError, ExportReplaced):
                return PackageInput(*self._shared_index)
        return None

    def describe_index(self) -> IndexReference | None:
        """Return the index that was built, for other processes; None if there is none."""
        return IndexReference(self._index_file.path, self._index_file.stamp) if self._index_file is not None else None

    def prepare_search(self) -> None:
        """Build the index that `find` needs, if the package has none."""
        self.search_index()

    def refuse_bad_structure(self) -> None:
        """Raise DamagedPackage for a name with two entries, and for entries that share bytes."""
        self.build_index()

    def find_index_problems(self) -> Iterator[str]:
        """Yield a sentence for each fault of the package's own index; only a .3tz file has one."""
        return iter(())

    def ignored_names(self) -> Iterator[str]:
        """Yield the names of entries that are neither files nor folders; only a tar file has them."""
        return iter(())

    def close(self) -> None:
        """Close it. May be called twice."""
        self.file.close()
        if self._index_file is not None:
            self._index_file.close()


def find_file(package: Package, name: str) -> PackageEntry | None:
    """Return the entry of a file of the version; None if there is none."""
    return None if name in OWN_ENTRIES or find_entry_problem(name) else package.find(name)


def find_manifest(package: Package) -> PackageEntry | None:
    """Return the entry of the manifest; None in a package that tilesync did not write.

    It is the first entry, so that a package without an index can be listed without building one.
    """
    first = package.first()
    return first if first is not None and first.name == MANIFEST_ENTRY else package.find(MANIFEST_ENTRY)


def check_entry_name(name: str, package: PackageInput) -> str:
    """Return the name of an entry. Raises DamagedPackage if no destination can store it."""
    problem = find_entry_problem(name)
    if problem is not None:
        raise DamagedPackage(
            f"the package {package.path} has an entry whose name is not safe: {quote_name(name)} {problem}",
            hint="make the package again without this entry",
        )
    return name
