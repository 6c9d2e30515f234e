"""Each run of a mirror is recorded in its destination: when it begins, and again when it ends."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import tilesync as ts
from tests.support.builders import IMODEL
from tests.support.commandline import run_tilesync
from tests.support.faults import call_before, error_response, is_blob, is_blob_named
from tests.support.killed_runs import kill_after, start_mirror
from tests.support.simulator import EXPORT, OTHER_EXPORT, Simulator
from tilesync.catalog.history import decode_history
from tilesync.jobs.versions import run_history
from tilesync.model.history import MirrorHistory

OTHER_IMODEL = "99999999-2222-4333-8444-555555555555"


def service(sim: Simulator) -> dict[str, Any]:
    """Return the arguments that connect to a simulator."""
    return {"auth": ts.Token(sim.token), "api_url": sim.url}


def read_stored_history(dest: Path) -> MirrorHistory:
    """Read the history from the database of a destination, as another program would."""
    with closing(sqlite3.connect(f"{(dest / '.tilesync/catalog.sqlite3').as_uri()}?mode=ro", uri=True)) as db:
        row = db.execute("SELECT value FROM meta WHERE key='history'").fetchone()
    return decode_history(row[0]) if row else MirrorHistory()


def test_a_run_is_recorded_with_its_facts(sim: Simulator, tmp_path: Path) -> None:
    """The record of a run has the counts and times of its result, the newest export, and the version that is held."""
    files = sim.offer_export()
    result = ts.mirror(IMODEL, tmp_path, **service(sim))
    history = read_stored_history(tmp_path)
    (run,) = history.runs
    size = sum(map(len, files.values()))
    assert (run.exit, run.error, run.message, run.published, run.behind) == (0, "", "", True, False)
    assert (run.listed, run.fetched, run.bytes, run.held_bytes) == (len(files), len(files), size, size)
    assert (run.export, run.version, run.newest) == (EXPORT, EXPORT, EXPORT)
    assert run.newest_modified == sim.exports[0]["lastModified"]
    assert run.started <= (run.finished or "")
    assert run.started[:19] == result.to_dict()["started"][:19]
    held = history.held
    assert held is not None
    assert (held.version, held.export, held.files, held.bytes) == (EXPORT, EXPORT, len(files), size)
    assert (held.modified, held.published[:2]) == (sim.exports[0]["lastModified"], "20")
    assert (history.last_success, history.behind_since) == (run.finished, None)


def test_each_run_adds_a_record(sim: Simulator, tmp_path: Path) -> None:
    """Runs within one second are records of their own; one that finds nothing new keeps the held version."""
    sim.offer_export()
    for _ in range(3):
        ts.mirror(IMODEL, tmp_path, **service(sim))
    history = read_stored_history(tmp_path)
    assert [run.published for run in history.runs] == [True, False, False]
    assert len({run.held_bytes for run in history.runs}) == 1
    assert history.held is not None


def test_a_failed_run_is_recorded_with_its_reason(sim: Simulator, tmp_path: Path) -> None:
    """A failed run has exit code, error, message and hint; success and held version stay those of the run before."""
    sim.offer_export()
    ts.mirror(IMODEL, tmp_path, **service(sim))
    sim.offer_changed_export(OTHER_EXPORT, 5)
    sim.add_fault(is_blob_named("tiles/003.glb"), error_response(404, "BlobNotFound"), times=None)
    with pytest.raises(ts.TilesyncError) as caught:
        ts.mirror(IMODEL, tmp_path, **service(sim))
    history = read_stored_history(tmp_path)
    first, run = history.runs
    assert (run.exit, run.error, run.message, run.hint) == (3, "Incomplete", str(caught.value), caught.value.hint)
    assert (run.failed, run.newest) == (1, OTHER_EXPORT)
    assert history.last_success == first.finished
    assert history.held is not None
    assert history.held.export == EXPORT


def test_a_mirror_of_an_older_export_is_behind(sim: Simulator, tmp_path: Path) -> None:
    """While the newest export is not finished, the history knows since when, and which export that is."""
    sim.offer_export()
    sim.offer_export(export_id=OTHER_EXPORT, status="InProgress", lastModified="2026-03-05T08:30:00Z")
    ts.mirror(IMODEL, tmp_path, **service(sim))
    history = read_stored_history(tmp_path)
    assert history.behind_since == history.runs[0].started
    assert (history.newest, history.newest_modified) == (OTHER_EXPORT, "2026-03-05T08:30:00Z")


def test_a_cancelled_run_is_recorded_as_interrupted(sim: Simulator, tmp_path: Path) -> None:
    """A run that is cancelled has exit code 130."""
    sim.offer_export()
    stuck, release = threading.Event(), threading.Event()
    sim.add_fault(is_blob, call_before(stuck.set, lambda: release.wait(30)))

    async def cancel() -> None:
        task = asyncio.create_task(ts.aio.mirror(IMODEL, tmp_path, **service(sim)))
        assert await asyncio.to_thread(stuck.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    try:
        asyncio.run(cancel())
    finally:
        release.set()
    (run,) = read_stored_history(tmp_path).runs
    assert (run.exit, run.error, run.message) == (130, "Interrupted", "interrupted")


def test_a_bug_is_recorded(sim: Simulator, tmp_path: Path) -> None:
    """An exception that is no error of tilesync is exit code 1, without its text, which may have secrets."""
    sim.offer_export()

    def fail(report: dict[str, Any]) -> None:
        raise ZeroDivisionError("secret")

    with pytest.raises(ZeroDivisionError):
        ts.mirror(IMODEL, tmp_path, on_publish=fail, **service(sim))
    history = read_stored_history(tmp_path)
    (run,) = history.runs
    assert (run.exit, run.error, run.message) == (1, "ZeroDivisionError", "this is a bug in tilesync")
    assert history.held is not None, "the run published before it failed"


def test_a_killed_run_leaves_its_beginning(sim: Simulator, tmp_path: Path) -> None:
    """After kill -9 the history has a run without an exit code; the next run adds its own record."""
    sim.offer_export()
    stuck, release = threading.Event(), threading.Event()
    sim.add_fault(is_blob, call_before(stuck.set, lambda: release.wait(30)))
    assert kill_after(start_mirror(sim, tmp_path), stuck, 0)
    release.set()
    (killed,) = read_stored_history(tmp_path).runs
    assert (killed.exit, killed.finished) == (None, None)
    ts.mirror(IMODEL, tmp_path, **service(sim))
    assert [run.exit for run in read_stored_history(tmp_path).runs] == [None, 0]


def test_a_dry_run_records_nothing(sim: Simulator, tmp_path: Path) -> None:
    """A plan leaves the history as it is."""
    sim.offer_export()
    ts.mirror(IMODEL, tmp_path, **service(sim))
    before = read_stored_history(tmp_path)
    ts.plan(IMODEL, tmp_path, **service(sim))
    assert read_stored_history(tmp_path) == before


def test_a_run_for_another_owner_is_not_recorded(sim: Simulator, tmp_path: Path) -> None:
    """A run that is refused, since DEST belongs to another iModel, leaves the history as it was."""
    sim.offer_export()
    ts.mirror(IMODEL, tmp_path, **service(sim))
    before = read_stored_history(tmp_path)
    sim.offer_export(export_id=OTHER_EXPORT)
    for source in (OTHER_IMODEL, ts.Secret(sim.create_link(OTHER_EXPORT))):
        with pytest.raises(ts.errors.OtherOwner):
            ts.mirror(source, tmp_path, **service(sim))
        assert read_stored_history(tmp_path) == before


def test_a_history_that_cannot_be_written_is_a_warning(
    sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror whose run cannot be recorded succeeds, with a warning."""
    sim.offer_export()

    def refuse(*_: object) -> None:
        raise ts.errors.DiskFull("the catalog cannot be written (full)")

    monkeypatch.setattr(run_history, "write_history", refuse)
    result = ts.mirror(IMODEL, tmp_path, **service(sim))
    assert result.published
    assert {"this run could not be recorded for `tilesync status`: the catalog cannot be written (full)"} == set(
        result.warnings
    )


def test_the_command_records_its_runs(sim: Simulator, tmp_path: Path) -> None:
    """`tilesync mirror` records its runs too, with the counts of its last line."""
    sim.offer_export()
    done = run_tilesync("mirror", IMODEL, tmp_path, "--json", sim=sim)
    (run,) = read_stored_history(tmp_path).runs
    assert (run.exit, run.listed, run.seconds > 0) == (0, done.last_line["listed"], True)
