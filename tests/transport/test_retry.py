"""Trying again while blocking."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest

from tilesync.errors import NotAuthorised, Transient, Unavailable
from tilesync.events import Event, Notice, Retried
from tilesync.runtime.threads import map_in_threads, run_in_thread, without_retries
from tilesync.transport.retry import SyncRetrier


def test_it_is_tried_until_it_is_done() -> None:
    """What another attempt may cure is tried again, and each time is told, the first one to a person."""
    events: list[Event] = []
    left = [Transient("slow"), Transient("slow")]

    def attempt() -> int:
        if left:
            raise left.pop()
        return 7

    assert SyncRetrier(events.append, budget=timedelta(seconds=5)).retry("the store", attempt) == 7
    assert [type(event) for event in events] == [Notice, Retried, Retried]


def test_patience_ends() -> None:
    """Past the budget it is said who failed and how."""

    def attempt() -> int:
        raise Transient("no connection")

    with pytest.raises(Unavailable, match="the store kept failing: no connection"):
        SyncRetrier(lambda event: None, budget=timedelta(seconds=0.2)).retry("the store", attempt)


def test_what_nothing_cures_is_not_tried_again() -> None:
    """Other errors pass at once."""
    attempts: list[int] = []

    def attempt() -> int:
        attempts.append(1)
        raise NotAuthorised("no")

    with pytest.raises(NotAuthorised):
        SyncRetrier(lambda event: None, budget=timedelta(seconds=5)).retry("the store", attempt)
    assert len(attempts) == 1


def down() -> None:
    """A store that is down, for a minute."""

    def attempt() -> None:
        raise Transient("no connection")

    SyncRetrier(lambda event: None, budget=timedelta(seconds=60)).retry("the store", attempt)


def test_what_is_wanted_no_more_is_given_up() -> None:
    """Who is cancelled waits no longer, in however many threads; who comes after is borne with as ever."""
    left = [Transient("slow"), Transient("slow")]

    def attempt() -> int:
        if left:
            raise left.pop()
        return 7

    async def work() -> int:
        began = time.monotonic()
        for job in (down, lambda: map_in_threads(lambda _: down(), range(3), max_threads=3)):
            waiting = asyncio.create_task(run_in_thread(job))
            await asyncio.sleep(0.1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        with pytest.raises(Unavailable, match="the request was cancelled"):
            await without_retries(down)
        assert time.monotonic() - began < 10
        insistence = SyncRetrier(lambda event: None, budget=timedelta(seconds=20))
        return await run_in_thread(insistence.retry, "the store", attempt)

    assert asyncio.run(work()) == 7
