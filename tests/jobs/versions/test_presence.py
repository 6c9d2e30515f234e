"""Files that vanish: under a run, and from a version that was published long ago."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.builders import export, tree
from tests.support.catalog_fixture import Shelf
from tests.support.clock import FakeClock
from tests.support.faults import blob, listing, storage
from tests.support.simulator import EXPORT, Run, Simulator
from tilesync.core.guards import Most
from tilesync.errors import Incomplete
from tilesync.events import Published, VersionChosen, Warned
from tilesync.jobs.versions.presence import PLACE, Look, Presence
from tilesync.model import Content, Inventory, Layout
from tilesync.stores.local.reader import AT_A_GLANCE

LAST = "tiles/000.glb"


def gone(path: Path) -> None:
    """A file is deleted."""
    path.unlink()


def emptied(path: Path) -> None:
    """A file has no bytes any more."""
    path.write_bytes(b"")


def changed(path: Path) -> None:
    """A file has other bytes, as many."""
    path.write_bytes(bytes(len(path.read_bytes())))


def a_folder(path: Path) -> None:
    """A folder stands in the place of a file."""
    path.unlink()
    path.mkdir()


HARMS = [gone, emptied, changed]


def harm_others(folder: Path, files: dict[str, bytes], harm: Callable[[Path], None]) -> Callable[[], None]:
    """Wait until all but one file lie in a folder, then harm the tiles among them."""

    def do() -> None:
        until = time.monotonic() + 20
        while len(tree(folder)) < len(files) - 1:
            assert time.monotonic() < until, sorted(tree(folder))
            time.sleep(0.01)
        for path in folder.glob("tiles/*.glb"):
            harm(path)

    return do


# --- under a run ---


@pytest.mark.parametrize("harm", HARMS)
def test_what_vanishes_under_a_run_is_fetched_again(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    """Placed files that are deleted, emptied or changed while the run goes on are fetched again before it publishes."""
    with Simulator() as sim:
        files = sim.hold(export(20))
        sim.on(1, blob(LAST), harm_others(tmp_path / "versions" / EXPORT, files, harm))
        run = sim.mirror(tmp_path)
        assert len(sim.asked()) == len(files) + 19
    assert run.exit == 0
    assert tree(tmp_path / "versions" / EXPORT) == files
    assert [w.message for w in run.of(Warned)] == [
        "19 files of this version vanished or changed under the run; fetching again"
    ]
    assert (run.tally.listed, run.tally.fetched, run.tally.kept) == (len(files), len(files), 0)
    assert run.tally.looked == len(files)


@pytest.mark.parametrize(
    "how",
    [
        {"inventory": Inventory.WALK},
        {"layout": Layout.FLAT},
        {"layout": Layout.FLAT, "delete": Most(10)},
        {"content": Content.DECODED},
    ],
    ids=["walk", "flat", "flat-delete", "decoded"],
)
def test_every_way_of_running_looks_before_it_publishes(tmp_path: Path, how: dict[str, object]) -> None:
    """By walk, in the flat layout and unpacked, too, what vanishes under the run is there in the end."""
    with Simulator() as sim:
        files = sim.hold(export(20))
        files.pop("data/empty") if how.get("inventory") else None
        staged = tmp_path / (".tilesync/staged" if how.get("layout") else "versions") / EXPORT
        sim.on(1, blob(LAST), harm_others(staged, files, gone))
        run = sim.mirror(tmp_path, **how)
    assert run.exit == 0, run.error
    there = tree(tmp_path if how.get("layout") else tmp_path / "versions" / EXPORT)
    assert {name: there.get(name) for name in files} == files


def test_what_vanishes_again_and_again_is_not_published(tmp_path: Path) -> None:
    """Exit 3 and a sentence that says so; the next run, undisturbed, fetches what is lost and publishes."""
    with Simulator() as sim:
        files = sim.hold(export(20))
        folder = tmp_path / "versions" / EXPORT
        sim.on(1, blob(LAST), harm_others(folder, files, gone))
        sim.on(2, blob("tiles/001.glb"), lambda: (folder / LAST).unlink())
        run = sim.mirror(tmp_path)
        assert isinstance(run.error, Incomplete)
        assert str(run.error) == "1 file vanished or changed under the run, twice; this export was not published"
        assert run.error.hint == "find out what else deletes or changes files of DEST; the next run fetches them again"
        assert not (tmp_path / "tileset.json").exists()
        assert not list(tmp_path.glob("manifests/*"))
        sim.forget()
        again = sim.mirror(tmp_path)
        assert len(sim.asked()) == 1
    assert again.exit == 0
    assert tree(folder) == files


# --- in a night with nothing to do ---


@pytest.mark.parametrize("harm", [*HARMS, a_folder])
def test_an_unchanged_night_heals_what_was_harmed(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    """A tile of a published version that was deleted, emptied or changed is fetched again by the next run."""
    with Simulator() as sim:
        files = sim.hold(export(20))
        assert sim.mirror(tmp_path).exit == 0
        folder = tmp_path / "versions" / EXPORT
        harm(folder / LAST)
        if harm is a_folder:
            (folder / LAST).rmdir()
        plan = sim.preview(tmp_path)
        assert plan.tally.fetched == 1
        sim.forget()
        run = sim.mirror(tmp_path)
        assert len(sim.asked()) == 1
        calm = sim.mirror(tmp_path)
    assert run.exit == 0
    assert [w.message for w in run.of(Warned)] == [f"1 file is gone or changed in version {EXPORT}"]
    assert not run.of(Published)
    assert tree(folder) == files
    assert (run.tally.fetched, calm.tally.kept, calm.tally.looked) == (1, len(files), len(files))
    assert calm.of(VersionChosen)[0].state == "held"


def test_a_night_of_an_export_that_was_exported_again_looks_too(tmp_path: Path) -> None:
    """The service calls it modified, its listing is the same: it is held, but for the file that was deleted."""
    with Simulator() as sim:
        files = sim.hold(export(20))
        assert sim.mirror(tmp_path).exit == 0
        sim.exports[0]["lastModified"] = "2026-03-01T10:00:00Z"
        folder = tmp_path / "versions" / EXPORT
        (folder / LAST).unlink()
        run = sim.mirror(tmp_path)
    assert run.exit == 0
    assert tree(folder) == files
    assert os.listdir(tmp_path / "versions") == [EXPORT]


def test_a_copied_destination_is_read_not_fetched(tmp_path: Path) -> None:
    """Files with other mtimes and the right bytes are whole: they are read once, and known by their new look."""
    with Simulator() as sim:
        files = sim.hold(export(20))
        assert sim.mirror(tmp_path / "a").exit == 0
        shutil.copytree(tmp_path / "a", tmp_path / "b", symlinks=True, copy_function=shutil.copyfile)
        sim.forget()
        run = sim.mirror(tmp_path / "b")
        assert not sim.asked()
    assert (run.exit, run.tally.kept, run.tally.looked) == (0, len(files), len(files))


# --- as far as there is time ---


class Nights:
    """A version of many files that is looked at night after night, each time as long as one glance takes."""

    def __init__(self, folder: Path, files: int) -> None:
        self.shelf = Shelf(folder)
        self.shelf.put_all({f"tiles/{number:04d}.bin": b"%d" % number for number in range(files)})
        self.version = replace(self.shelf.version, files=files)
        self.clock = FakeClock()

    def look(self, span: timedelta = timedelta(0)) -> Look:
        """One night."""
        return Presence(self.shelf.catalog, self.shelf.files, self.clock, span=span).look(self.version)

    def path(self, number: int) -> Path:
        """Where a file lies."""
        return self.shelf.root / "versions" / self.shelf.version.name / f"tiles/{number:04d}.bin"


def test_a_look_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    """However short the time, some nights look at all files, and then begin anew."""
    nights = Nights(tmp_path, 2 * AT_A_GLANCE + 88)
    counts = [nights.look().files for _ in range(3)]
    assert counts == [AT_A_GLANCE, AT_A_GLANCE, 88]
    assert nights.look() == Look(AT_A_GLANCE, sound=True)
    assert nights.look(timedelta(seconds=2)) == Look(AT_A_GLANCE + 88, sound=True)
    assert nights.look(timedelta(seconds=2)) == Look(2 * AT_A_GLANCE + 88, sound=True)


def test_a_lost_file_is_found_when_its_turn_comes(tmp_path: Path) -> None:
    """Not before, and never overlooked; the next look begins at the start."""
    nights = Nights(tmp_path, 2 * AT_A_GLANCE)
    nights.path(AT_A_GLANCE + 3).unlink()
    assert nights.look() == Look(AT_A_GLANCE, sound=True)
    assert not nights.look().sound
    nights.path(AT_A_GLANCE + 3).touch()
    assert not nights.look(timedelta(seconds=2)).sound
    assert nights.shelf.catalog.recall(PLACE.format(nights.shelf.version.name)) == ""


def test_reading_is_bounded_too(tmp_path: Path) -> None:
    """Where all files look changed, a night reads a few of them, and the next nights the others."""
    nights = Nights(tmp_path, 5)
    for number in range(5):
        os.utime(nights.path(number), (1, 1))
    assert [nights.look() for _ in range(5)] == [Look(1, sound=True)] * 4 + [Look(5, sound=True)]


def test_a_look_that_ends_with_too_few_is_unsound(tmp_path: Path) -> None:
    """A file that the catalog does not hold any more, though the version has it, shows in the count."""
    nights = Nights(tmp_path, 5)
    nights.shelf.catalog.release(nights.shelf.version, ["tiles/0003.bin"])
    assert nights.look() == Look(4, sound=False)


def test_the_listing_is_not_asked_for_in_such_a_night(tmp_path: Path) -> None:
    """A night with nothing to do makes one request to the API, and none to the container."""
    with Simulator() as sim:
        sim.hold(export(20))
        assert sim.mirror(tmp_path).exit == 0
        sim.forget()
        run: Run = sim.mirror(tmp_path)
        assert (len(sim.asked_api), [r for r in sim.requests if storage(r) or listing(r)]) == (1, [])
    assert run.exit == 0
