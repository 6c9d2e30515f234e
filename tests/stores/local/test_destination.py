"""Local folder as destination: layout, locks, foreign files, symlinks, a full disk."""

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.support.local_destination import open_destination, snapshot_tree
from tests.support.small_disk import fill_disk, mounted_small_disk
from tests.support.store_contract import (
    BIG_BYTES,
    SAMPLE_VERSION,
    OpenDestination,
    ResumableDestinationContract,
    blob,
    digests_of,
    put_file,
    read_draft,
    run_async,
)
from tilesync.core.manifest import encode_line
from tilesync.errors import DestinationBusy, DestinationError, DiskFull
from tilesync.model import Blob, Layout, Version, VersionSummary
from tilesync.stores.local.destination import open_local, open_local_read_only
from tilesync.stores.local.fs import read_boot_id
from tilesync.stores.opening import Mode


class TestLocalFolder(ResumableDestinationContract):
    """A folder with its state inside."""

    @pytest.fixture
    def opening(self, tmp_path: Path) -> OpenDestination:
        return lambda: open_destination(tmp_path / "dest")


@pytest.mark.scale
class TestLocalFolderWithStateElsewhere(ResumableDestinationContract):
    """A folder with a separate state folder."""

    @pytest.fixture
    def opening(self, tmp_path: Path) -> OpenDestination:
        return lambda: open_destination(tmp_path / "dest", tmp_path / "a" / "state")


class TestFlatFolder(ResumableDestinationContract):
    """A folder in the flat layout."""

    @pytest.fixture
    def opening(self, tmp_path: Path) -> OpenDestination:
        return lambda: open_local(tmp_path / "dest", state_dir=None, layout=Layout.FLAT)


# --- paths and attributes of files ---


def test_names_and_bytes_equal_the_containers(tmp_path: Path) -> None:
    """A file is below its version under the container's name, and only the state folder is beside the versions."""
    with open_destination(tmp_path / "d") as destination:
        run_async(put_file(destination, blob("a/ä %20#.bin", b"x"), b"x"))
        run_async(put_file(destination, blob("tileset.json", b"y"), b"y"))
    result = {name: data for name, data in snapshot_tree(tmp_path / "d").items() if not name.startswith(".tilesync")}
    assert result == {
        "versions": None,
        "versions/e1": None,
        "versions/e1/a": None,
        "versions/e1/a/ä %20#.bin": b"x",
        "versions/e1/tileset.json": b"y",
    }


def test_separate_state_folder(tmp_path: Path) -> None:
    """With a separate state folder, the destination has no `.tilesync`."""
    with open_destination(tmp_path / "d", tmp_path / "s") as destination:
        run_async(put_file(destination, blob("a", BIG_BYTES), BIG_BYTES))
    assert not (tmp_path / "d/.tilesync").exists()
    assert {"catalog.sqlite3", "parts"} <= set(os.listdir(tmp_path / "s"))


def test_destination_may_be_a_symlink(tmp_path: Path) -> None:
    """DEST itself may be a symlink to a folder: administrators set up such paths."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "d").symlink_to(tmp_path / "disk")
    with open_destination(tmp_path / "d") as destination:
        run_async(put_file(destination, blob("a", b"1"), b"1"))
    assert (tmp_path / "disk/versions/e1/a").read_bytes() == b"1"


# --- one run at a time ---


def test_second_run_is_refused_at_once(tmp_path: Path) -> None:
    """A second run is refused at once while the first one holds the destination, and accepted afterwards."""
    with open_destination(tmp_path / "d"):
        with pytest.raises(DestinationBusy), open_destination(tmp_path / "d"):
            pass
        with pytest.raises(DestinationBusy), open_destination(tmp_path / "d" / ".." / "d"):
            pass
    with open_destination(tmp_path / "d"):
        pass


HOLD_PROGRAM = """
import sys, time
from functools import partial
from pathlib import Path
from typing import Any
from tilesync.stores.local.destination import open_local
with open_local(Path(sys.argv[1]), state_dir=None):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    """A process that holds the destination excludes this one until it ends, also by kill -9."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_PROGRAM, tmp_path / "d"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DestinationBusy, match="another run holds"), open_destination(tmp_path / "d"):
            pass
        holder.kill()
        holder.wait()
    with open_destination(tmp_path / "d"):
        pass


# --- foreign files ---


def test_a_foreign_tileset_is_refused(tmp_path: Path) -> None:
    """A folder with a tileset.json that tilesync did not write is refused and not changed."""
    root = tmp_path / "d"
    root.mkdir()
    (root / "tileset.json").write_text('{"root": {}}')
    (root / "latest.json").write_text('{"mine": true}')
    before = snapshot_tree(root)
    with pytest.raises(DestinationError, match=r"tileset\.json that tilesync did not write"), open_destination(root):
        pass
    with pytest.raises(DestinationError), open_local_read_only(root, Mode.PLAN, layout=Layout.VERSIONED):
        pass
    assert snapshot_tree(root) == before


def test_another_layout_is_refused(tmp_path: Path) -> None:
    """A destination with another layout is refused; the recorded layout of a run that stored nothing does not count."""
    with open_destination(tmp_path / "d") as destination:
        destination.catalog.set_value("layout", "flat")
    with open_destination(tmp_path / "d") as destination:
        destination.catalog.set_value("layout", "flat")
        destination.catalog.add_version(
            Version(0, "v", "e", summary=VersionSummary(published_at="2026-01-01T00:00:00Z"))
        )
    with pytest.raises(DestinationError, match="layout flat"), open_destination(tmp_path / "d"):
        pass


def test_a_killed_first_publication_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was killed between the pointer and `latest.json` does not block the next one."""
    root = tmp_path / "d"
    with open_destination(root) as destination:
        destination.publication.write_manifest(SAMPLE_VERSION, [encode_line({"version": "e1"})])
        (root / "tileset.json").write_bytes(b"{}")
    with open_destination(root) as destination:
        destination.publication.point_at(SAMPLE_VERSION, [b"{}"], {"version": "e1", "manifest": "m"})
        assert (destination.publication.latest() or {})["version"] == "e1"


