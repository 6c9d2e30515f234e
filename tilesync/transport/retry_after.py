"""`Retry-After` of a response, in seconds, for every HTTP client."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from tilesync.core.http_status import parse_http_date, parse_retry_after


def retry_after_seconds(get_header: Callable[[str], str | None]) -> float | None:
    """Return the seconds of `Retry-After`, None when it is absent. `get_header` returns the value of a header.

    A date is measured from the response's own `Date`, so that a wrong clock on either side does not matter; without
    one, from the clock of this machine.
    """
    text = get_header("retry-after")
    return None if text is None else parse_retry_after(text, parse_http_date(get_header("date")) or datetime.now(UTC))
