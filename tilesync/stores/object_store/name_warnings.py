"""Warn about file names that a server misreads: the file is stored, but viewers do not find it."""

from __future__ import annotations

from collections.abc import Iterable

from tilesync.events import Warned
from tilesync.protocols import Observer

MAX_NAMES_SHOWN = 5


class MisreadNameWarner:
    """Warn once about names that hold one of these characters. `is_probed`: the server was tested for them."""

    def __init__(self, characters: str, observe: Observer, *, is_probed: bool) -> None:
        self._characters = characters
        self._observe = observe
        self._is_probed = is_probed

    def __call__(self, names: Iterable[str]) -> None:
        """Check the names of one page."""
        if not self._characters:
            return
        bad = [name for name in names if any(char in name for char in self._characters)]
        if bad:
            self._warn(bad)
            self._characters = ""

    def _warn(self, bad: list[str]) -> None:
        found = sorted({char for name in bad for char in name if char in self._characters})
        chars, shown = ", ".join(map(repr, found)), ", ".join(bad[:MAX_NAMES_SHOWN])
        more = " and more" if len(bad) > MAX_NAMES_SHOWN else ""
        reads, tested = ("reads", "") if self._is_probed else ("may read", "; the first run tests it")
        self._observe(
            Warned(
                f"this server {reads} {chars} in the URL of a file as another character: {shown}{more}; such files are"
                f" stored, but viewers do not find them, unless a proxy corrects the URLs{tested}"
            )
        )