@pytest.mark.parametrize("place", ["d", "d/.tilesync", "d/.tilesync/parts", "d/.tilesync/catalog.sqlite3/x"])
def test_a_file_where_a_folder_is_needed(tmp_path: Path, place: str) -> None:
    """A file or folder in the wrong place raises an error of the destination and is kept."""
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("in the way")
    with pytest.raises(DestinationError), open_destination(tmp_path / "d"):
        pass
    assert path.read_text() == "in the way"


# --- symlinks planted in DEST ---


def run_all_operations(root: Path, layout: Layout = Layout.VERSIONED) -> None:
    """Run all operations of a job on a destination."""
    with open_local(root, state_dir=None, layout=layout) as destination:
        destination.mark_intact()
        stored = run_async(put_file(destination, blob("a/b/c", BIG_BYTES), BIG_BYTES))
        run_async(put_file(destination, blob("a/b/d", b"small"), b"small"))
        run_async(put_file(destination, blob("tileset.json", b"{}"), b"{}"))
        destination.files.unchanged(SAMPLE_VERSION, [stored])
        destination.files.remove(SAMPLE_VERSION, ["a/b/c"])
        destination.publication.write_manifest(SAMPLE_VERSION, [encode_line({"version": "e1"})])
        destination.publication.move_into_place(SAMPLE_VERSION, ["a/b/d", "tileset.json"], MOMENT)
        destination.publication.point_at(SAMPLE_VERSION, [b"{}"], {"version": "e1", "manifest": "m"})
        destination.files.remove_parts()
        destination.publication.discard(OTHER, [stored._replace(blob=blob("a/b/d", b"small"))], MOMENT)
        destination.publication.retire(SAMPLE_VERSION, MOMENT)
        destination.publication.empty_trash("2027-01-01T00:00:00Z")


MOMENT = "2026-03-01T08:30:00Z"
OTHER = replace(SAMPLE_VERSION, name="e2")

FOLDERS = [
    *((Layout.VERSIONED, place) for place in ("versions", "versions/e1", "versions/e1/a", "versions/e1/a/b")),
    *((Layout.VERSIONED, place) for place in ("manifests", ".tilesync", ".tilesync/parts", ".tilesync/trash")),
    *((Layout.FLAT, place) for place in ("a", "a/b", ".tilesync", ".tilesync/parts", ".tilesync/trash")),
    *((Layout.FLAT, f".tilesync/{place}") for place in ("manifests", "staged", "staged/e1", "staged/e1/a")),
]


@pytest.mark.parametrize(("layout", "place"), FOLDERS)
@pytest.mark.parametrize("target", ["outside", "outside/sub", "outside/not-there", "d"])
def test_planted_folder_links_are_refused(
    tmp_path: Path, outside: Path, layout: Layout, place: str, target: str
) -> None:
    """A symlink at the path of a folder is refused, wherever it leads, and the error names it."""
    link = tmp_path / "d" / place
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / target)
    with pytest.raises(DestinationError, match=f"a symlink where a folder is needed: {link}"):
        run_all_operations(tmp_path / "d", layout)
    assert link.is_symlink()


