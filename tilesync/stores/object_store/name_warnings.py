"""Names that a server reads as others: a file of such a name is there, and no viewer finds it."""

from __future__ import annotations

from collections.abc import Iterable

from tilesync.events import Warned
from tilesync.protocols import Observer

MAX_NAMES_SHOWN = 5


class MisreadNameWarner:
    """Looks at the names of files, and warns once of those with any of these characters. Not `sure`: the server has not
    been tried yet.
    """

    def __init__(self, characters: str, observe: Observer, *, is_probed: bool) -> None:
        self._characters = characters
        self._observe = observe
        self._is_probed = is_probed

    def __call__(self, names: Iterable[str]) -> None:
        """Look."""
        if not self._characters:
            return
        bad = [name for name in names if any(char in name for char in self._characters)]
        if bad:
            self._warn(bad)
            self._characters = ""

    def _warn(self, bad: list[str]) -> None:
        found = sorted({char for name in bad for char in name if char in self._characters})
        chars, shown = ", ".join(map(repr, found)), ", ".join(bad[:MAX_NAMES_SHOWN])
        reads = "reads" if self._is_probed else "may read (the first run tries it)"
        self._observe(
            Warned(
                f"names with {chars}, which this server {reads} as another name when a viewer asks for them as the"
                f" tilesets write them: {shown}{' and more' if len(bad) > MAX_NAMES_SHOWN else ''}; such files are held, and no"
                " viewer finds them there without a server between that knows better"
            )
        )
