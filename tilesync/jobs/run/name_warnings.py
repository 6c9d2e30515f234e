"""Warn of names that this place holds and Windows cannot: once a run, counted, with the first ones."""

from __future__ import annotations

from collections.abc import Sequence

from tilesync.core.safe_names import find_windows_unsafe, make_exclude_hint, quote_name
from tilesync.core.wording import format_count
from tilesync.events import Warned
from tilesync.protocols import Observer

MAX_NAMES_SHOWN = 3


class WindowsNameWarner:
    """Counts the names that Windows cannot hold. Safe from any thread that looks at other names."""

    def __init__(self) -> None:
        self._found: dict[str, None] = {}
        self._has_warned = False

    def check(self, names: Sequence[str]) -> None:
        """Look at some names."""
        if not self._has_warned:
            self._found.update(dict.fromkeys(find_windows_unsafe(names)))

    def warn(self, observe: Observer) -> None:
        """Warn, the first time that there is something to warn of."""
        if not self._found or self._has_warned:
            return
        self._has_warned, some, count = True, list(self._found)[:MAX_NAMES_SHOWN], len(self._found)
        shown = ", ".join([*map(quote_name, some), *(["…"] if count > MAX_NAMES_SHOWN else [])])
        what = f"{format_count(count, 'name')} that Windows cannot hold: {shown}"
        observe(Warned(f"{what}; held here, and lost where this copy goes to Windows ({make_exclude_hint(some)})"))
