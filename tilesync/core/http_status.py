"""HTTP statuses: what an answer means for its request, the error that follows, and how long to wait (Retry-After)."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import Final

from tilesync.errors import Transient, Unavailable

PROXY_LOGIN: Final = "write user name and password into HTTPS_PROXY, as http://USER:PASSWORD@HOST:PORT"
_ELSEWHERE: Final = "a gateway or a login page sends requests elsewhere, where tilesync does not follow"


def demand(verdict: Verdict, status: int, wait: float | None, what: str, hint: str = "") -> None:
    """Return when the answer is done; raise Transient for one to be tried again, Unavailable for one not foreseen.

    `wait`: the seconds that the server asks for. `hint`: what helps against an answer that only the
    caller knows; empty for nothing.
    """
    if verdict is Verdict.DONE:
        return
    if verdict in {Verdict.RETRY, Verdict.PRESSURE}:
        raise Transient(f"{what} answered {status}", retry_after=wait, pressure=verdict is Verdict.PRESSURE)
    if status == 407:
        raise Unavailable(f"{what}: a proxy wants a user name and a password ({status})", hint=PROXY_LOGIN)
    hint = status_hint(status) or hint
    raise Unavailable(f"{what} answered {status}, which tilesync does not know how to take", hint=hint)


def status_hint(status: int) -> str:
    """What helps against a status that comes from something on the way; empty for any other."""
    if status == 407:
        return PROXY_LOGIN
    return _ELSEWHERE if 300 <= status < 400 else ""


class Verdict(Enum):
    """What an answer means for the request that it answers."""

    DONE = auto()
    DENIED = auto()
    FORBIDDEN = auto()
    INVALID = auto()
    MISSING = auto()
    GONE = auto()
    CHANGED = auto()
    UNRANGED = auto()
    RETRY = auto()
    PRESSURE = auto()
    REFUSED = auto()


YEAR = 365 * 86_400.0
"""Seconds: whoever asks to wait longer has made a mistake."""


def retry_after(text: str, now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or as a date (RFC 9110, section 10.2.3); none before 0,
    None where it is neither, or asks for more than YEAR.
    """
    if text.strip().isdecimal():
        asked = float(text)
    elif (until := header_date(text)) is not None:
        asked = max(0.0, (until - now).total_seconds())
    else:
        return None
    return asked if asked <= YEAR else None


def header_date(text: str | None) -> datetime | None:
    """A header's date in any of its three forms (RFC 9110, section 5.6.7); None where it is none."""
    try:
        found = parsedate_to_datetime(text or "")
    except (ValueError, OverflowError):
        return None
    return found.replace(tzinfo=found.tzinfo or UTC)
