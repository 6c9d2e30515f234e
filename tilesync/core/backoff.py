"""When to try again, and when to stop trying."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from random import Random

FIRST = 0.25
"""Seconds before the first retry, before jitter."""

LONGEST = 20.0
"""Seconds between two retries at most, unless the server asks for more."""

OBEYED = 120.0
"""The longest Retry-After, in seconds, that is waited for beyond the budget, once."""

WINDOW = timedelta(seconds=30)
LEAST = 1 << 10
"""Fewer bytes than that in a window of waiting are no progress: a line that slow carries nothing."""


def trickled(came: int, seconds: float) -> bool:
    """Whether what an attempt brought, in so many seconds, is too little to go on for: a body that trickles, or falls
    silent behind a few bytes, would otherwise never use up its patience, however often it is continued.
    """
    return came < LEAST and seconds >= WINDOW.total_seconds()


@dataclass
class Patience:
    """How long one piece of work may keep failing: exponential backoff with jitter inside a budget of seconds.

    Retry-After is obeyed. The last wait is cut to what is left of the budget. Progress gives the whole budget back.
    Whoever has a budget at all has one retry, also where the first attempt stalled for longer than that.
    """

    budget: float
    random: Random = field(default_factory=Random)
    failures: int = 0
    since: float | None = None
    last: bool = False

    def next_wait(
        self,
        now: float,
        retry_after: float | None = None,
        *,
        began: float | None = None,
        limit: float | None = None,
    ) -> float | None:
        """Seconds to wait after one more failure at `now`, of an attempt that `began` then; None to give up. `limit`:
        a budget for this kind of failure, where that is smaller.
        """
        self.failures += 1
        if self.since is None:
            self.since = now if began is None else began
        pause = min(LONGEST, FIRST * 2.0 ** min(self.failures - 1, 10)) * (0.5 + self.random.random() / 2)
        if retry_after is not None:
            pause = max(retry_after * (1 + self.random.random() / 10), min(pause, 1.0))
        budget = self.budget if limit is None else min(self.budget, limit)
        left = budget - (now - self.since)
        if retry_after is None and FIRST / 2 <= left < pause and not self.last:
            self.last = True
            return left
        if pause <= left:
            return pause
        if self.failures > 1:
            return None
        if retry_after is None:
            return pause if self.budget >= FIRST else None
        return pause if retry_after <= OBEYED else None

    def progress(self) -> None:
        """The work moved on: what failed before is forgiven."""
        self.failures = 0
        self.since = None
        self.last = False
