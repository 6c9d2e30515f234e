"""Mistakes in a fleet file, each with its place, and the error that has all of them."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path

from tilesync.core.masking import mask_secrets
from tilesync.errors import UsageError
from tilesync.runtime.toml_file import TomlDocument, TomlPath
from tilesync.values import dataclass


@dataclass(frozen=True, slots=True)
class FileMistake:
    """A mistake in a fleet file: its place (`FILE:LINE`), table and key, what is wrong, and the line (0: the file)."""

    place: str
    table: str
    key: str
    message: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.place}: {self.table}{f' {self.key}' if self.key else ''}: {self.message}"


def describe_error(error: Exception) -> str:
    """Describe an error with its hint, unless that is the one of every usage error."""
    hint = error.hint if isinstance(error, UsageError) else None
    return f"{error}; {hint}" if hint and hint != UsageError.default_hint else str(error)


class InvalidFleetFile(UsageError):
    """A fleet file has mistakes; `mistakes` has all of them, in the order of the file."""

    default_hint = "correct the file; `tilesync fleet FILE --check` reads it and does nothing else"

    def __init__(self, path: Path, mistakes: tuple[FileMistake, ...]) -> None:
        count = "a mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        super().__init__("\n  ".join((f"{path} has {count}:", *map(str, mistakes))))
        self.mistakes = mistakes


@dataclass
class MistakeCollector:
    """Mistakes of one document. `secrets`: paths of the texts that look like secrets, which no message may show."""

    document: TomlDocument
    secrets: set[TomlPath] = field(default_factory=set)
    _mistakes: list[FileMistake] = field(default_factory=list)

    def add(self, message: str, table: TomlPath, title: str, key: str = "") -> None:
        """Add a mistake at a key of a table. If the table does not have the key, its place is that of the table."""
        document = self.document
        line = document.line_of(table, key or None) or document.line_of(table) or 0
        place = f"{document.path}:{line}" if line else str(document.path)
        self._mistakes.append(FileMistake(place, title, mask_secrets(key), mask_secrets(message), line))

    def has_secret(self, path: TomlPath) -> bool:
        """Return whether the value at a path, or a text in it, looks like a secret."""
        return any(secret[: len(path)] == path for secret in self.secrets)

    def raise_if_any(self) -> None:
        """Raise InvalidFleetFile with all mistakes, by their lines; those of the file as a whole come first."""
        if self._mistakes:
            ordered = sorted(dict.fromkeys(self._mistakes), key=lambda mistake: mistake.line)
            raise InvalidFleetFile(self.document.path, tuple(ordered))
