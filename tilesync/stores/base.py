"""Default layout: each version has a folder of its own, and its files are written to their final place."""

from __future__ import annotations

from collections.abc import Iterable

from tilesync.model import StoredFile, Version


class DefaultLayoutMixin:
    """The steps that only the flat layout needs, as empty steps."""

    def find_blocked(self, version: Version, names: Iterable[str]) -> list[str]:
        """Return an empty list: nothing foreign can be in a version's own folder."""
        return []

    def move_into_place(self, version: Version, names: Iterable[str], moment: str) -> list[str]:
        """Do nothing: the files are written to their final place."""
        return []

    def discard(self, version: Version, files: Iterable[StoredFile], moment: str) -> list[StoredFile]:
        """Do nothing: files of other versions are in other folders."""
        return []
