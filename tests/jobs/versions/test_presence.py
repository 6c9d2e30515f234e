"""Presence: files that vanish during a run, and from a published version."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.builders import export, read_tree
from tests.support.catalog_fixture import CatalogFixture
from tests.support.clock import FakeClock
from tests.support.faults import is_blob_named, is_listing, is_storage
from tests.support.simulator import EXPORT, JobOutcome, Simulator
from tilesync.core.guards import DeleteLimit
from tilesync.errors import Incomplete
from tilesync.events import VersionChosen, VersionPublished, Warned
from tilesync.jobs.versions.presence import PROGRESS_KEY, PresenceCheck, PresenceResult
from tilesync.model import Content, Inventory, Layout
from tilesync.stores.presence_pages import FILES_PER_PRESENCE_PAGE

LAST = "tiles/000.glb"


def delete_file(path: Path) -> None:
    """Delete a file."""
    path.unlink()


def empty_file(path: Path) -> None:
    """Truncate a file to no bytes."""
    path.write_bytes(b"")


def change_bytes(path: Path) -> None:
    """Change the bytes of a file, with the same size."""
    path.write_bytes(bytes(len(path.read_bytes())))


def replace_with_folder(path: Path) -> None:
    """Replace a file with a folder."""
    path.unlink()
    path.mkdir()


HARMS = [delete_file, empty_file, change_bytes]


def harm_others(folder: Path, files: dict[str, bytes], harm: Callable[[Path], None]) -> Callable[[], None]:
    """Wait until all but one file are in a folder, then damage the tiles among them."""

    def do() -> None:
        until = time.monotonic() + 20
        while len(read_tree(folder)) < len(files) - 1:
            assert time.monotonic() < until, sorted(read_tree(folder))
            time.sleep(0.01)
        for path in folder.glob("tiles/*.glb"):
            harm(path)

    return do


# --- during a run ---


@pytest.mark.parametrize("harm", HARMS)
def test_file_lost_during_a_run_is_fetched_again(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    """Files that are deleted, emptied or changed during a run are fetched again before publication."""
    with Simulator() as sim:
        files = sim.offer_export(export(20))
        sim.run_before_request(1, is_blob_named(LAST), harm_others(tmp_path / "versions" / EXPORT, files, harm))
        run = sim.mirror(tmp_path)
        assert len(sim.blob_requests()) == len(files) + 19
    assert run.exit_code == 0
    assert read_tree(tmp_path / "versions" / EXPORT) == files
    assert [w.message for w in run.events_of(Warned)] == [
        "19 files of this version vanished or changed during the run; fetching again"
    ]
    assert (run.stats.listed, run.stats.fetched, run.stats.kept) == (len(files), len(files), 0)
    assert run.stats.presence_checked == len(files)


@pytest.mark.parametrize(
    "how",
    [
        {"inventory": Inventory.WALK},
        {"layout": Layout.FLAT},
        {"layout": Layout.FLAT, "delete_limit": DeleteLimit(10)},
        {"content": Content.DECODED},
    ],
    ids=["walk", "flat", "flat-delete", "decoded"],
)
def test_every_mode_checks_before_publication(tmp_path: Path, how: dict[str, object]) -> None:
    """A walk, the flat layout and unpacked content also restore files lost during the run."""
    with Simulator() as sim:
        files = sim.offer_export(export(20))
        files.pop("data/empty") if how.get("inventory") else None
        staged = tmp_path / (".tilesync/staged" if how.get("layout") else "versions") / EXPORT
        sim.run_before_request(1, is_blob_named(LAST), harm_others(staged, files, delete_file))
        run = sim.mirror(tmp_path, **how)
    assert run.exit_code == 0, run.error
    there = read_tree(tmp_path if how.get("layout") else tmp_path / "versions" / EXPORT)
    assert {name: there.get(name) for name in files} == files


def test_files_lost_repeatedly_are_not_published(tmp_path: Path) -> None:
    """If files vanish again and again, the run exits with 3; the next undisturbed run publishes."""
    with Simulator() as sim:
        files = sim.offer_export(export(20))
        folder = tmp_path / "versions" / EXPORT
        sim.run_before_request(1, is_blob_named(LAST), harm_others(folder, files, delete_file))
        sim.run_before_request(2, is_blob_named("tiles/001.glb"), lambda: (folder / LAST).unlink())
        run = sim.mirror(tmp_path)
        assert isinstance(run.error, Incomplete)
        assert str(run.error) == "1 file vanished or changed during the run, twice; this export was not published"
        assert (
            run.error.hint == "find the program that deletes or changes files in DEST; the next run fetches them again"
        )
        assert not (tmp_path / "tileset.json").exists()
        assert not list(tmp_path.glob("manifests/*"))
        sim.clear_requests()
        again = sim.mirror(tmp_path)
        assert len(sim.blob_requests()) == 1
    assert again.exit_code == 0
    assert read_tree(folder) == files


# --- in a run without changes ---


@pytest.mark.parametrize("harm", [*HARMS, replace_with_folder])
def test_unchanged_run_repairs_damage(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    """A tile of a published version that was deleted, emptied or changed is fetched by the next run."""
    with Simulator() as sim:
        files = sim.offer_export(export(20))
        assert sim.mirror(tmp_path).exit_code == 0
        folder = tmp_path / "versions" / EXPORT
        harm(folder / LAST)
        if harm is replace_with_folder:
            (folder / LAST).rmdir()
        plan = sim.dry_run(tmp_path)
        assert plan.stats.fetched == 1
        sim.clear_requests()
        run = sim.mirror(tmp_path)
        assert len(sim.blob_requests()) == 1
        calm = sim.mirror(tmp_path)
    assert run.exit_code == 0
    assert [w.message for w in run.events_of(Warned)] == [f"1 file is gone or changed in version {EXPORT}"]
    assert not run.events_of(VersionPublished)
    assert read_tree(folder) == files
    assert (run.stats.fetched, calm.stats.kept, calm.stats.presence_checked) == (1, len(files), len(files))
    assert calm.events_of(VersionChosen)[0].state == "held"


def test_run_of_a_repeated_export_checks_too(tmp_path: Path) -> None:
    """If the service exported again with the same listing, only the deleted file is fetched."""
    with Simulator() as sim:
        files = sim.offer_export(export(20))
        assert sim.mirror(tmp_path).exit_code == 0
        sim.exports[0]["lastModified"] = "2026-03-01T10:00:00Z"
        folder = tmp_path / "versions" / EXPORT
        (folder / LAST).unlink()
        run = sim.mirror(tmp_path)
    assert run.exit_code == 0
    assert read_tree(folder) == files
    assert os.listdir(tmp_path / "versions") == [EXPORT]


def test_copied_destination_is_read_not_fetched(tmp_path: Path) -> None:
    """Files with other mtimes and the right bytes are read once, then known by their new stamps."""
    with Simulator() as sim:
        files = sim.offer_export(export(20))
        assert sim.mirror(tmp_path / "a").exit_code == 0
        shutil.copytree(tmp_path / "a", tmp_path / "b", symlinks=True, copy_function=shutil.copyfile)
        sim.clear_requests()
        run = sim.mirror(tmp_path / "b")
        assert not sim.blob_requests()
    assert (run.exit_code, run.stats.kept, run.stats.presence_checked) == (0, len(files), len(files))


# --- limited time ---


class RepeatedChecks:
    """A version with many files that is checked in many runs, each with little time."""

    def __init__(self, folder: Path, files: int) -> None:
        self.fixture = CatalogFixture(folder)
        self.fixture.put_all({f"tiles/{number:04d}.bin": b"%d" % number for number in range(files)})
        self.version = self.fixture.version.with_summary(files=files)
        self.clock = FakeClock()

    def check(self, span: timedelta = timedelta(0)) -> PresenceResult:
        """Run one check."""
        return PresenceCheck(self.fixture.catalog, self.fixture.files, self.clock, max_time=span).check_next_files(
            self.version
        )

    def path(self, number: int) -> Path:
        """Return the path of a file."""
        return self.fixture.root / "versions" / self.fixture.version.name / f"tiles/{number:04d}.bin"


def test_check_continues_where_the_last_one_stopped(tmp_path: Path) -> None:
    """However short the time, several runs check all files, then start over."""
    checks = RepeatedChecks(tmp_path, 2 * FILES_PER_PRESENCE_PAGE + 88)
    counts = [checks.check().files for _ in range(3)]
    assert counts == [FILES_PER_PRESENCE_PAGE, FILES_PER_PRESENCE_PAGE, 88]
    assert checks.check() == PresenceResult(FILES_PER_PRESENCE_PAGE, is_sound=True)
    assert checks.check(timedelta(seconds=2)) == PresenceResult(FILES_PER_PRESENCE_PAGE + 88, is_sound=True)
    assert checks.check(timedelta(seconds=2)) == PresenceResult(2 * FILES_PER_PRESENCE_PAGE + 88, is_sound=True)


def test_a_lost_file_is_found_when_the_check_reaches_it(tmp_path: Path) -> None:
    """A lost file is found when the check reaches it, and the next check starts over."""
    checks = RepeatedChecks(tmp_path, 2 * FILES_PER_PRESENCE_PAGE)
    checks.path(FILES_PER_PRESENCE_PAGE + 3).unlink()
    assert checks.check() == PresenceResult(FILES_PER_PRESENCE_PAGE, is_sound=True)
    assert not checks.check().is_sound
    checks.path(FILES_PER_PRESENCE_PAGE + 3).touch()
    assert not checks.check(timedelta(seconds=2)).is_sound
    assert checks.fixture.catalog.get_value(PROGRESS_KEY.format(checks.fixture.version.name)) == ""


def test_reading_is_limited_too(tmp_path: Path) -> None:
    """If all stamps changed, each run reads a few files only."""
    checks = RepeatedChecks(tmp_path, 5)
    for number in range(5):
        os.utime(checks.path(number), (1, 1))
    assert [checks.check() for _ in range(5)] == [PresenceResult(1, is_sound=True)] * 4 + [
        PresenceResult(5, is_sound=True)
    ]


def test_check_with_too_few_files_is_not_sound(tmp_path: Path) -> None:
    """A file that the catalog lost, although the version has it, shows in the count."""
    checks = RepeatedChecks(tmp_path, 5)
    checks.fixture.catalog.mark_wanted(checks.fixture.version, ["tiles/0003.bin"])
    assert checks.check() == PresenceResult(4, is_sound=False)


def test_unchanged_run_does_not_list(tmp_path: Path) -> None:
    """An unchanged run makes one request to the API, and none to the container."""
    with Simulator() as sim:
        sim.offer_export(export(20))
        assert sim.mirror(tmp_path).exit_code == 0
        sim.clear_requests()
        run: JobOutcome = sim.mirror(tmp_path)
        assert (len(sim.api_requests), [r for r in sim.requests if is_storage(r) or is_listing(r)]) == (1, [])
    assert run.exit_code == 0
