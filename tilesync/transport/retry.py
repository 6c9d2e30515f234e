"""Trying again while blocking the thread that does so: the loop of all that is asked of a store in between."""

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
    """How long a failing answer is borne with. Safe from any thread. For what is wanted no more nobody waits."""

    def __init__(self, observe: Observer, *, budget: timedelta) -> None:
        self._observe = observe
        self._budget = budget.total_seconds()

    def retry(self, server: str, attempt: Callable[[], T]) -> T:
        """Attempt until it is no longer Transient that is raised. Raises Unavailable past the retry budget."""
        patience, stop = RetryBudget(self._budget), STOP_EVENT.get() or threading.Event()
        while True:
            began = time.monotonic()
            try:
                return attempt()
            except Transient as error:
                wait = patience.next_delay(
                    time.monotonic(), error.retry_after, began_at=began, limit_s=error.retry_limit_s
                )
                if wait is None:
                    raise Unavailable(f"{server} kept failing: {error}", hint=error.hint or None) from error
                if patience.failures == 1:
                    self._observe(Notice(f"{server}: {error}; trying again for up to {self._budget:.0f} s"))
                self._observe(Retried(server, str(error), wait))
            if stop.wait(wait):
                raise Unavailable(f"{server}: it is wanted no more")
