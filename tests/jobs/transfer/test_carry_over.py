"""Carry over: most files are linked in passes, and the version is the same as if each had been shared alone."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import export, glb, read_tree, referenced_export
from tests.support.crash_injection import CrashAfterCalls, SimulatedCrash
from tests.support.faults import blob_name
from tests.support.simulator import EXPORT, OTHER_EXPORT, Simulator, read_latest, verify
from tilesync.catalog.unchanged import UnchangedIndex
from tilesync.events import FileReused
from tilesync.jobs.transfer import carry_over
from tilesync.model import Blob, Layout, StoredFile, UnchangedFile, Version
from tilesync.stores.local.writer import LocalFiles

THIRD_EXPORT = "e3"


def read_rows(dest: Path, version: str) -> dict[str, list[Any]]:
    """Read everything that the catalog holds about the files of a version, but inodes."""
    with sqlite3.connect(dest / ".tilesync/catalog.sqlite3") as db:
        (serial,) = db.execute("SELECT serial FROM version WHERE name=?", (version,)).fetchone()
        blob = "key, name, size, etag, md5, content_type, content_encoding, last_modified, state, sha256, mtime_ns,"
        blob += " kind, implicit, lying_size, lying_sha256"
        columns = {"blob": blob, "reference": "source, target, role, name, grown", "remark": "source, problem, detail"}
        return {
            table: db.execute(f"SELECT {names} FROM {table} WHERE version=? ORDER BY 1, 2, 3", (serial,)).fetchall()
            for table, names in columns.items()
        }


def link_nothing(*_: object) -> list[UnchangedFile]:
    return []


@pytest.mark.parametrize("batch", [2, 5000])
def test_a_version_is_the_same_as_without_the_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    """Catalog, manifest and files are equal to those of a run that shares file by file, and both are intact."""
    monkeypatch.setattr(carry_over, "FILES_PER_BATCH", batch)
    files = {**export(30), **referenced_export()}
    changed = files | {"tiles/003.glb": glb(b"new"), "tiles/new.glb": glb(b"added")}
    del changed["tiles/004.glb"]
    manifests, rows = [], []
    for dest, is_plain in ((tmp_path / "passes", False), (tmp_path / "plain", True)):
        with Simulator(page_size=7) as sim, monkeypatch.context() as patch:
            if is_plain:
                patch.setattr(LocalFiles, "link_unchanged", link_nothing)
            sim.offer_export(files)
            sim.mirror(dest, allow_missing=True)
            sim.offer_export(changed, export_id=OTHER_EXPORT)
            run = sim.mirror(dest, allow_missing=True)
        assert (run.error, run.stats.fetched, run.stats.reused) == (None, 2, len(changed) - 2)
        assert run.stats.verified == len(changed)
        assert run.stats.reused_bytes == sum(len(data) for name, data in changed.items() if name in files) - len(
            changed["tiles/003.glb"]
        )
        assert read_tree(dest / "versions" / OTHER_EXPORT) == changed
        assert read_tree(dest / "versions" / EXPORT) == files
        assert verify(dest, every=True).exit_code == 0
        header, *lines = (dest / f"manifests/{OTHER_EXPORT}.jsonl").read_bytes().splitlines()
        manifests.append(lines)
        rows.append(read_rows(dest, OTHER_EXPORT))
        assert b'"files":%d' % len(changed) in header
    assert manifests[0] == manifests[1]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("layout", Layout)
def test_no_unchanged_file_is_shared_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: Layout) -> None:
    """Only what the pass leaves out is asked for one by one: renamed and empty files."""
    shared = list[str]()
    share = LocalFiles.share

    def record(
        self: LocalFiles, version: Version, requests: Sequence[tuple[Blob, Version, StoredFile]]
    ) -> list[StoredFile | None]:
        shared.extend(blob.name for blob, _, _ in requests)
        return share(self, version, requests)

    monkeypatch.setattr(LocalFiles, "share", record)
    with Simulator(page_size=5) as sim:
        files = sim.offer_export(export(20))
        sim.mirror(tmp_path, layout=layout)
        sim.offer_export(files | {"tiles/moved.glb": files["tiles/001.glb"]}, export_id=OTHER_EXPORT)
        run = sim.mirror(tmp_path, layout=layout, every_file=True)
    empty = {name for name, data in files.items() if not data}
    assert run.error is None
    assert set(shared) == empty | {"tiles/moved.glb"}
    reused = [event.name for event in run.events if isinstance(event, FileReused)]
    assert sorted(reused) == sorted([*files, "tiles/moved.glb"])


@pytest.mark.parametrize(
    ("place", "function", "calls"),
    [(os, "link", 1), (os, "link", 9), (UnchangedIndex, "mark_stored", 1), (UnchangedIndex, "mark_stored", 3)],
)
def test_a_crash_leaves_what_the_next_run_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Any, function: str, calls: int
) -> None:
    """Links that were made but not recorded are found in place; no unchanged file is fetched, and none is changed."""
    monkeypatch.setattr(carry_over, "FILES_PER_BATCH", 4)
    with Simulator(page_size=9) as sim:
        files = sim.offer_export(export(20))
        sim.mirror(tmp_path)
        changed = files | {"tiles/003.glb": glb(b"new")}
        sim.offer_export(changed, export_id=OTHER_EXPORT)
        with monkeypatch.context() as patch:
            patch.setattr(place, function, CrashAfterCalls(calls).wrap(getattr(place, function)))
            with pytest.raises(SimulatedCrash):
                sim.mirror(tmp_path)
        assert read_latest(tmp_path)["version"] == EXPORT
        sim.clear_requests()
        run = sim.mirror(tmp_path)
        assert {str(blob_name(each)) for each in sim.blob_requests()} <= {"tiles/003.glb"}
    assert run.error is None
    assert read_tree(tmp_path / "versions" / EXPORT) == files
    assert read_tree(tmp_path / "versions" / OTHER_EXPORT) == changed
    assert all(
        (tmp_path / "versions" / EXPORT / name).samefile(tmp_path / "versions" / OTHER_EXPORT / name)
        for name in files.keys() - {"tiles/003.glb"}
    )
    assert verify(tmp_path, every=True).exit_code == 0


def test_a_batch_is_linked_while_the_one_before_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record of a batch can wait for the links of the next one, and every batch is recorded."""
    monkeypatch.setattr(carry_over, "FILES_PER_BATCH", 5)
    link, mark, batches, recorded = LocalFiles.link_unchanged, UnchangedIndex.mark_stored, list[int](), list[int]()
    has_linked_next = threading.Event()

    def count_links(self: LocalFiles, *args: Any) -> list[UnchangedFile]:
        batches.append(len(args[-1]))
        if len(batches) == 2:
            has_linked_next.set()
        return link(self, *args)

    def wait_and_mark(self: UnchangedIndex, version: Version, earlier: Version, files: Sequence[UnchangedFile]) -> None:
        assert has_linked_next.wait(20)
        recorded.append(len(files))
        mark(self, version, earlier, files)

    with Simulator() as sim:
        files = sim.offer_export(export(20))
        sim.mirror(tmp_path)
        monkeypatch.setattr(LocalFiles, "link_unchanged", count_links)
        monkeypatch.setattr(UnchangedIndex, "mark_stored", wait_and_mark)
        sim.offer_export(files, export_id=OTHER_EXPORT)
        run = sim.mirror(tmp_path)
    assert (run.error, run.stats.reused, run.stats.fetched) == (None, len(files), 0)
    assert recorded == [count for count in batches if count]
    assert sum(recorded) == len([data for data in files.values() if data])


