"""Versions that have folders of their own: their files lie where they are looked for."""

from __future__ import annotations

from collections.abc import Iterable

from tilesync.model import Held, Version


class Apart:
    """Nothing is to be brought to its place, and nothing of others can be in the way."""

    def blocked(self, version: Version, names: Iterable[str]) -> list[str]:
        """None: the files lie where they are looked for."""
        return []

    def lay_out(self, version: Version, names: Iterable[str], moment: str) -> list[str]:
        """Nothing: the files lie where they are looked for."""
        return []

    def discard(self, version: Version, files: Iterable[Held], moment: str) -> list[Held]:
        """Nothing: a version has a folder of its own."""
        return []
