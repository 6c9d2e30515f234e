"""HTTP status policy, Retry-After and dates."""

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesync.azure.responses import (
    parse_http_date,
)
from tilesync.core.http_status import Verdict, format_status, parse_retry_after, raise_for_status
from tilesync.errors import Transient, Unavailable


def test_raise_for_status() -> None:
    """Success passes; retry and throttling raise Transient with the requested wait; all others end the run."""
    raise_for_status(Verdict.DONE, 200, None, "it")
    with pytest.raises(Transient) as busy:
        raise_for_status(Verdict.THROTTLED, 503, 7.0, "it")
    assert (busy.value.retry_after, busy.value.is_throttled, str(busy.value)) == (7.0, True, "it answered 503")
    with pytest.raises(Transient) as failing:
        raise_for_status(Verdict.RETRY, 500, None, "it")
    assert (failing.value.retry_after, failing.value.is_throttled) == (None, False)
    with pytest.raises(Unavailable, match="it answered 302"):
        raise_for_status(Verdict.REFUSED, 302, None, "it")


@pytest.mark.parametrize(
    ("status", "code", "text"),
    [(404, "BlobNotFound", "(404 BlobNotFound)"), (404, "", "(404)"), (0, "SlowDown", "(SlowDown)")],
)
def test_format_status(status: int, code: str, text: str) -> None:
    """The status and the code are shown as far as they are known."""
    assert format_status(status, code) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0.0), ("1", 1.0), (" 30 ", 30.0), ("", None), ("-1", None), ("1.5", None), ("soon", None), ("²", None),
     ("Sun, 01 Mar 2026 08:30:00 GMT", 90.0), ("Sunday, 01-Mar-26 08:30:00 GMT", 90.0),
     ("Sun Mar  1 08:30:00 2026", 90.0), ("Sun, 01 Mar 2026 09:30:00 +0100", 90.0),
     ("9" * 400, None), ("Sun, 01 Mar 9999 08:00:00 GMT", None), ("31536000", 31536000.0), ("31536001", None),
     ("Sun, 01 Mar 2026 08:00:00 GMT", 0.0), ("Sun, 41 Mar 2026 08:30:00 GMT", None)],
)  # fmt: skip
def test_retry_after(text: str, seconds: float | None) -> None:
    """Retry-After is parsed as seconds and as a date in each HTTP form, and ignored otherwise."""
    assert parse_retry_after(text, datetime(2026, 3, 1, 8, 28, 30, tzinfo=UTC)) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784111777),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 784111777),
        ("Sun Nov  6 08:49:37 1994", 784111777),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        (None, None),
        ("", None),
        ("yesterday", None),
        ("Sun, 06 Smarch 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 99999 08:49:37 GMT", None),
    ],
)
def test_http_date(text: str | None, seconds: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The three forms of RFC 9110 give the same time in every time zone; anything else gives None."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert parse_http_date(text) == seconds
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.text(max_size=40) | st.from_regex(r"\A[A-Z][a-z]{2}, \d{2} Mar \d{1,6} \d\d:\d\d:\d\d [A-Z+0-9-]{3,9}\Z"))
def test_http_date_never_fails(text: str) -> None:
    """Any text gives a number of seconds or None."""
    assert parse_http_date(text) is None or isinstance(parse_http_date(text), int)
