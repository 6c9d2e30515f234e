"""When to try again, and when to stop trying."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from random import Random

FIRST_DELAY_S = 0.25
"""Seconds before the first retry, before jitter."""

MAX_DELAY_S = 20.0
"""Seconds between two retries at most, unless the server asks for more."""

MAX_RETRY_AFTER_S = 120.0
"""The longest Retry-After, in seconds, that is waited for beyond the budget, once."""

PROGRESS_WINDOW = timedelta(seconds=30)
MIN_PROGRESS_BYTES = 1 << 10
"""Fewer bytes than that in a window of waiting are no progress: a line that slow carries nothing."""


def has_stalled(received_bytes: int, seconds: float) -> bool:
    """Whether what an attempt brought, in so many seconds, is too little to go on for: a body that trickles, or falls
    silent behind a few bytes, would otherwise never use up its patience, however often it is continued.
    """
    return received_bytes < MIN_PROGRESS_BYTES and seconds >= PROGRESS_WINDOW.total_seconds()


@dataclass
class RetryBudget:
    """How long one piece of work may keep failing: exponential backoff with jitter inside a budget of seconds.

    Retry-After is obeyed. The last wait is cut to what is left of the budget. Progress gives the whole budget back.
    Whoever has a budget at all has one retry, also where the first attempt stalled for longer than that.
    """

    budget_s: float
    random: Random = field(default_factory=Random)
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
        """Seconds to wait after one more failure at `now`, of an attempt that `began` then; None to give up. `limit`:
        a budget for this kind of failure, where that is smaller.
        """
        self.failures += 1
        if self.failing_since_s is None:
            self.failing_since_s = now if began_at is None else began_at
        pause = min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(self.failures - 1, 10)) * (0.5 + self.random.random() / 2)
        if retry_after is not None:
            pause = max(retry_after * (1 + self.random.random() / 10), min(pause, 1.0))
        budget = self.budget_s if limit_s is None else min(self.budget_s, limit_s)
        left = budget - (now - self.failing_since_s)
        if retry_after is None and FIRST_DELAY_S / 2 <= left < pause and not self.used_last_retry:
            self.used_last_retry = True
            return left
        if pause <= left:
            return pause
        if self.failures > 1:
            return None
        if retry_after is None:
            return pause if self.budget_s >= FIRST_DELAY_S else None
        return pause if retry_after <= MAX_RETRY_AFTER_S else None

    def record_progress(self) -> None:
        """The work moved on: what failed before is forgiven."""
        self.failures = 0
        self.failing_since_s = None
        self.used_last_retry = False
