"""Audit of a package beyond its files: what it has besides them, and whether other readers can find them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice

from tilesync.errors import DamagedPackage
from tilesync.events import Finding
from tilesync.stores.archives.formats import ArchiveFormat, find_format
from tilesync.stores.archives.readers.name_index import NameIndex, build_index_file
from tilesync.stores.archives.readers.package import OWN_ENTRIES, Package
from tilesync.stores.archives.readers.package_input import PackageInput
from tilesync.stores.archives.readers.publication import ArchivePublication
from tilesync.stores.archives.readers.structure import find_index_problems, refuse_bad_structure
from tilesync.stores.archives.readers.zip_package import ZipPackage
from tilesync.stores.archives.zip_records import index_sort_key

MAX_FINDINGS = 100
"""Findings of one kind: an index that is wrong misses all files."""

PACKAGE_PROBLEM = "package"
UNLISTED_PROBLEM = "unlisted"


class PackageAudit:
    """Audit of one package. Nothing is unpacked; memory stays flat for any number of entries."""

    def __init__(self, package: Package, publication: ArchivePublication) -> None:
        self._package = package
        self._publication = publication

    def find_problems(self, version: str) -> Iterator[Finding]:
        """Yield the findings about a version's package."""
        path = self._package.file.path
        try:
            refuse_bad_structure(self._package)
            if isinstance(self._package, ZipPackage) and find_format(path.name) is ArchiveFormat.TZ3:
                for problem in islice(find_index_problems(self._package), MAX_FINDINGS):
                    yield Finding(path.name, PACKAGE_PROBLEM, problem, version=version)
            if not self._publication.is_foreign:
                for name in islice(self._package.ignored_names(), MAX_FINDINGS):
                    yield Finding(
                        name, UNLISTED_PROBLEM, "is a link or a device, which no version has", version=version
                    )
            for name in self._find_unlisted(version):
                yield Finding(name, UNLISTED_PROBLEM, "is in the package, but not in its manifest", version=version)
        except DamagedPackage as error:
            yield Finding(path.name, PACKAGE_PROBLEM, str(error), version=version)

    def _find_unlisted(self, version: str) -> Iterator[str]:
        """Yield names of entries that the manifest does not list: both are sorted by their hashes, and compared."""
        if self._publication.is_foreign:
            return
        lines = self._publication.manifest(version)
        next(lines)
        listed = (str(line.get("name")) for line in lines)
        names = (entry.name for entry in self._package.entries() if entry.name not in OWN_ENTRIES)
        unlisted = set(islice(_find_missing_numbers(names, listed), MAX_FINDINGS))
        entries = (entry.name for entry in self._package.entries() if entry.name not in OWN_ENTRIES)
        yield from (name for number, name in enumerate(entries) if number in unlisted) if unlisted else ()


def _find_missing_numbers(names: Iterable[str], known: Iterable[str]) -> Iterator[int]:
    """Yield the number of each name that is not among the known ones."""
    with closing(_SortedNames(names)) as sorted_names, closing(_SortedNames(known)) as sorted_known:
        known_records = sorted_known.index.records()
        known_key = _next_key(known_records)
        for digest, number in sorted_names.index.records():
            key = index_sort_key(digest)
            while known_key is not None and known_key < key:
                known_key = _next_key(known_records)
            if known_key != key:
                yield number


def _next_key(records: Iterator[tuple[bytes, int]]) -> bytes | None:
    record = next(records, None)
    return index_sort_key(record[0]) if record is not None else None


class _SortedNames:
    """Names with their numbers in a temporary file, sorted by their hashes."""

    def __init__(self, names: Iterable[str]) -> None:
        self._path = build_index_file((name, number) for number, name in enumerate(names))
        self._file = PackageInput(self._path)
        self.index = NameIndex(self._file, 0, self._file.size)

    def close(self) -> None:
        """Remove the file."""
        self._file.close()
        self._path.unlink(missing_ok=True)
