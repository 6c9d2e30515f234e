"""Check of a version before it is packed: its manifest is sound, and the format holds every file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tilesync.core.safe_names import find_entry_problem, quote_name
from tilesync.core.wording import format_file_count
from tilesync.errors import DestinationError
from tilesync.model import ROOT, StoredFile, Version
from tilesync.protocols import PackageWriter

MAX_NAMED_PROBLEMS: Final = 5


class NamedProblems:
    """Problems of files: their number, and sentences about the first ones."""

    def __init__(self) -> None:
        self.count = 0
        self._sentences = list[str]()

    def add(self, name: str, problem: str) -> None:
        """Add the problem of a file."""
        self.count += 1
        if len(self._sentences) < MAX_NAMED_PROBLEMS:
            self._sentences.append(f"{quote_name(name)} {problem}")

    def __str__(self) -> str:
        unnamed = self.count - len(self._sentences)
        return "; ".join(self._sentences) + (f"; and {unnamed:,} more" if unnamed else "")


class Precheck:
    """Check of the files that a manifest lists.

    `package_bytes`: size of the package without its manifest, at most. `is_sorted`: no name can be there twice.
    """

    def __init__(self, writer: PackageWriter, version: Version) -> None:
        self._writer = writer
        self._version = version
        self._files = self._bytes = 0
        self._root: StoredFile | None = None
        self._unsafe, self._unfit = NamedProblems(), NamedProblems()
        self._incompatible = dict[str, tuple[int, str]]()
        self._unproven_name: str | None = None
        self._previous_name = ""
        self.is_sorted = True
        self.package_bytes = 0

    def add(self, stored: StoredFile) -> None:
        """Add a file of the manifest."""
        name, size = stored.blob.name, stored.size
        self.is_sorted = self.is_sorted and self._previous_name < name
        self._previous_name = name
        self._files += 1
        self._bytes += size
        self.package_bytes += self._writer.measure(name, size)
        if name == ROOT:
            self._root = stored
        if not stored.sha256 and stored.blob.md5 is None:
            self._unproven_name = name
        if problem := find_entry_problem(name):
            self._unsafe.add(name, problem)
        elif problem := self._writer.find_problem(name, size):
            self._unfit.add(name, problem)
        if problem := self._writer.find_compatibility_problem(name, size):
            count, first = self._incompatible.get(problem, (0, name))
            self._incompatible[problem] = count + 1, first

    def find_root(self) -> StoredFile:
        """Return the root tileset. Raises ValueError if there is none, or if the manifest is damaged otherwise."""
        stated = self._version.summary
        if (self._files, self._bytes) != (stated.files, stated.bytes):
            raise ValueError(
                f"it lists {format_file_count(self._files)} with {self._bytes:,} bytes, but its first line says"
                f" {stated.files:,} with {stated.bytes:,}"
            )
        if self._unsafe.count:
            raise ValueError(f"it has unsafe names, which no package may hold: {self._unsafe}")
        if self._root is None:
            raise ValueError(f"it has no {ROOT}")
        return self._root

    def refuse_unfit_files(self) -> None:
        """Raise DestinationError for files that nothing can prove, or that the format cannot hold."""
        name = self._version.name
        if self._unproven_name is not None:
            raise DestinationError(
                f"no digest proves the files of version {name}, such as {self._unproven_name}: tilesync did not write"
                " this package",
                hint="mirror it into a folder, which computes the digests, then pack the folder",
            )
        if self._unfit.count:
            raise DestinationError(
                f"this format cannot hold {format_file_count(self._unfit.count)} of version {name}: {self._unfit}",
                hint="choose another format: .tar and .zip hold all files whose names tilesync does not use itself",
            )

    def warnings(self) -> list[str]:
        """Return a sentence for each reason why other programs cannot read files of this version."""
        return [
            f"{quote_name(first)} {problem}" + (f"; {format_file_count(count - 1)} more like it" if count > 1 else "")
            for problem, (count, first) in self._incompatible.items()
        ]


def refuse_repeated_names(stored_files: Iterable[StoredFile]) -> None:
    """Raise ValueError for a name that the manifest lists twice."""
    seen = set[str]()
    for stored in stored_files:
        if stored.blob.name in seen:
            raise ValueError(f"it lists {stored.blob.name} twice")
        seen.add(stored.blob.name)
