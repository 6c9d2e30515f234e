"""Resources that all live exports of a server share: clock, events, limits and the cache."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, TypeVar

from tilesync.core.backoff import RetryPolicy
from tilesync.errors import NoFreshLink, TilesyncError, Transient, Unavailable
from tilesync.events import Event, Notice, Warned
from tilesync.protocols import Clock, Observer
from tilesync.runtime.streamed_file import StreamPool
from tilesync.serving.live.cache import MemoryCache

T = TypeVar("T")

MAX_CONCURRENT_DOWNLOADS: Final = 64
"""Maximum downloads into the cache at a time."""

MAX_CONCURRENT_RANGES: Final = 24
"""Maximum ranges of large files that are read at a time, beside the downloads into the cache."""

FRESH_LINK_HINT: Final = "start the server again with a fresh link, or with --link-command"

GOES_ON_HINT: Final = "the server goes on: try again in a moment"

SAME_MESSAGE_S: Final = 600.0
"""Seconds for which the same message is not repeated: an outage fails every request."""

MAX_REMEMBERED_MESSAGES: Final = 1000
"""Messages whose repetitions are left out; beyond that, the oldest one is forgotten."""


class Announcer:
    """Observer that leaves out messages which it passed on shortly before."""

    def __init__(self, observe: Observer, clock: Clock) -> None:
        self._observe = observe
        self._clock = clock
        self._sent_at_s = OrderedDict[object, float]()  # the oldest first

    def __call__(self, event: Event) -> None:
        """Pass an event on, unless it is a message that was passed on in the last SAME_MESSAGE_S."""
        if not isinstance(event, Notice | Warned) or self._is_due(event):
            self._observe(event)

    def warn(self, message: str, error: TilesyncError, *, topic: str = "") -> None:
        """Warn about an error, with its hint. Messages of one topic count as equal, also with other texts."""
        hint = find_server_hint(error)
        event = Warned(f"{message}{error}" + (f" ({hint})" if hint else ""))
        if self._is_due(topic or event):
            self._observe(event)

    def _is_due(self, key: object) -> bool:
        now_s, sent = self._clock.monotonic(), self._sent_at_s
        while sent and (now_s - next(iter(sent.values())) >= SAME_MESSAGE_S or len(sent) >= MAX_REMEMBERED_MESSAGES):
            sent.popitem(last=False)
        is_due = key not in sent
        sent.setdefault(key, now_s)
        return is_due


def find_server_hint(error: TilesyncError) -> str:
    """Return the hint of an error for the person who runs the server, whose next run continues nothing."""
    is_for_runs = isinstance(error, NoFreshLink) and error.hint == error.default_hint
    return FRESH_LINK_HINT if is_for_runs else error.hint


@dataclass(frozen=True)
class LiveContext:
    """Resources of a server of live exports.

    `retry_for`: how long a failing request to the container is retried. `open_limit`: longest wait until the container
    begins to answer, also while its link is being renewed.
    """

    clock: Clock
    announcer: Announcer
    cache: MemoryCache
    retry_for: timedelta = timedelta(seconds=10)
    open_limit: timedelta = timedelta(seconds=30)
    streams: StreamPool = field(default_factory=StreamPool)
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_CONCURRENT_DOWNLOADS))
    range_slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_CONCURRENT_RANGES))

    async def within_limit(self, opening: Coroutine[Any, Any, T]) -> T:
        """Return the result of a request that opens a blob. Raises Unavailable after `open_limit`.

        A service that throttles may want minutes before it renews a link: no viewer waits that long.
        """
        try:
            async with asyncio.timeout(self.open_limit.total_seconds()):
                return await opening
        except TimeoutError:
            raise Unavailable(
                f"no answer within {self.open_limit.total_seconds():.0f} s: the container or the service is slow",
                hint=GOES_ON_HINT,
            ) from None

    def new_policy(self) -> RetryPolicy:
        """Return the retry policy of one request to the container."""
        return _ContainerPolicy("the container", self.retry_for.total_seconds(), self.announcer)


class _ContainerPolicy(RetryPolicy):
    def final_error(self, error: Transient) -> TilesyncError:
        return Unavailable(f"{self.subject} kept failing: {error}", hint=error.hint or GOES_ON_HINT)
