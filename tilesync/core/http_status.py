"""HTTP statuses: what an answer means for its request, the error that follows, and how long to wait (Retry-After)."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import Final

from tilesync.errors import Transient, Unavailable

PROXY_LOGIN_HINT: Final = "write user name and password into HTTPS_PROXY, as http://USER:PASSWORD@HOST:PORT"
_REDIRECT_HINT: Final = "a gateway or a login page sends requests elsewhere, where tilesync does not follow"


def raise_for_status(verdict: Verdict, status: int, retry_after_s: float | None, subject: str, hint: str = "") -> None:
    """Return when the answer is done; raise Transient for one to be tried again, Unavailable for one not foreseen.

    `wait`: the seconds that the server asks for. `hint`: what helps against an answer that only the
    caller knows; empty for nothing.
    """
    if verdict is Verdict.DONE:
        return
    if verdict in {Verdict.RETRY, Verdict.THROTTLED}:
        raise Transient(
            f"{subject} answered {status}", retry_after=retry_after_s, is_throttled=verdict is Verdict.THROTTLED
        )
    if status == 407:
        raise Unavailable(f"{subject}: a proxy wants a user name and a password ({status})", hint=PROXY_LOGIN_HINT)
    hint = hint_for_status(status) or hint
    raise Unavailable(f"{subject} answered {status}, which tilesync does not know how to take", hint=hint)


def hint_for_status(status: int) -> str:
    """What helps against a status that comes from something on the way; empty for any other."""
    if status == 407:
        return PROXY_LOGIN_HINT
    return _REDIRECT_HINT if 300 <= status < 400 else ""


class Verdict(Enum):
    """What an answer means for the request that it answers."""

    DONE = auto()
    DENIED = auto()
    FORBIDDEN = auto()
    INVALID = auto()
    MISSING = auto()
    GONE = auto()
    CHANGED = auto()
    RANGE_REFUSED = auto()
    RETRY = auto()
    THROTTLED = auto()
    REFUSED = auto()


MAX_PLAUSIBLE_DELAY_S = 365 * 86_400.0
"""Seconds: whoever asks to wait longer has made a mistake."""


def parse_retry_after(text: str, now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or as a date (RFC 9110, section 10.2.3); none before 0,
    None where it is neither, or asks for more than YEAR.
    """
    if text.strip().isdecimal():
        asked = float(text)
    elif (until := parse_http_date(text)) is not None:
        asked = max(0.0, (until - now).total_seconds())
    else:
        return None
    return asked if asked <= MAX_PLAUSIBLE_DELAY_S else None


def parse_http_date(text: str | None) -> datetime | None:
    """A header's date in any of its three forms (RFC 9110, section 5.6.7); None where it is none."""
    try:
        found = parsedate_to_datetime(text or "")
    except (ValueError, OverflowError):
        return None
    return found.replace(tzinfo=found.tzinfo or UTC)
