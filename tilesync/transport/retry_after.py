"""How long a server asks to wait before the next attempt, whichever engine its answer came by."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from tilesync.core.http_status import parse_http_date, parse_retry_after


def retry_after_seconds(get_header: Callable[[str], str | None]) -> float | None:
    """Seconds that an answer asks for by `Retry-After`, None when it does not. `header` gives a header's value.

    A date is measured from the answer's own `Date`, so that a wrong clock of either side does not matter; where that
    is absent, from the clock of this machine.
    """
    text = get_header("retry-after")
    return None if text is None else parse_retry_after(text, parse_http_date(get_header("date")) or datetime.now(UTC))
