"""Blocking retry loop."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest

from tilesync.errors import NotAuthorised, Transient, Unavailable
from tilesync.events import Event, Notice, Retried
from tilesync.runtime.threads import map_in_threads, run_in_thread, without_retries
from tilesync.transport.retry import SyncRetrier


def test_transient_errors_are_retried() -> None:
    """Transient errors are retried, each with an event, the first one also with a notice."""
    events: list[Event] = []
    left = [Transient("slow"), Transient("slow")]

    def attempt() -> int:
        if left:
            raise left.pop()
        return 7

    assert SyncRetrier(events.append, budget=timedelta(seconds=5)).retry("the store", attempt) == 7
    assert [type(event) for event in events] == [Notice, Retried, Retried]


def test_budget_ends_retries() -> None:
    """When the budget is spent, the error names the server and the reason."""

    def attempt() -> int:
        raise Transient("no connection")

    with pytest.raises(Unavailable, match="the store kept failing: no connection"):
        SyncRetrier(lambda event: None, budget=timedelta(seconds=0.2)).retry("the store", attempt)


def test_other_errors_are_not_retried() -> None:
    """Other errors are raised at once."""
    attempts: list[int] = []

    def attempt() -> int:
        attempts.append(1)
        raise NotAuthorised("no")

    with pytest.raises(NotAuthorised):
        SyncRetrier(lambda event: None, budget=timedelta(seconds=5)).retry("the store", attempt)
    assert len(attempts) == 1


def down() -> None:
    """Retry a store that is down, for a minute."""

    def attempt() -> None:
        raise Transient("no connection")

    SyncRetrier(lambda event: None, budget=timedelta(seconds=60)).retry("the store", attempt)


def test_cancellation_ends_retries() -> None:
    """Cancelled work stops waiting in all its threads; later work is retried as usual."""
    left = [Transient("slow"), Transient("slow")]

    def attempt() -> int:
        if left:
            raise left.pop()
        return 7

    async def work() -> int:
        started_at = time.monotonic()
        for job in (down, lambda: map_in_threads(lambda _: down(), range(3), max_threads=3)):
            waiting = asyncio.create_task(run_in_thread(job))
            await asyncio.sleep(0.1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        with pytest.raises(Unavailable, match="the request was cancelled"):
            await without_retries(down)
        assert time.monotonic() - started_at < 10
        retrier = SyncRetrier(lambda event: None, budget=timedelta(seconds=20))
        return await run_in_thread(retrier.retry, "the store", attempt)

    assert asyncio.run(work()) == 7
