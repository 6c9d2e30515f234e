"""What one check found."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple


class Result(StrEnum):
    """How a check came out. `SKIPPED`: it could not be made, or has no meaning here."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


class Said(NamedTuple):
    """What a check found, and what mends it. One that fails raises an error instead: its class is the exit code."""

    message: str
    result: Result = Result.OK
    hint: str = ""


def some(names: Sequence[str], most: int = 3) -> str:
    """A few of many, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
