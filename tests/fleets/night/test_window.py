"""Window of a night, on days with and without a change of the clocks."""

from __future__ import annotations

import time as clock
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from tilesync.fleets.night.window import compute_end

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
