"""Status of a mirror: fresh, stale or failing, with the reasons."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.support.fleet_statuses import make_fleet
from tilesync.model.history import HeldVersion, MirrorHistory, RunRecord
from tilesync.monitoring.status import (
    Health,
    find_error,
    make_status,
    parse_time,
    sort_problems_first,
    with_later_success,
)

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


def test_a_killed_run_is_told_apart_from_one_that_goes_on() -> None:
    """While a run goes on, health and reasons are those from before it; if none goes on, it was killed."""
    history = MirrorHistory().with_run(night(29), HELD).with_run(RunRecord("2026-11-30T02:00:00.123Z"))
    running = make_status("office", "/d", history, now=NOW, is_running=True)
    assert (running.health, running.reasons, running.is_running, running.hint) == (Health.FRESH, (), True, "")
    killed = make_status("office", "/d", history, now=NOW, is_running=False)
    assert killed.reasons == ("the run that started at 2026-11-30T02:00:00Z was killed",)
    assert (killed.health, killed.is_running) == (Health.FAILING, False)
    ended = make_status("office", "/d", MirrorHistory().with_run(night(29), HELD), now=NOW, is_running=True)
    assert not ended.is_running, "the lock is held by a command that records no run, such as rollback"


def test_a_first_run_that_goes_on_is_never() -> None:
    """Before the first run has ended, a mirror is not fresh."""
    history = MirrorHistory().with_run(RunRecord("2026-11-30T02:00:00Z"))
    assert make_status("office", "/d", history, now=NOW, is_running=True).health is Health.NEVER


def test_a_later_success_of_another_machine_counts() -> None:
    """A failure in this state is outdated if `checked.json` has a later success; an earlier one changes nothing."""
    failed = MirrorHistory().with_run(night(28), HELD).with_run(night(29, 6, message="no answer"))
    later = with_later_success(failed, "2026-11-30T01:00:00Z")
    assert status_of(later) == (Health.FRESH, ())
    assert later.last_success == "2026-11-30T01:00:00Z"
    for checked in ("2026-11-01T01:00:00Z", None, "yesterday"):
        assert with_later_success(failed, checked) == failed


def test_a_problem_of_the_published_version_is_failing() -> None:
    """A mirror whose runs are good, but whose published version is damaged, is failing."""
    history = MirrorHistory().with_run(night(30), HELD)
    status = make_status("office", "/d", history, now=NOW, problems=["bad files"])
    assert (status.health, status.reasons) == (Health.FAILING, ("bad files",))


def test_the_error_counts_the_mirrors_that_are_not_fresh() -> None:
    """The error of a fleet has a number for each health, the worst first; that of one mirror has reason and command."""
    fresh = make_status("a", "/a", MirrorHistory().with_run(night(30), HELD), now=NOW)
    failing = make_status(
        "b",
        "/b",
        MirrorHistory().with_run(night(30, 8, message="the disk is full", hint="free some")),
        now=NOW,
        command="tilesync mirror b",
    )
    never = make_status("c", "/c", MirrorHistory(), now=NOW)
    assert find_error([fresh]) is None
    assert str(find_error([fresh, never, failing])) == "2 of 3 mirrors are not fresh: 1 failing, 1 not mirrored yet"
    error = find_error([failing])
    assert error is not None
    assert (str(error), error.exit_code) == ("b is failing: the disk is full", 12)
    assert error.hint == "free some; to continue: tilesync mirror b"


def test_problems_are_sorted_first() -> None:
    """The order is failing, never, stale, fresh, and by name among equals."""
    names = [status.name for status in sort_problems_first(make_fleet())]
    assert names[:4] == ["mirror-03", "mirror-11", "mirror-23", "mirror-29"]
    assert names[4:7] == ["mirror-41", "mirror-17", "mirror-31"]
    assert names[8:] == sorted(names[8:], key=str.casefold)


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
