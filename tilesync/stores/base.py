"""Versions that have folders of their own: their files lie where they are looked for."""

from __future__ import annotations

from collections.abc import Iterable

from tilesync.model import StoredFile, Version


class DefaultLayoutMixin:
    """Nothing is to be brought to its place, and nothing of others can be in the way."""

    def find_blocked(self, version: Version, names: Iterable[str]) -> list[str]:
        """None: the files lie where they are looked for."""
        return []

    def move_into_place(self, version: Version, names: Iterable[str], moment: str) -> list[str]:
        """Nothing: the files lie where they are looked for."""
        return []

    def discard(self, version: Version, files: Iterable[StoredFile], moment: str) -> list[StoredFile]:
        """Nothing: a version has a folder of its own."""
        return []
