"""Retry policy: exponential backoff with jitter, events, when to give up, and what counts as progress."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from random import Random

from tilesync.errors import AllCallsWait, TilesyncError, Transient, Unavailable
from tilesync.events import Event, Notice, Retried
from tilesync.values import dataclass

FIRST_DELAY_S = 0.25
"""Seconds before the first retry, before jitter."""

MAX_DELAY_S = 20.0
"""Maximum seconds between two retries, unless the server asks for more."""

MAX_RETRY_AFTER_S = 120.0
"""Maximum Retry-After, in seconds, that is obeyed once even if the budget is shorter."""

PROGRESS_WINDOW = timedelta(seconds=30)
MIN_PROGRESS_BYTES = 1 << 10
"""Fewer bytes than this in one window count as no progress: the connection is useless."""


def has_stalled(received_bytes: int, seconds: float) -> bool:
    """Return whether an attempt received too little in its time to count as progress.

    Otherwise a body that trickles, or stops after a few bytes, would reset the retry budget each time it is resumed.
    """
    return received_bytes < MIN_PROGRESS_BYTES and seconds >= PROGRESS_WINDOW.total_seconds()


class LowSpeedGuard:
    """Guard that fails a body which stalls, even if bytes still arrive within every read timeout.

    It counts the bytes, and the seconds spent waiting for them.
    """

    def __init__(self) -> None:
        self._window_s = PROGRESS_WINDOW.total_seconds()
        self._waited_s = 0.0
        self._received_bytes = 0

    def record(self, count: int, seconds: float) -> None:
        """Record that `count` bytes came after `seconds` of waiting. Raises Transient for a body that stalls."""
        self._waited_s += seconds
        self._received_bytes += count
        if self._waited_s >= self._window_s:
            if self._received_bytes < MIN_PROGRESS_BYTES:
                raise Transient(f"only {self._received_bytes} bytes arrived within {self._waited_s:.0f} s")
            self._waited_s, self._received_bytes = 0.0, 0


@dataclass
class RetryBudget:
    """Retry budget of one piece of work: exponential backoff with jitter within a number of seconds.

    Retry-After is obeyed. The last delay is cut to the rest of the budget. Progress restores the whole budget. Any
    budget above zero allows one retry, even if the first attempt took longer than the budget.
    """

    budget_s: float
    random: Random | None = None
    failures: int = 0
    failing_since_s: float | None = None
    used_last_retry: bool = False

    def next_delay(
        self,
        now: float,
        retry_after: float | None = None,
        *,
        began_at: float | None = None,
        limit_s: float | None = None,
    ) -> float | None:
        """Return the seconds to wait after a failure at `now`, or None to give up.

        `began_at`: start of the failed attempt. `limit_s`: budget for this kind of failure, if smaller.
        """
        random = self.random or Random()  # not earlier: most work never fails, and seeding takes longer than the rest
        self.failures += 1
        if self.failing_since_s is None:
            self.failing_since_s = now if began_at is None else began_at
        delay = min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(self.failures - 1, 10)) * (0.5 + random.random() / 2)
        if retry_after is not None:
            delay = max(retry_after * (1 + random.random() / 10), min(delay, 1.0))
        budget = self.budget_s if limit_s is None else min(self.budget_s, limit_s)
        remaining = budget - (now - self.failing_since_s)
        if retry_after is None and FIRST_DELAY_S / 2 <= remaining < delay and not self.used_last_retry:
            self.used_last_retry = True
            return remaining
        if delay <= remaining:
            return delay
        if self.failures > 1:  # the budget is spent; only a first failure may exceed it
            return None
        if retry_after is None:
            return delay if self.budget_s >= FIRST_DELAY_S else None
        return delay if retry_after <= MAX_RETRY_AFTER_S else None

    def record_progress(self) -> None:
        """Forget earlier failures, since the work made progress."""
        self.failures = 0
        self.failing_since_s = None
        self.used_last_retry = False


class RetryPolicy:
    """Retries of one piece of work: how long to wait after each failure, what to report, and the final error.

    `subject`: name of the work or its server in events and errors.
    """

    def __init__(self, subject: str, budget_s: float, observe: Callable[[Event], None]) -> None:
        self.subject = subject
        self.budget = RetryBudget(budget_s)
        self.observe = observe

    def delay_after(self, error: Transient, now: float, *, began_at: float) -> float:
        """Report a failure at `now`, and return the seconds to wait before the next attempt.

        Raises the final error when the budget is spent.
        """
        delay_s = self.budget.next_delay(now, error.retry_after, began_at=began_at, limit_s=error.retry_limit_s)
        if delay_s is None:
            raise self.final_error(error) from error
        if self.budget.failures == 1:
            self.report_first(error)
        self.observe(Retried(self.subject, str(error), delay_s))
        return delay_s

    def report_first(self, error: Transient) -> None:
        """Report the first failure to the user."""
        ending = "" if isinstance(error, AllCallsWait) else f"; trying again for up to {self.budget.budget_s:.0f} s"
        self.observe(Notice(f"{self.subject}: {error}{ending}"))

    def final_error(self, error: Transient) -> TilesyncError:
        """Return the error to raise after the last failure."""
        requested = f"; it asks to wait {error.retry_after:.0f} s" if error.retry_after else ""
        return Unavailable(f"{self.subject} kept failing: {error}{requested}", hint=error.hint or None)