PART = "part of a/b/c"


FILES = [
    *((Layout.VERSIONED, place) for place in ("versions/e1/a/b/c", "versions/e1/a/b/d", "manifests/e1.jsonl")),
    *((Layout.VERSIONED, place) for place in ("tileset.json", "latest.json", "current")),
    *((Layout.FLAT, place) for place in ("a/b/d", "tileset.json", ".tilesync/latest.json")),
    *((Layout.FLAT, f".tilesync/{place}") for place in ("manifests/e1.jsonl", "staged/e1/a/b/c", "staged/e1/a/b/d")),
    *(
        (layout, f".tilesync/{name}")
        for layout in Layout
        for name in (
            "lock", "catalog.sqlite3", "catalog.sqlite3-wal", "catalog.sqlite3-shm", "catalog.sqlite3-journal",
            "parts/manifest", "parts/pointer", "parts/latest", "parts/current", "parts/case-Probe", f"parts/{PART}",
        )
    ),
]  # fmt: skip


def planted_path(dest: Path, layout: Layout, place: str) -> Path:
    """Return the path to plant a file at; the name of a part is asked from tilesync."""
    if place.endswith(PART):
        with open_local(dest, state_dir=None, layout=layout) as destination:
            part = destination.files.draft(SAMPLE_VERSION, blob("a/b/c", BIG_BYTES))._part.name
        place = place.replace(PART, part)
    (dest / place).parent.mkdir(parents=True, exist_ok=True)
    return dest / place


@pytest.mark.parametrize(("layout", "place"), FILES)
@pytest.mark.parametrize(
    "target",
    [
        "outside/file",
        pytest.param("outside/not-there", marks=pytest.mark.scale),
        pytest.param("outside/sub", marks=pytest.mark.scale),
    ],
)
def test_planted_file_links_are_not_followed(
    tmp_path: Path, outside: Path, layout: Layout, place: str, target: str
) -> None:
    """A symlink at the path of a file is replaced or refused; its target does not change."""
    link = planted_path(tmp_path / "d", layout, place)
    link.symlink_to(tmp_path / target)
    try:
        run_all_operations(tmp_path / "d", layout)
    except DestinationError:
        return
    assert not link.is_symlink() or place == "current"


@pytest.mark.parametrize(("layout", "place"), FILES)
@pytest.mark.parametrize(
    "size", [pytest.param(0, marks=pytest.mark.scale), 8, pytest.param(3 << 20, marks=pytest.mark.scale)]
)
def test_planted_hard_links_are_not_written_through(tmp_path: Path, layout: Layout, place: str, size: int) -> None:
    """A foreign file with a hard link in the destination keeps its bytes, whatever is written under that name."""
    precious, link = tmp_path / "precious", planted_path(tmp_path / "d", layout, place)
    precious.write_bytes(BIG_BYTES[:size])
    os.link(precious, link)
    with contextlib.suppress(DestinationError):
        run_all_operations(tmp_path / "d", layout)
    assert precious.read_bytes() == BIG_BYTES[:size]


@pytest.mark.parametrize(("layout", "place"), [each for each in FILES if not each[1].endswith(PART)])
def test_planted_fifos_do_not_block(tmp_path: Path, layout: Layout, place: str) -> None:
    """A FIFO at the path of a file is replaced or refused, and never blocks."""
    os.mkfifo(planted_path(tmp_path / "d", layout, place))
    done = Future[None]()

    def run_all_or_refuse() -> None:
        try:
            with contextlib.suppress(DestinationError):
                run_all_operations(tmp_path / "d", layout)
            done.set_result(None)
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run_all_or_refuse, daemon=True).start()  # a blocked one must not hold up the process
    done.result(60)


# --- restarts of the machine ---


def test_destination_is_intact_after_mark_intact(tmp_path: Path) -> None:
    """A destination is intact only after `mark_intact`, and stays so for the next run."""
    if read_boot_id() is None:
        pytest.skip("this system does not tell when it started")
    with open_destination(tmp_path / "d") as destination:
        assert not destination.is_intact
    with open_destination(tmp_path / "d") as destination:
        assert not destination.is_intact
        destination.mark_intact()
        assert destination.is_intact
    with open_destination(tmp_path / "d") as destination:
        assert destination.is_intact


