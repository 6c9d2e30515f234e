"""What one check found."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple


class CheckStatus(StrEnum):
    """How a check came out. `SKIPPED`: it could not be made, or has no meaning here."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


class CheckResult(NamedTuple):
    """What a check found, and what mends it. One that fails raises an error instead: its class is the exit code."""

    message: str
    status: CheckStatus = CheckStatus.OK
    hint: str = ""


def join_some(names: Sequence[str], limit: int = 3) -> str:
    """A few of many, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
