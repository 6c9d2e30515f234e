"""TOML files that the user writes: read them, with the line of each key for messages."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Final

from tilesync.errors import UsageError
from tilesync.runtime.safe_open import read_small_file
from tilesync.values import dataclass

TomlPath = tuple[str | int, ...]
"""Path of a table or value: names of tables and keys, and indexes from 0 in arrays, as in the parsed tables."""


@dataclass(frozen=True)
class TomlDocument:
    """A parsed TOML file.

    `tables`: the top table, as tomllib parses it. `lines`: the line of each table, key and element of an array.
    """

    path: Path
    tables: dict[str, Any]
    lines: Mapping[TomlPath, int] = field(default_factory=dict, repr=False)

    def line_of(self, table: TomlPath, key: str | None = None) -> int | None:
        """Return the line of a key in a table, from 1, or without `key` that of the table; None for an unknown one.

        `document.line_of(("mirror", 2), "keep-versions")` is the line of this key in the third `[[mirror]]`.
        """
        return self.lines.get(table if key is None else (*table, key))

    def format_place(self, table: TomlPath = (), key: str | None = None) -> str:
        """Format the place of a key or a table for messages: `FILE:LINE`, or `FILE` if the line is not known."""
        line = self.line_of(table, key)
        return str(self.path) if line is None else f"{self.path}:{line}"


def read_toml(path: Path) -> TomlDocument:
    """Read a TOML file of at most 1 MiB. Raises UsageError that names the file, and the line of a syntax error."""
    try:
        data = read_small_file(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"{path} cannot be read: {reason}", hint="check the path and its permissions") from None
    return parse_toml(data, path)


def parse_toml(data: bytes, path: Path) -> TomlDocument:
    """Parse the bytes of a TOML file; a byte order mark is ignored. Raises UsageError with the line of an error."""
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: this is not UTF-8 text", hint="save the file in UTF-8") from None
    try:
        tables = tomllib.loads(text)
        lines = _LineScanner(text).scan()
    except RecursionError:
        raise UsageError(
            f"{path}: its arrays or tables are nested too deeply", hint="write it with fewer levels"
        ) from None
    except ValueError as error:
        raise _create_syntax_error(str(error), text, path) from None
    return TomlDocument(path, tables, lines)


_POSITION: Final = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")
"""Position at the end of a message of tomllib. Newer versions of Python also have it in attributes."""


def _create_syntax_error(message: str, text: str, path: Path) -> UsageError:
    """Create the error of invalid TOML. The message of tomllib quotes keys and single characters, never values."""
    place, position = str(path), _POSITION.search(message)
    if position is not None:
        place += f":{position[1] or text.count(chr(10)) + 1}"
        message = message[: position.start()]
    return UsageError(f"{place}: this is not valid TOML: {message}", hint='write each text in quotes: key = "text"')


_SPACES: Final = re.compile(r"[ \t]*")
_GAP: Final = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
"""White space, line breaks and comments."""

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_STRING: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}' r"|'''.*?'{3,5}" r'|"(?:[^"\\]|\\.)*"' r"|'[^']*'",
    re.DOTALL,
)
"""A string of each kind. A multi-line string may end with two quotes of its own before the three that end it."""

_PLAIN_VALUE: Final = re.compile(r"[^,\]}#\n]+")
"""A number, a boolean, or a time, which may contain a space."""


class _LineScanner:
    """Scanner that finds the line of each key. The text must be valid TOML: tomllib has parsed it before."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._last_index: dict[TomlPath, int] = {}
        self._lines: dict[TomlPath, int] = {}

    def scan(self) -> dict[TomlPath, int]:
        """Return the line of each table, key and element."""
        table: TomlPath = ()
        while self._skip(_GAP) < len(self._text):
            if self._text[self._at] == "[":
                table = self._scan_header()
            else:
                self._scan_pair(table)
        return self._lines

    def _scan_header(self) -> TomlPath:
        """Scan `[table]` or `[[table]]`; return its path."""
        line = self._line()
        is_array = self._text.startswith("[[", self._at)
        self._at += 2 if is_array else 1
        key = self._scan_key()
        self._at += 2 if is_array else 1
        path = self._resolve(key[:-1] if is_array else key)
        if is_array:
            path = (*path, key[-1])
            self._last_index[path] = self._last_index.get(path, -1) + 1
            path = (*path, self._last_index[path])
        self._record(path, line)
        self._lines[path] = line  # the header itself, even if a header of a table inside came before
        return path

    def _scan_pair(self, table: TomlPath) -> None:
        line = self._line()
        path = (*table, *self._scan_key())
        self._record(path, line)
        self._at += 1  # the equals sign
        self._scan_value(path)

    def _scan_key(self) -> tuple[str, ...]:
        """Scan a key, which may be dotted and quoted, up to the sign after it."""
        parts: list[str] = []
        while True:
            self._skip(_SPACES)
            quoted = _STRING.match(self._text, self._at)
            word = quoted or _BARE_KEY.match(self._text, self._at)
            assert word is not None, "tomllib has read a key here"
            parts.append(tomllib.loads(f"key = {word[0]}")["key"] if quoted else word[0])
            self._at = word.end()
            self._skip(_SPACES)
            if self._text[self._at] != ".":
                return tuple(parts)
            self._at += 1

    def _scan_value(self, path: TomlPath) -> None:
        self._skip(_SPACES)
        first = self._text[self._at]
        if first == "[":
            self._scan_array(path)
        elif first == "{":
            self._scan_inline_table(path)
        else:
            value = _STRING.match(self._text, self._at) or _PLAIN_VALUE.match(self._text, self._at)
            assert value is not None, "tomllib has read a value here"
            self._at = value.end()

    def _scan_array(self, path: TomlPath) -> None:
        self._at += 1
        index = 0
        while self._next_in_brackets("]"):
            element = (*path, index)
            self._record(element, self._line())
            self._scan_value(element)
            index += 1

    def _scan_inline_table(self, path: TomlPath) -> None:
        self._at += 1
        while self._next_in_brackets("}"):
            self._scan_pair(path)

    def _next_in_brackets(self, end: str) -> bool:
        """Go to the next element in brackets; return False after the end of the brackets."""
        self._skip(_GAP)
        if self._text[self._at] == ",":
            self._at += 1
            self._skip(_GAP)
        if self._text[self._at] != end:
            return True
        self._at += 1
        return False

    def _resolve(self, key: tuple[str, ...]) -> TomlPath:
        """Return the path of a table by its header: below an array of tables, it is in the last of them."""
        path: TomlPath = ()
        for part in key:
            path = (*path, part)
            if path in self._last_index:
                path = (*path, self._last_index[path])
        return path

    def _record(self, path: TomlPath, line: int) -> None:
        for end in range(1, len(path) + 1):
            self._lines.setdefault(path[:end], line)

    def _skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self._text, self._at)
        assert match is not None, "the pattern matches an empty text too"
        self._at = match.end()
        return self._at

    def _line(self) -> int:
        return bisect_right(self._line_starts, self._at)