def test_a_pass_that_links_nothing_is_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no file can be linked, the rest is not tried."""
    monkeypatch.setattr(carry_over, "FILES_PER_BATCH", 3)
    calls = list[int]()

    def refuse(_: object, version: Version, earlier: Version, files: Sequence[UnchangedFile]) -> list[UnchangedFile]:
        calls.append(len(files))
        return []

    monkeypatch.setattr(LocalFiles, "link_unchanged", refuse)
    with Simulator() as sim:
        files = sim.offer_export(export(20))
        sim.mirror(tmp_path)
        sim.offer_export(files, export_id=OTHER_EXPORT)
        run = sim.mirror(tmp_path)
    assert (run.error, run.stats.reused, calls) == (None, len(files), [3])


def test_the_newest_version_is_the_earlier_one(tmp_path: Path) -> None:
    """The third version takes its files from the second, those that only the first has too."""
    with Simulator() as sim:
        files = sim.offer_export(export(8))
        sim.mirror(tmp_path)
        sim.offer_export(files | {"tiles/001.glb": glb(b"other")}, export_id=OTHER_EXPORT)
        sim.mirror(tmp_path)
        sim.offer_export(files, export_id=THIRD_EXPORT)
        run = sim.mirror(tmp_path)
    assert (run.error, run.stats.fetched, run.stats.reused) == (None, 0, len(files))
    assert read_tree(tmp_path / "versions" / THIRD_EXPORT) == files
