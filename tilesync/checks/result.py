"""Result of one check."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple


class CheckStatus(StrEnum):
    """Outcome of a check. `SKIPPED`: the check was not possible, or has no meaning here."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


class CheckResult(NamedTuple):
    """Message of a check and a hint. A failed check raises an error instead: its class gives the exit code."""

    message: str
    status: CheckStatus = CheckStatus.OK
    hint: str = ""


def join_some(names: Sequence[str], limit: int = 3) -> str:
    """Join the first few names, and count the others."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
