"""Survey of the files of a version before they are packed: whether the format can hold them all, and the space."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NoReturn

from tilesync.core.safe_names import find_universal_problem, quote_name
from tilesync.core.wording import format_file_count
from tilesync.errors import DestinationError
from tilesync.jobs.pack.manifest_copy import DAMAGED_HINT
from tilesync.model import ROOT, StoredFile, Version
from tilesync.protocols import PackageWriter

MAX_NAMED_PROBLEMS: Final = 5


def _find_unsafe_problem(name: str) -> str | None:
    """Return why a name must not be in a package: unpacking it could write anywhere."""
    return "is an absolute path" if name.startswith("/") else find_universal_problem(name)


class Survey:
    """Survey of the files of a version. `root`: the root tileset. `package_bytes`: size of the package, at most."""

    def __init__(self, writer: PackageWriter) -> None:
        self._writer = writer
        self._files = self._bytes = 0
        self._problems = list[str]()
        self._problem_count = self._unsafe_count = 0
        self._limits = dict[str, tuple[int, str]]()
        self._is_sorted = True
        self._unproven_name: str | None = None
        self.root: StoredFile | None = None
        self.package_bytes = 0

    def add_all(self, stored_files: Iterable[StoredFile]) -> None:
        """Add the files of the manifest."""
        previous = ""
        for stored in stored_files:
            name = stored.blob.name
            self._is_sorted = self._is_sorted and previous < name
            previous = name
            self._add(stored, name)

    def _add(self, stored: StoredFile, name: str) -> None:
        size = stored.size
        self._files += 1
        self._bytes += size
        self.package_bytes += self._writer.measure(name, size)
        if name == ROOT:
            self.root = stored
        if not stored.sha256 and stored.blob.md5 is None:
            self._unproven_name = name
        unsafe_problem = _find_unsafe_problem(name)
        self._unsafe_count += unsafe_problem is not None
        if problem := unsafe_problem or self._writer.find_problem(name, size):
            self._problem_count += 1
            if len(self._problems) < MAX_NAMED_PROBLEMS:
                self._problems.append(f"{quote_name(name)} {problem}")
        if limit := self._writer.find_limit_of_readers(name, size):
            count, first = self._limits.get(limit, (0, name))
            self._limits[limit] = count + 1, first

    def refuse_problems(self, version: Version) -> None:
        """Raise DestinationError if the manifest contradicts itself or proves nothing, or a file does not fit."""
        expected = version.summary
        if (self._files, self._bytes) != (expected.files, expected.bytes):
            raise DestinationError(
                f"the manifest of version {version.name} is damaged: it lists {format_file_count(self._files)} with"
                f" {self._bytes:,} bytes, but its first line says {expected.files:,} with {expected.bytes:,}",
                hint=DAMAGED_HINT,
            )
        if self._unproven_name is not None:
            raise DestinationError(
                f"no digest proves the files of version {version.name}, such as {self._unproven_name}: tilesync did not"
                " write this package",
                hint="mirror it into a folder, which computes the digests, then pack the folder",
            )
        if self._problem_count:
            self._raise_problems(version)

    def _raise_problems(self, version: Version) -> NoReturn:
        """Raise DestinationError for unsafe names, which no format may hold, or for the limits of this format."""
        unnamed = self._problem_count - len(self._problems)
        named = "; ".join(self._problems) + (f"; and {unnamed:,} more" if unnamed else "")
        if self._unsafe_count:
            raise DestinationError(
                f"the manifest of version {version.name} has unsafe names, which no package may hold: {named}",
                hint=f"somebody may have changed the manifest: {DAMAGED_HINT}",
            )
        raise DestinationError(
            f"this format cannot hold {format_file_count(self._problem_count)} of version {version.name}: {named}",
            hint="choose another format: .tar and .zip hold all files whose names tilesync does not use itself",
        )

    def find_repeated_name(self, stored_files: Iterable[StoredFile]) -> str | None:
        """Return a name that the manifest lists twice; None if there is none. A sorted manifest is not read again."""
        if self._is_sorted:
            return None
        seen = set[str]()
        for stored in stored_files:
            if stored.blob.name in seen:
                return stored.blob.name
            seen.add(stored.blob.name)
        return None

    def warnings(self) -> list[str]:
        """Return a sentence for each limit of other programs that files of this version exceed."""
        return [
            f"{quote_name(first)} {limit}" + (f"; {format_file_count(count - 1)} more like it" if count > 1 else "")
            for limit, (count, first) in self._limits.items()
        ]
