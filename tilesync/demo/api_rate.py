"""Rate limit of the fake service's API, and the times of its calls."""

from __future__ import annotations

import bisect
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

WINDOW_S = 60.0
"""Length of the window in which calls are counted, in seconds, as in the limits of the iTwin Platform."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Rate limit: `calls` are accepted in each window of `seconds`, and no more."""

    calls: int
    seconds: float = WINDOW_S


class ApiCallLog:
    """Times at which calls of the API arrived, and whether the rate limit accepts one more. Safe from any thread.

    `read_clock`: seconds on a clock that never goes back; a test can give the clock of its client.
    """

    def __init__(self, read_clock: Callable[[], float] = time.monotonic) -> None:
        self.read_clock = read_clock
        self.limit: RateLimit | None = None
        self.refused = 0
        """Number of calls that the limit refused."""
        self._arrivals: list[float] = []
        self._accepted: list[float] = []
        self._lock = threading.Lock()

    def record(self) -> int | None:
        """Record a call that arrives now. Return the whole seconds to wait if the limit refuses it, else None."""
        with self._lock:
            now = self.read_clock()
            self._arrivals.append(now)
            if self.limit is not None and self._count(self._accepted, now, self.limit.seconds) >= self.limit.calls:
                self.refused += 1
                return max(1, math.ceil(self._accepted[-self.limit.calls] + self.limit.seconds - now))
            self._accepted.append(now)
            return None

    def calls_in_window(self, seconds: float = WINDOW_S) -> int:
        """Count the calls of the last `seconds`, also the refused ones."""
        with self._lock:
            return self._count(self._arrivals, self.read_clock(), seconds)

    def most_calls_in_window(self, seconds: float = WINDOW_S) -> int:
        """Return the largest number of calls in any window of `seconds`, also the refused ones."""
        with self._lock:
            times = self._arrivals
            return max((n + 1 - bisect.bisect_right(times, at - seconds) for n, at in enumerate(times)), default=0)

    @property
    def total(self) -> int:
        """Number of calls so far."""
        return len(self._arrivals)

    def clear(self) -> None:
        """Forget the calls so far."""
        with self._lock:
            self._arrivals.clear()
            self._accepted.clear()
            self.refused = 0

    @staticmethod
    def _count(times: list[float], now: float, seconds: float) -> int:
        """Count the times of the half-open window that ends now: (now - seconds, now]."""
        return len(times) - bisect.bisect_right(times, now - seconds)
