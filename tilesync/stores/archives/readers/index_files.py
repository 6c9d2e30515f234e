"""Index of a package that has none: built once in a temporary file, which worker processes read too."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock

from tilesync.errors import DamagedPackage
from tilesync.stores.archives.readers.name_index import NameIndex, build_index_file
from tilesync.stores.archives.readers.package import Package, PackageEntry
from tilesync.stores.archives.readers.package_input import PackageInput


class IndexedPackage(Package):
    """An open package whose entries are found by an index that is built when it is first needed.

    `index_path`: an index that another process has built, and removes.
    """

    def __init__(self, file: PackageInput, *, index_path: Path | None = None) -> None:
        self.file = file
        self.index_path = index_path
        self._is_index_ours = False
        self._index: NameIndex | None = None
        self._index_file: PackageInput | None = None
        self._lock = Lock()

    @abstractmethod
    def list_places(self) -> Iterator[tuple[str, int]]:
        """Yield the name of each entry, and the place from which `read_place` reads it."""

    @abstractmethod
    def read_place(self, place: int) -> PackageEntry | None:
        """Read the entry at a place."""

    def find(self, name: str) -> PackageEntry | None:
        """Return the entry of a name; None if there is none."""
        found = (self.read_place(place) for place in self.search_index().find_offsets(name))
        return next((entry for entry in found if entry is not None and entry.name == name), None)

    def search_index(self) -> NameIndex:
        """Return the index; build it if there is none. Raises DamagedPackage for a name with two entries."""
        with self._lock:
            if self._index is None:
                if self.index_path is None:
                    self.index_path, self._is_index_ours = build_index_file(self.list_places()), True
                self._index_file = PackageInput(self.index_path)
                index = NameIndex(self._index_file, 0, self._index_file.size)
                if self._is_index_ours:
                    self._refuse_duplicates(index)
                self._index = index
            return self._index

    def _refuse_duplicates(self, index: NameIndex) -> None:
        previous, names = b"", list[str]()
        for digest, place in index.records():
            if digest != previous:
                previous, names, last_place = digest, [], place
                continue
            entries = [self.read_place(each) for each in (last_place, place)]
            names = [entry.name for entry in entries if entry is not None]
            if len(set(names)) < len(names):
                raise DamagedPackage(
                    f"the package {self.file.path} has two entries of one name: {names[0]}",
                    hint="make the package again: only one of them can be right",
                )

    def refuse_duplicates(self) -> None:
        """Raise DamagedPackage for a name with two entries."""
        self.search_index()

    def prepare_search(self) -> None:
        """Build the index."""
        self.search_index()

    def close(self) -> None:
        """Close the package, and remove the index that was built. May be called twice."""
        super().close()
        if self._index_file is not None:
            self._index_file.close()
        if self.index_path is not None and self._is_index_ours:
            with suppress(OSError):  # another program removed it
                self.index_path.unlink()
