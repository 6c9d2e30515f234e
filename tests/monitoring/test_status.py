"""Status of a mirror: fresh, stale or failing, with the reasons."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tilesync.model.history import HeldVersion, MirrorHistory, RunRecord
from tilesync.monitoring.status import Health, make_status, parse_time

NOW = datetime(2026, 11, 30, 6, 0, tzinfo=UTC)
WEEK = timedelta(days=7)

HELD = HeldVersion("e1", "e1", "2026-11-29T20:00:00Z", "2026-11-30T02:05:00Z", 440, 8_000_000)


def night(day: int, exit_code: int | None = 0, **fields: object) -> RunRecord:
    """Make the run of a night of November."""
    known: dict[str, object] = {"finished": f"2026-11-{day:02d}T02:05:00Z", "exit": exit_code, "newest": "e1"} | fields
    return RunRecord(f"2026-11-{day:02d}T02:00:00Z", **known)  # type: ignore[arg-type]  # fields by name


def status_of(history: MirrorHistory, max_age: timedelta | None = WEEK) -> tuple[Health, tuple[str, ...]]:
    """Compute health and reasons on the last day of November."""
    status = make_status("office", "/srv/tiles/office", history, now=NOW, max_age=max_age)
    return status.health, status.reasons


def test_a_good_night_is_fresh() -> None:
    """A mirror whose last run ended well, and whose times are young, has no reason to be anything but fresh."""
    assert status_of(MirrorHistory().with_run(night(30), HELD)) == (Health.FRESH, ())


def test_no_run_is_never() -> None:
    """A mirror without a run has never succeeded."""
    assert status_of(MirrorHistory()) == (Health.NEVER, ("no run has ended well yet",))


def test_a_failed_run_says_its_message() -> None:
    """A failing mirror gives the message of its latest run, whatever was before."""
    history = MirrorHistory().with_run(night(29), HELD).with_run(night(30, 8, message="the disk is full"))
    assert status_of(history) == (Health.FAILING, ("the disk is full",))


def test_a_killed_run_is_failing() -> None:
    """A run that never ended counts as failed: it may have been killed."""
    history = MirrorHistory().with_run(night(29), HELD).with_run(RunRecord("2026-11-30T02:00:00Z"))
    assert status_of(history) == (
        Health.FAILING,
        ("the run that started at 2026-11-30T02:00:00Z is going on, or was killed",),
    )


def test_an_old_success_is_stale() -> None:
    """A mirror that has not run for longer than the limit is stale; without a limit it is not."""
    history = MirrorHistory().with_run(night(20), HELD)
    assert status_of(history) == (Health.STALE, ("it last succeeded 10 d 3 h ago; the limit is 7 d",))
    assert status_of(history, None) == (Health.FRESH, ())


def test_an_old_export_is_stale_only_while_there_is_a_newer_one() -> None:
    """The age of the published export counts if the service has a newer one."""
    old = HeldVersion("e1", "e1", "2026-11-01T06:00:00Z")
    assert status_of(MirrorHistory().with_run(night(30), old)) == (Health.FRESH, ())
    health, reasons = status_of(MirrorHistory().with_run(night(30, newest="e2", behind=True), old))
    assert (health, reasons) == (
        Health.STALE,
        ("the published export is 29 d old, and there is a newer one; the limit is 7 d",),
    )


def test_a_mirror_that_stays_behind_is_stale() -> None:
    """A mirror that could not take the newest export for longer than the limit is stale, though its runs are good."""
    history = MirrorHistory()
    for day in range(20, 31):
        history = history.with_run(night(day, newest="e2", behind=True), HELD)
    assert status_of(history) == (
        Health.STALE,
        ("the newest export could not be mirrored for 10 d 4 h; the limit is 7 d",),
    )


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-30T06:00:00Z", NOW),
        ("2026-11-30T07:00:00+01:00", NOW),
        ("2026-11-30T06:00:00", NOW),
        ("", None),
        (None, None),
        ("yesterday", None),
    ],
)
def test_times_of_the_service_are_read(text: str | None, moment: datetime | None) -> None:
    """A time without a zone is UTC; what is no time is unknown."""
    assert parse_time(text) == moment
