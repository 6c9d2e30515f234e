"""Pings of a run to a service in the manner of healthchecks: at its start, and when it ended well or failed."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from tilesync.core.urls import check_scheme, split_url
from tilesync.errors import TilesyncError, Transient, UsageError

PING_TIME_LIMIT: Final = timedelta(seconds=10)
"""Longest time that a ping may take, with all its attempts."""

MAX_BODY_BYTES: Final = 100_000
"""Bytes of a body that healthchecks.io keeps. Source: "Attaching Logs" in its documentation."""


_RETRY_SHARE: Final = 0.7
"""Share of the time limit in which failures are retried, so that the last failure can still be told."""

_CANCEL_TIME_LIMIT_S: Final = 0.25
"""Seconds that a cancelled ping has to close its connection."""

_RETRYABLE_STATUSES: Final = frozenset({408, 425, 429})


def check_ping_url(url: str) -> None:
    """Raise UsageError for a URL that cannot be pinged. The message does not show its path, which is a secret."""
    hint = "give the ping URL that the service shows, such as https://hc-ping.com/UUID"
    if not url.lower().startswith(("https://", "http://")):
        raise UsageError("the URL of --ping must begin with https://", hint=hint)
    try:
        check_scheme(url)
        parts = split_url(url)
    except UsageError as error:
        raise UsageError(f"the URL of --ping cannot be used: {error}", hint=hint) from None
    if not parts.hostname or any(letter <= " " or letter == "\x7f" for letter in url):
        raise UsageError("the URL of --ping is not valid", hint=hint)
    if "@" in parts.netloc:
        raise UsageError("the URL of --ping has a user before its host, which is not supported", hint=hint)


def make_ping_url(url: str, suffix: str = "") -> str:
    """Return the URL with a suffix after its path; its query stays."""
    parts = urlsplit(url)
    path = f"{parts.path.rstrip('/')}/{suffix}" if suffix else parts.path
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def encode_body(text: str) -> bytes:
    """Encode a body, cut to MAX_BODY_BYTES between two characters."""
    data = text.encode(errors="replace")
    return data if len(data) <= MAX_BODY_BYTES else data[:MAX_BODY_BYTES].decode(errors="ignore").encode()


class Pinger:
    """Pings of one run. No ping raises: its failure is a sentence for a warning, without the path of the URL."""

    def __init__(self, url: str, *, time_limit: timedelta = PING_TIME_LIMIT) -> None:
        check_ping_url(url)
        self._url = url
        self._time_limit = time_limit
        self._start: _BackgroundPing | None = None

    def start(self, text: str = "") -> None:
        """Begin the ping of the start, which runs beside the run."""
        self._start = _BackgroundPing(make_ping_url(self._url, "start"), text, self._time_limit)

    def finish(self, text: str, *, is_success: bool, time_limit: timedelta | None = None) -> list[str]:
        """Send the ping of the end and return the failures of both pings; blocks for at most the time limit.

        A ping of the start that still waits is given up after half of it: it must not arrive after that of the end.
        """
        limit_s = (time_limit or self._time_limit).total_seconds()
        deadline = time.monotonic() + limit_s - _CANCEL_TIME_LIMIT_S
        failures = [] if self._start is None else [self._start.wait(limit_s / 2)]
        remaining_s = max(0.0, deadline - time.monotonic())
        end = _BackgroundPing(
            make_ping_url(self._url, "" if is_success else "fail"), text, timedelta(seconds=remaining_s)
        )
        failures.append(end.wait(remaining_s))
        return [failure for failure in failures if failure]


class _BackgroundPing:
    """Ping in a thread with an event loop of its own.

    The thread is a daemon: a resolver that hangs keeps the thread, but not its caller.
    """

    def __init__(self, url: str, text: str, time_limit: timedelta) -> None:
        self._url, self._text, self._time_limit = url, text, time_limit
        self._server = f"the ping to {urlsplit(url).hostname}"
        self._task: asyncio.Task[Any] | None = None
        self._failure = ""
        self._thread = threading.Thread(target=self._run, name="tilesync-ping", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> str:
        """Wait for the ping and return its failure, empty if it arrived; give it up after some seconds."""
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            return self._failure
        if self._task is not None:
            with suppress(RuntimeError):  # the loop has been closed meanwhile
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)
        self._thread.join(_CANCEL_TIME_LIMIT_S)
        return self._failure or f"{self._server} was given up: it had no answer when the run ended"

    def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            asyncio.run(self._send())

    async def _send(self) -> None:
        """Send the ping; store its failure."""
        self._task = asyncio.current_task()
        limit_s = self._time_limit.total_seconds()
        try:
            async with asyncio.timeout(limit_s):
                await send_ping(self._url, self._text, self._server, budget=self._time_limit * _RETRY_SHARE)
        except TimeoutError:
            self._failure = f"{self._server} had no answer within {limit_s:.0f} s"
        except TilesyncError as error:
            text = str(error)
            self._failure = text if text.startswith(self._server) else f"{self._server} failed: {text}"
        except Exception as error:  # noqa: BLE001 - a ping never fails a run
            self._failure = f"{self._server} failed ({type(error).__name__})"


async def send_ping(url: str, text: str, server: str, *, budget: timedelta) -> None:
    """POST a text to a URL; retry failures within the budget. Redirects are not followed. Raises TilesyncError."""
    from tilesync.runtime.clock import WallClock
    from tilesync.transport.api_client import ApiRequest, ApiResponse, open_api_client
    from tilesync.transport.retry import retry_after_seconds

    headers = {"Content-Type": "text/plain; charset=utf-8"}

    async def build_request() -> ApiRequest:
        return ApiRequest(url, headers, encode_body(text))

    async def read_response(response: ApiResponse) -> None:
        if response.status >= 500 or response.status in _RETRYABLE_STATUSES:
            raise Transient(f"HTTP {response.status}", retry_after=retry_after_seconds(response.header))
        if 300 <= response.status < 400:
            raise UsageError(f"HTTP {response.status}: redirects are not followed; give the URL that it leads to")
        if response.status >= 400:
            raise UsageError(f"HTTP {response.status}: check the URL of --ping")

    async with open_api_client(WallClock(), lambda _: None, budget=budget) as api_client:
        await api_client.request(server, build_request, read_response)
