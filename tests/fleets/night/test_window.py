"""Window of a night, on days with and without a change of the clocks."""

from __future__ import annotations

import asyncio
import time as clock
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from tests.support.clock import FakeClock
from tilesync.fleets.night.window import Window, compute_end, open_window

BERLIN = ZoneInfo("Europe/Berlin")
SIX = time(6)


def local(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("now", "until", "max_duration", "end"),
    [
        ("2026-02-10 01:00", None, None, None),
        ("2026-02-10 01:00", SIX, None, "2026-02-10 06:00"),
        ("2026-02-10 22:00", SIX, None, "2026-02-11 06:00"),
        ("2026-02-10 06:00", SIX, None, "2026-02-11 06:00"),
        ("2026-02-10 05:59:59", SIX, None, "2026-02-10 06:00"),
        ("2026-12-31 23:00", SIX, None, "2027-01-01 06:00"),
        ("2026-02-10 01:00", None, timedelta(hours=2), "2026-02-10 03:00"),
        ("2026-02-10 01:00", SIX, timedelta(hours=2), "2026-02-10 03:00"),
        ("2026-02-10 01:00", SIX, timedelta(hours=9), "2026-02-10 06:00"),
    ],
)
def test_the_end(now: str, until: time | None, max_duration: timedelta | None, end: str | None) -> None:
    """The run stops at the time of day, today or tomorrow, or after the duration, whichever is first."""
    found = compute_end(local(now), until, max_duration, zone=BERLIN)
    assert found == (None if end is None else local(end))


@pytest.mark.parametrize(
    ("now", "until", "end"),
    [
        # 29 March 2026, 2:00: clocks go forward to 3:00; 25 October 2026, 3:00: back to 2:00
        ("2026-03-28T22:00Z", SIX, "2026-03-29T04:00Z"),
        ("2026-03-28T22:00Z", time(2, 30), "2026-03-29T01:30Z"),
        ("2026-10-24T20:00Z", SIX, "2026-10-25T05:00Z"),
        ("2026-10-24T20:00Z", time(2, 30), "2026-10-25T00:30Z"),
        ("2026-10-25T00:45Z", time(2, 30), "2026-10-26T01:30Z"),
    ],
)
def test_a_day_on_which_the_clocks_change(now: str, until: time, end: str) -> None:
    """The time is that of the clocks on the wall then, not now; the window is an hour shorter or longer."""
    found = compute_end(datetime.fromisoformat(now), until, None, zone=BERLIN)
    assert found is not None
    assert found.astimezone(UTC) == datetime.fromisoformat(end)


def test_a_duration_across_the_change() -> None:
    """A duration is elapsed time, whatever the clocks do; the earlier end counts in elapsed time too."""
    now = local("2026-03-28 23:00")
    end = compute_end(now, SIX, timedelta(hours=6, minutes=30), zone=BERLIN)
    assert end is not None
    assert end - now.astimezone(UTC) == timedelta(hours=6), "6:00 is only six hours away"
    end = compute_end(now, None, timedelta(hours=6), zone=BERLIN)
    assert end is not None
    assert f"{end:%H:%M}" == "06:00"


def test_a_time_with_a_zone_of_its_own() -> None:
    """A time that names its offset is that of its zone, whatever the zone of the machine."""
    until = time(6, tzinfo=timezone(timedelta(hours=-5)))
    end = compute_end(local("2026-02-10 01:00"), until, None, zone=BERLIN)
    assert end == datetime(2026, 2, 10, 11, tzinfo=UTC)


@pytest.fixture
def berlin_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set the zone of this process to Berlin."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    clock.tzset()
    yield
    monkeypatch.undo()
    clock.tzset()


@pytest.mark.usefixtures("berlin_machine")
def test_the_zone_of_the_machine() -> None:
    """Without a zone that of the machine counts, with the offset that it has at the end; the end is shown in it."""
    now = datetime(2026, 3, 28, 22, tzinfo=UTC)
    end = compute_end(now, SIX, None)
    assert end == datetime(2026, 3, 29, 4, tzinfo=UTC)
    assert f"{end:%Y-%m-%d %H:%M}" == "2026-03-29 06:00"


async def start_two(ends_in_time: asyncio.Event) -> list[asyncio.Task[bool]]:
    """Start a task that ends when the event is set, and one that never ends."""
    return [asyncio.create_task(each.wait()) for each in (ends_in_time, asyncio.Event())]


def test_the_end_of_a_window_cancels_what_still_runs() -> None:
    """Tasks that are done keep their results; the others are cancelled when the window ends."""

    async def main() -> None:
        done, timer = asyncio.Event(), asyncio.get_running_loop().create_future()
        window = Window(None, timer)
        tasks = await start_two(done)
        waiting = asyncio.create_task(window.wait_for(tasks))
        done.set()
        await tasks[0]
        assert (window.has_ended, waiting.done()) == (False, False)
        timer.set_result(None)
        await waiting
        assert window.has_ended
        assert tasks[0].result()
        assert tasks[1].cancelled()

    asyncio.run(main())


def test_a_cancelled_wait_cancels_its_tasks() -> None:
    """A run that is stopped leaves no task behind, and its window has not ended."""

    async def main() -> None:
        async with open_window(FakeClock(), None, None) as window:
            tasks = await start_two(asyncio.Event())
            waiting = asyncio.create_task(window.wait_for(tasks))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert all(task.cancelled() for task in tasks)
            assert (window.end, window.has_ended) == (None, False)

    asyncio.run(main())


def test_a_wait_without_tasks_or_with_a_failing_one() -> None:
    """Without tasks the wait ends at once; an error of a task is not raised."""

    async def fail() -> None:
        raise ValueError

    async def main() -> None:
        async with open_window(FakeClock(), None, None) as window:
            await window.wait_for([])
            failing = asyncio.create_task(fail())
            await window.wait_for([failing])
            assert isinstance(failing.exception(), ValueError)

    asyncio.run(main())
