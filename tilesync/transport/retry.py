"""Retry loops: one that waits in the event loop, and one that blocks its thread; and what `Retry-After` asks for."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from tilesync.core.backoff import RetryPolicy
from tilesync.core.http_status import parse_http_date, parse_retry_after
from tilesync.errors import Transient, Unavailable
from tilesync.protocols import Clock, Observer
from tilesync.runtime.threads import STOP_EVENT

T = TypeVar("T")


async def retry_async(
    policy: RetryPolicy,
    attempt: Callable[[], Awaitable[T]],
    *,
    now: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
) -> T:
    """Call `attempt` until it raises no Transient. Raises the final error of the policy."""
    while True:
        began_at = now()
        try:
            return await attempt()
        except Transient as error:
            delay_s = policy.delay_after(error, now(), began_at=began_at)
        await sleep(delay_s)


class AsyncRetrier:
    """Retry loop in the event loop, with a time budget for each piece of work."""

    def __init__(self, clock: Clock, observe: Observer, *, budget: timedelta) -> None:
        self._clock = clock
        self._observe = observe
        self._budget_s = budget.total_seconds()

    async def retry(self, subject: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Call `attempt` until it raises no Transient. Raises Unavailable when the retry budget is spent.

        `subject`: name of the work or its server in messages.
        """
        policy = RetryPolicy(subject, self._budget_s, self._observe)
        return await retry_async(policy, attempt, now=self._clock.monotonic, sleep=self._clock.sleep)


class SyncRetrier:
    """Blocking retry loop with a time budget. Thread-safe. It ends at once when the work is cancelled."""

    def __init__(self, observe: Observer, *, budget: timedelta) -> None:
        self._observe = observe
        self._budget_s = budget.total_seconds()

    def retry(self, server: str, attempt: Callable[[], T]) -> T:
        """Call `attempt` until it raises no Transient. Raises Unavailable when the retry budget is spent."""
        policy = RetryPolicy(server, self._budget_s, self._observe)
        while True:
            began_at = time.monotonic()
            try:
                return attempt()
            except Transient as error:
                delay_s = policy.delay_after(error, time.monotonic(), began_at=began_at)
            wait_or_cancel(delay_s, server)


def wait_or_cancel(delay_s: float, subject: str) -> None:
    """Block the thread for some seconds. Raises Unavailable at once when the work is cancelled."""
    if (STOP_EVENT.get() or threading.Event()).wait(delay_s):
        raise Unavailable(f"{subject}: the request was cancelled")


def retry_after_seconds(get_header: Callable[[str], str | None]) -> float | None:
    """Return the seconds of `Retry-After`, None when it is absent. `get_header` returns the value of a header.

    A date is measured from the response's own `Date`, so that a wrong clock on either side does not matter; without
    one, from the clock of this machine.
    """
    text = get_header("retry-after")
    return None if text is None else parse_retry_after(text, parse_http_date(get_header("date")) or datetime.now(UTC))
