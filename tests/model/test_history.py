"""History of a mirror: runs are added, and facts outlive them."""

from __future__ import annotations

from tilesync.model.history import MAX_RUNS, HeldVersion, MirrorHistory, RunRecord


def run(day: int, exit_code: int | None = 0, *, newest: str | None = "e1", behind: bool = False) -> RunRecord:
    """Make the run of a night."""
    moment = f"2026-11-{day:02d}T02:00:00Z"
    return RunRecord(
        moment,
        finished=f"2026-11-{day:02d}T02:05:00Z",
        exit=exit_code,
        newest=newest,
        newest_modified=moment,
        behind=behind,
    )


def test_the_oldest_runs_are_dropped() -> None:
    """A history keeps a bounded number of runs, the latest last."""
    history = MirrorHistory()
    for number in range(MAX_RUNS + 5):
        history = history.with_run(RunRecord(f"run {number}"))
    assert len(history.runs) == MAX_RUNS
    assert history.last_run == RunRecord(f"run {MAX_RUNS + 4}")


def test_the_end_of_a_run_replaces_its_beginning() -> None:
    """A run is stored when it starts and again when it ends, as one run."""
    begun = MirrorHistory().with_run(RunRecord("2026-11-01T02:00:00Z"))
    assert begun.last_run is not None
    assert begun.last_run.exit is None
    ended = begun.with_run(run(1))
    assert ended.runs == (run(1),)
    assert ended.with_run(run(2)).runs == (run(1), run(2))


def test_success_and_held_version_outlive_failed_runs() -> None:
    """After failed runs the history still knows the last success, and the version that is held."""
    held = HeldVersion("v1", "e1", files=3, bytes=5)
    history = (
        MirrorHistory().with_run(run(1), held).with_run(run(2, 6, newest=None)).with_run(run(3, None, newest=None))
    )
    assert history.last_success == "2026-11-01T02:05:00Z"
    assert history.held == held
    assert (history.newest, history.newest_modified) == ("e1", "2026-11-01T02:00:00Z")


def test_behind_is_counted_from_its_first_night() -> None:
    """`behind_since` is the first of consecutive nights behind; a night that knows nothing does not end it."""
    history = MirrorHistory().with_run(run(1)).with_run(run(2, behind=True)).with_run(run(3, 6, newest=None))
    assert history.with_run(run(4, behind=True)).behind_since == "2026-11-02T02:00:00Z"
    assert history.with_run(run(4)).behind_since is None
