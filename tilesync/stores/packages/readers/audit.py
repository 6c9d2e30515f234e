"""Audit of a package beyond its files: what it has besides them, and whether other readers can find them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import chain, islice

from tilesync.errors import DamagedPackage
from tilesync.events import Finding
from tilesync.stores.packages.readers.name_index import NameIndex, build_index_file, by_hash, find_missing
from tilesync.stores.packages.readers.package import OWN_ENTRIES, Package
from tilesync.stores.packages.readers.publication import PackagePublication
from tilesync.stores.packages.readers.structure import MAX_FINDINGS

PACKAGE_PROBLEM = "package"
UNLISTED_PROBLEM = "unlisted"


class PackageAudit:
    """Audit of one package. Nothing is unpacked; memory stays flat for any number of entries."""

    def __init__(self, package: Package, publication: PackagePublication) -> None:
        self._package = package
        self._publication = publication

    def find_problems(self, version: str) -> Iterator[Finding]:
        """Yield the findings about a version's package."""
        package = self._package.file.path.name
        try:
            self._package.refuse_bad_structure()
            for problem in islice(self._package.find_index_problems(), MAX_FINDINGS):
                yield Finding(package, PACKAGE_PROBLEM, problem, version=version)
            if not self._publication.is_foreign:
                for name, problem in self._find_unlisted(version):
                    yield Finding(name, UNLISTED_PROBLEM, problem, version=version)
        except DamagedPackage as error:
            yield Finding(package, PACKAGE_PROBLEM, str(error), version=version)

    def _find_unlisted(self, version: str) -> Iterator[tuple[str, str]]:
        """Yield entries that the manifest does not list, each with a sentence about it."""
        for name in islice(self._package.ignored_names(), MAX_FINDINGS):
            yield name, "is a link or a device, which no version has"
        lines = self._publication.manifest(version)
        next(lines)
        listed = chain(OWN_ENTRIES, (str(line.get("name")) for line in lines))
        with closing(build_index_file((name, 0) for name in listed)) as file:
            records = self._package.build_index().records()
            places = sorted(islice(find_missing(records, NameIndex(file).records(), by_hash), MAX_FINDINGS))
        for entry in map(self._package.read_place, places):
            assert entry is not None
            yield entry.name, "is in the package, but not in its manifest"
