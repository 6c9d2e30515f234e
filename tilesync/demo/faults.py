"""Faults of the fake service: which requests they affect, how often, and how the response changes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from tilesync.demo.loopback_server import FakeRequest, FakeResponse

RequestMatcher = Callable[[FakeRequest], bool]
Effect = Callable[[FakeRequest, Callable[[], FakeResponse]], FakeResponse]
"""Takes the request and a function that makes the normal response; returns the response to send."""


@dataclass
class Fault:
    """Affects the first `times` requests that match `matches`, after skipping `skip` of them; None: all.

    Unless `optional`, a fault that was never hit fails the test. `hits` counts how often it was applied.
    """

    matches: RequestMatcher
    effect: Effect
    times: int | None = 1
    skip: int = 0
    optional: bool = False
    hits: int = 0
    seen: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def should_apply(self, request: FakeRequest) -> bool:
        """Return whether the fault applies to this request, and count it."""
        if not self.matches(request):
            return False
        with self.lock:
            self.seen += 1
            applies = self.seen > self.skip and (self.times is None or self.hits < self.times)
            self.hits += applies
        return applies
