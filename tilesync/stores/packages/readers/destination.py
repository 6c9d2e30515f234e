"""Package as a destination that is only read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from tilesync.core.safe_names import find_entry_problem, raise_if_unsafe
from tilesync.errors import DestinationError, UsageError
from tilesync.model import Layout
from tilesync.protocols import Observer, StructureChecks
from tilesync.stores.opening import Mode, ReadOnlyDestination
from tilesync.stores.packages.readers.audit import PackageAudit
from tilesync.stores.packages.readers.opening import PackageReference, open_package
from tilesync.stores.packages.readers.public_files import open_public_entries
from tilesync.stores.packages.readers.publication import PackagePublication
from tilesync.stores.packages.readers.stored_files import PackageStoredFiles

PACKAGE_REMEDY = "copy the package again from where it came, or make it again with `tilesync pack`"


@contextmanager
def open_package_read_only(path: Path, mode: Mode, observe: Observer) -> Iterator[ReadOnlyDestination]:
    """Open a package to read it: its files, and the one version that it contains.

    Raises UsageError in a mode that writes, DamagedPackage for a file that is no package, and DestinationError for one
    that cannot be read.
    """
    refuse_writing(path, mode)
    if not path.exists():
        raise DestinationError(f"the package {path} does not exist", hint="check its path and its name")
    with closing(open_package(PackageReference(path))) as package:
        publication = PackagePublication(package, observe)
        files = PackageStoredFiles(PackageReference(path), package)
        checks = StructureChecks(PackageAudit(package, publication).find_problems, PACKAGE_REMEDY)
        yield ReadOnlyDestination(
            files,
            publication,
            None,
            _check_names,
            partial(open_public_entries, package),
            Layout.FLAT,
            structure_checks=checks,
        )


def refuse_writing(path: Path, mode: Mode) -> None:
    """Raise UsageError for a mode that writes."""
    if mode in {Mode.WRITE, Mode.PLAN}:
        is_there = path.exists()
        raise UsageError(
            f"{path} {'is a package' if is_there else 'has the name of a package'}, which can be read but not changed",
            hint="mirror into a folder or a store, and make a package of it with `tilesync pack DEST OUT`",
        )


def _check_names(names: Iterable[str]) -> None:
    bad = [(name, problem) for name in names if (problem := find_entry_problem(name))]
    raise_if_unsafe(bad, "no package can store")
