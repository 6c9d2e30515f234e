"""Interface of a package that is written: one version in one file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

MAX_WHOLE_BYTES: Final = 8 << 20
"""Largest file that is read and written as a whole. A larger one is passed on chunk by chunk."""


class PackageWriter(Protocol):
    """Writer of one package. A package that was not finished is worthless, and its caller discards it."""

    def find_problem(self, name: str, size: int) -> str | None:
        """Return why this format cannot hold a file of `size` bytes; None if it can."""

    def find_compatibility_problem(self, name: str, size: int) -> str | None:
        """Return, as the end of a sentence, why some programs cannot read a file; None if all can."""

    def measure(self, name: str, size: int) -> int:
        """Return the bytes that a file takes in the package; at most that many if files are compressed."""

    def add_manifest(self, size: int, chunks: Iterable[bytes]) -> None:
        """Add the manifest. It comes first."""

    def add(self, name: str, size: int, chunks: Iterable[bytes]) -> None:
        """Add a file; `chunks` have `size` bytes in total. Raises what they raise, OSError, DestinationError."""

    def finish(self) -> None:
        """Write what comes after the last file. Raises OSError, DestinationError."""
