"""Warn once per run about file names that this destination can store but Windows cannot."""

from __future__ import annotations

from collections.abc import Sequence

from tilesync.core.safe_names import find_windows_unsafe, make_exclude_hint, quote_name
from tilesync.core.wording import format_count
from tilesync.events import Warned
from tilesync.protocols import Observer

MAX_NAMES_SHOWN = 3


class WindowsNameWarner:
    """Collects the names that Windows cannot store. Several threads may call `check` at the same time."""

    def __init__(self) -> None:
        self._found: dict[str, None] = {}
        self._has_warned = False

    def check(self, names: Sequence[str]) -> None:
        """Remember the names that Windows cannot store."""
        if not self._has_warned:
            self._found.update(dict.fromkeys(find_windows_unsafe(names)))

    def warn(self, observe: Observer) -> None:
        """Warn about the names found so far; only the first warning of a run is sent."""
        if not self._found or self._has_warned:
            return
        self._has_warned, examples, count = True, list(self._found)[:MAX_NAMES_SHOWN], len(self._found)
        shown = ", ".join([*map(quote_name, examples), *(["…"] if count > MAX_NAMES_SHOWN else [])])
        what = f"{format_count(count, 'name')} that Windows cannot store: {shown}"
        observe(
            Warned(
                f"{what}; they are stored here, but a copy to Windows would lose them ({make_exclude_hint(examples)})"
            )
        )
