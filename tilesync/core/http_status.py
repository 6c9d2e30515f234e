"""HTTP status handling: verdict of a response, resulting error, and Retry-After."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Final

from tilesync.errors import Transient, Unavailable

PROXY_LOGIN_HINT: Final = "write the user name and password into HTTPS_PROXY, as http://USER:PASSWORD@HOST:PORT"
_REDIRECT_HINT: Final = "a gateway or a login page redirects the request, and tilesync does not follow redirects"


def raise_for_status(verdict: Verdict, status: int, retry_after_s: float | None, subject: str, hint: str = "") -> None:
    """Raise the error that a verdict calls for: Transient for a retry, Unavailable for an unexpected status.

    Returns for DONE. `retry_after_s`: seconds that the server asks for. `hint`: advice that only the caller knows;
    empty for none.
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
    raise Unavailable(f"{subject} answered {status}, which tilesync does not expect", hint=hint)


def format_status(status: int, code: str) -> str:
    """Format a status (0 if there is none) and an error code (empty if there is none) in parentheses."""
    return f"({' '.join(filter(None, (str(status or ''), code)))})"


def hint_for_status(status: int) -> str:
    """Return the hint for a status that comes from a proxy or gateway; empty for any other."""
    if status == 407:
        return PROXY_LOGIN_HINT
    return _REDIRECT_HINT if 300 <= status < 400 else ""


class Verdict(Enum):
    """Meaning of a response for its request."""

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
"""Longest Retry-After that is believed, in seconds; a longer one is a mistake of the server."""


def parse_retry_after(text: str, now: datetime) -> float | None:
    """Parse a Retry-After header, a number or a date, into seconds (RFC 9110, section 10.2.3).

    Never below 0; None if it is neither, or more than MAX_PLAUSIBLE_DELAY_S.
    """
    if text.strip().isdecimal():
        seconds = float(text)
    elif (until := parse_http_date(text)) is not None:
        seconds = max(0.0, (until - now).total_seconds())
    else:
        return None
    return seconds if seconds <= MAX_PLAUSIBLE_DELAY_S else None


def parse_http_date(text: str | None) -> datetime | None:
    """Parse a date header in any of its three forms (RFC 9110, section 5.6.7); None if it is not one."""
    seconds = parse_http_seconds(text) if text else None
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def parse_http_seconds(text: str) -> int | None:
    """Parse a date header in any of its three forms into seconds since the epoch; None if it is not one.

    Servers write the first form. The module `email`, for the two others, takes longer to load than many dates to parse.
    """
    with suppress(ValueError, OverflowError):
        _, day, month, year, time, zone = text.split(" ")
        hour, minute, second = map(int, time.split(":"))
        if zone == "GMT" and len(year) == 4 and 0 <= second <= 60:  # 60: a leap second
            date = datetime(int(year), _MONTHS.index(month) + 1, int(day), hour, minute, tzinfo=UTC)
            return int(date.timestamp()) + second
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(text)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
