"""Open a package: choose the reader of its format, and describe it for other processes."""

from __future__ import annotations

from pathlib import Path

from tilesync.errors import TilesyncError
from tilesync.stores.packages.formats import PackageFormat, parse_format
from tilesync.stores.packages.readers.package import IndexReference, Package
from tilesync.stores.packages.readers.package_input import PackageInput, PackageStamp
from tilesync.values import dataclass


@dataclass(frozen=True, slots=True)
class PackageReference:
    """Description of a package with which another process opens it. Picklable.

    `stamp`: the stamp that it must have; None: any. `index`: one that was built for it.
    """

    path: Path
    stamp: PackageStamp | None = None
    index: IndexReference | None = None


def open_package(reference: PackageReference) -> Package:
    """Open a package by the ending of its name. Raises DamagedPackage, DestinationError, ExportReplaced."""
    package_format = parse_format(reference.path.name)
    file = PackageInput(reference.path, reference.stamp)
    try:
        return _make_reader(package_format, file, reference.index)
    except TilesyncError:
        file.close()
        raise


def _make_reader(package_format: PackageFormat, file: PackageInput, index: IndexReference | None) -> Package:
    if package_format is PackageFormat.TAR:
        from tilesync.stores.packages.readers.tar_package import TarPackage

        return TarPackage(file, index)
    if package_format is PackageFormat.SQLITE:
        from tilesync.stores.packages.readers.sqlite_package import SqlitePackage

        return SqlitePackage(file)
    from tilesync.stores.packages.readers.zip_package import ZipPackage

    return ZipPackage(file, index, has_own_index=package_format is PackageFormat.TZ3)


def describe_package(package: Package) -> PackageReference:
    """Return the reference with which other processes open a package; build its index if it needs one."""
    package.prepare_search()
    return PackageReference(package.file.path, package.file.stamp, package.describe_index())