# --- a full disk ---


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 2 MiB."""
    with mounted_small_disk(tmp_path / "disk") as folder:
        yield folder


@pytest.mark.parametrize("size", [900_000, len(BIG_BYTES)], ids=["in memory", "in a part"])
def test_a_full_disk(small_disk: Path, size: int) -> None:
    """A full disk raises its own error and keeps stored files; with free space the transfer continues correctly."""
    item, data = blob("a", BIG_BYTES[:size]), BIG_BYTES[:size]
    with open_destination(small_disk / "d") as destination:
        destination.mark_intact()
        run_async(put_file(destination, Blob("old", 3), b"old"))
        filler = fill_disk(small_disk, free_bytes=300_000)

        async def work() -> None:
            draft = destination.files.draft(SAMPLE_VERSION, item)
            try:
                await draft.append(data[: 1 << 20])
                await draft.commit(digests_of(data))
            finally:
                filler.unlink()
                await draft.suspend()

        with pytest.raises(DiskFull):
            run_async(work())
        assert destination.files.size(SAMPLE_VERSION, "a") is None
        assert destination.files.read(SAMPLE_VERSION, "old") == b"old"
    with open_destination(small_disk / "d") as destination:
        draft = destination.files.draft(SAMPLE_VERSION, item)
        assert data.startswith(run_async(read_draft(draft)))


def test_a_full_disk_while_listing(small_disk: Path) -> None:
    """A catalog without space stores nothing of the page and stays valid; with free space it continues."""
    with open_destination(small_disk / "d") as destination:
        version = destination.catalog.add_version(SAMPLE_VERSION)
        filler = fill_disk(small_disk, free_bytes=150_000)
        page = [(Blob("n" * 200 + str(number), 1), None) for number in range(5000)]
        with pytest.raises(DiskFull):
            destination.catalog.add_page(version, page, [])
        assert destination.catalog.compute_totals(version).files == 0
        filler.unlink()
        destination.catalog.add_page(version, page[:100], [])
        assert destination.catalog.compute_totals(version).files == 100


def test_a_full_disk_while_opening(small_disk: Path) -> None:
    """A destination without any space raises DiskFull, and opens when there is some."""
    filler = fill_disk(small_disk, free_bytes=0)
    with pytest.raises(DiskFull), open_destination(small_disk / "d"):
        pass
    filler.unlink()
    with open_destination(small_disk / "d"):
        pass


# --- reading without writing ---


def test_planning_writes_nothing(tmp_path: Path) -> None:
    """Opening for a plan changes nothing, whether the destination is missing, empty, or has a catalog."""
    with open_local_read_only(tmp_path / "missing", Mode.PLAN, layout=Layout.VERSIONED) as destination:
        assert destination.catalog is not None
        assert destination.catalog.versions() == []
        destination.check_names(["a"])
    assert snapshot_tree(tmp_path) == {}
    with open_destination(tmp_path / "d") as destination:
        destination.catalog.add_version(SAMPLE_VERSION)
    before = snapshot_tree(tmp_path)
    with open_local_read_only(tmp_path / "d", Mode.PLAN, layout=Layout.VERSIONED) as seen:
        assert seen.catalog is not None
        assert [version.name for version in seen.catalog.versions()] == ["e1"]
    assert snapshot_tree(tmp_path) == before


def test_destination_outlives_event_loops(tmp_path: Path) -> None:
    """A destination can be used from several event loops, one after the other: its batcher keeps no closed loop."""
    with open_destination(tmp_path / "d") as destination:
        for number in range(3):
            asyncio.run(put_file(destination, blob(str(number), b"1"), b"1"))
        assert [destination.files.size(SAMPLE_VERSION, str(number)) for number in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("layout", Layout)
def test_state_folder_belongs_to_one_destination(tmp_path: Path, layout: Layout) -> None:
    """A second DEST with the state folder of the first is refused in every mode; one that moved is accepted."""
    state = tmp_path / "state"
    with open_local(tmp_path / "one", state_dir=state, layout=layout):
        pass
    refused = partial(pytest.raises, DestinationError, match=f"belongs to {tmp_path}/one, not to {tmp_path}/two")
    with refused() as raised, open_local(tmp_path / "two", state_dir=state, layout=layout):
        pass
    assert "its own --state-dir" in raised.value.hint
    with refused(), open_local_read_only(tmp_path / "two", Mode.PLAN, state_dir=state, layout=layout):
        pass
    with refused(), open_local_read_only(tmp_path / "two", Mode.AUDIT, state_dir=state):
        pass
    assert not (tmp_path / "two").exists()
    (tmp_path / "one").rename(tmp_path / "two")
    with open_local(tmp_path / "two", state_dir=state, layout=layout):
        pass
    (tmp_path / "one").mkdir()
    with pytest.raises(DestinationError), open_local(tmp_path / "one", state_dir=state, layout=layout):
        pass
