"""Retry loop that blocks its thread, for requests to a store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from tilesync.core.backoff import RetryBudget
from tilesync.errors import Transient, Unavailable
from tilesync.events import Notice, Retried
from tilesync.protocols import Observer
from tilesync.runtime.threads import STOP_EVENT

T = TypeVar("T")


class SyncRetrier:
    """Blocking retry loop with a time budget. Thread-safe. It ends at once when the work is cancelled."""

    def __init__(self, observe: Observer, *, budget: timedelta) -> None:
        self._observe = observe
        self._budget = budget.total_seconds()

    def retry(self, server: str, attempt: Callable[[], T]) -> T:
        """Call `attempt` until it raises no Transient. Raises Unavailable when the retry budget is spent."""
        retry_budget, stop = RetryBudget(self._budget), STOP_EVENT.get() or threading.Event()
        while True:
            started_at = time.monotonic()
            try:
                return attempt()
            except Transient as error:
                delay_s = retry_budget.next_delay(
                    time.monotonic(), error.retry_after, began_at=started_at, limit_s=error.retry_limit_s
                )
                if delay_s is None:
                    raise Unavailable(f"{server} kept failing: {error}", hint=error.hint or None) from error
                if retry_budget.failures == 1:
                    self._observe(Notice(f"{server}: {error}; trying again for up to {self._budget:.0f} s"))
                self._observe(Retried(server, str(error), delay_s))
            if stop.wait(delay_s):
                raise Unavailable(f"{server}: the request was cancelled")
