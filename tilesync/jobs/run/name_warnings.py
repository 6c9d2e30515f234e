"""Warn of names that this place holds and Windows cannot: once a run, counted, with the first ones."""

from __future__ import annotations

from collections.abc import Sequence

from tilesync.core.safe_names import left_out, quoted, windows_cannot
from tilesync.core.wording import counted
from tilesync.events import Warned
from tilesync.protocols import Observer

SHOWN = 3


class WindowsNames:
    """Counts the names that Windows cannot hold. Safe from any thread that looks at other names."""

    def __init__(self) -> None:
        self._found: dict[str, None] = {}
        self._told = False

    def look(self, names: Sequence[str]) -> None:
        """Look at some names."""
        if not self._told:
            self._found.update(dict.fromkeys(windows_cannot(names)))

    def tell(self, observe: Observer) -> None:
        """Warn, the first time that there is something to warn of."""
        if not self._found or self._told:
            return
        self._told, some, count = True, list(self._found)[:SHOWN], len(self._found)
        shown = ", ".join([*map(quoted, some), *(["…"] if count > SHOWN else [])])
        what = f"{counted(count, 'name')} that Windows cannot hold: {shown}"
        observe(Warned(f"{what}; held here, and lost where this copy goes to Windows ({left_out(some)})"))
