"""Mistakes in a fleet file, each with its place, and the error that has all of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tilesync.errors import UsageError


@dataclass(frozen=True, slots=True)
class FileMistake:
    """A mistake in a fleet file: its place (`FILE:LINE`), table and key, and what is wrong."""

    place: str
    table: str
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.table}{f' {self.key}' if self.key else ''}: {self.message}"


class InvalidFleetFile(UsageError):
    """A fleet file has mistakes; `mistakes` has all of them."""

    default_hint = "correct the file; `tilesync fleet FILE --check` reads it and does nothing else"

    def __init__(self, path: Path, mistakes: tuple[FileMistake, ...]) -> None:
        count = "a mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        super().__init__("\n  ".join((f"{path} has {count}:", *map(str, mistakes))))
        self.mistakes = mistakes
