"""One table of a fleet file: its keys are read one by one, and the mistakes are collected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tilesync.errors import UsageError
from tilesync.fleets.file.mistakes import MistakeCollector, describe_error
from tilesync.fleets.file.option_table import COMMAND_LINE_OPTIONS
from tilesync.fleets.file.value_readers import Reader
from tilesync.runtime.toml_file import TomlPath


class TableReader:
    """Reader of one table. `title`: its name in messages, which may change once its `name` is known."""

    def __init__(self, mistakes: MistakeCollector, path: TomlPath, title: str) -> None:
        self.title = title
        self._mistakes = mistakes
        self._path = path
        table = self._find_table()
        if not isinstance(table, Mapping):
            self.add(f"write {title} as a table")
            table = {}
        self._unread = dict(table)
        self._keys = frozenset(self._unread)

    def _find_table(self) -> Any:
        found: Any = self._mistakes.document.tables
        for part in self._path:
            found = found.get(part, {}) if isinstance(part, str) else found[part]
        return found

    @property
    def line(self) -> int | None:
        """Line at which the table begins."""
        return self._mistakes.document.line_of(self._path)

    def has(self, key: str) -> bool:
        """Return whether the table has a key, read or not."""
        return key in self._keys

    def add(self, message: str, key: str = "") -> None:
        """Add a mistake at a key, or at the table as a whole."""
        self._mistakes.add(message, self._path, self.title, key)

    def read(self, key: str, reader: Reader, default: Any = None) -> Any:
        """Read a key; the default if it is missing or wrong. A value that looks like a secret is a mistake already."""
        if key not in self._unread:
            return default
        value = self._unread.pop(key)
        if self._mistakes.has_secret((*self._path, key)):
            return default
        try:
            return reader(value)
        except (ValueError, UsageError) as error:
            self.add(describe_error(error), key)
            return default

    def refuse_unread(self, known: Iterable[str]) -> None:
        """Add a mistake for each key that was not read. `known`: keys to suggest."""
        from difflib import get_close_matches

        for key in self._unread:
            if key in COMMAND_LINE_OPTIONS:
                self.add(f"not possible here: {COMMAND_LINE_OPTIONS[key]}", key)
                continue
            near = get_close_matches(key, list(known), 1)
            self.add(f"there is no such key{f'; did you mean {near[0]}?' if near else ''}", key)
