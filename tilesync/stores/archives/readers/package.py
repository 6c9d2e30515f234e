"""Package as its readers see it: entries that are found by name, listed in order, and read as bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tilesync.core.safe_names import find_universal_problem, quote_name
from tilesync.errors import DamagedPackage
from tilesync.stores.archives.formats import INDEX_ENTRY, MANIFEST_ENTRY
from tilesync.stores.archives.readers.package_input import PackageInput

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


class Package(ABC):
    """An open package. All methods may be called by several threads.

    `file`: its file. `index_path`: the index that was built for it, if any. Every method raises DamagedPackage for a
    structure that is damaged or not supported.
    """

    file: PackageInput
    index_path: Path | None = None

    @abstractmethod
    def find(self, name: str) -> PackageEntry | None:
        """Return the entry of a name; None if there is none."""

    @abstractmethod
    def first(self) -> PackageEntry | None:
        """Return the first entry that is a file, without a search; None if there is none."""

    @abstractmethod
    def entries(self) -> Iterator[PackageEntry]:
        """Yield all entries that are files, in the order of the package, with safe names."""

    @abstractmethod
    def chunks(self, entry: PackageEntry, offset: int = 0) -> Iterator[bytes]:
        """Yield the bytes of an entry from `offset` on.

        Raises BlobDamaged if they contradict the directory: the size, or the CRC-32 if all bytes are read.
        """

    @abstractmethod
    def refuse_duplicates(self) -> None:
        """Raise DamagedPackage for a name with two entries, where the format allows that."""

    @abstractmethod
    def prepare_search(self) -> None:
        """Build the index that `find` needs, if the package has none."""

    def ignored_names(self) -> Iterator[str]:
        """Yield the names of entries that are neither files nor folders; only a tar file has them."""
        return iter(())

    def close(self) -> None:
        """Close it. May be called twice."""
        self.file.close()


def find_file(package: Package, name: str) -> PackageEntry | None:
    """Return the entry of a file of the version; None if there is none."""
    return None if name in OWN_ENTRIES or find_universal_problem(name) else package.find(name)


def find_manifest(package: Package) -> PackageEntry | None:
    """Return the entry of the manifest; None in a package that tilesync did not write.

    It is the first entry, so that a package without an index can be listed without building one.
    """
    first = package.first()
    return first if first is not None and first.name == MANIFEST_ENTRY else package.find(MANIFEST_ENTRY)


def check_entry_name(name: str, package: PackageInput) -> str:
    """Return the name of an entry. Raises DamagedPackage if no destination can store it."""
    problem = find_universal_problem(name) or ("is an absolute path" if name.startswith("/") else None)
    if problem is not None:
        raise DamagedPackage(
            f"the package {package.path} has an entry whose name is not safe: {quote_name(name)} {problem}",
            hint="make the package again without this entry",
        )
    return name
