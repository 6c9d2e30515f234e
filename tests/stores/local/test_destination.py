"""A local folder as destination."""

import asyncio
import contextlib
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.store_contract import (
    BIG_BYTES,
    SAMPLE_VERSION,
    OpenDestination,
    ResumableDestinationContract,
    blob,
    digests_of,
    put_file,
    read_draft,
    reject_bytes,
    run_async,
)
from tilesync.errors import DestinationBusy, DestinationError, DiskFull
from tilesync.model import Blob, Layout, Version
from tilesync.stores.local import destination as local
from tilesync.stores.local.destination import LocalDestination, open_local, open_local_for_audit, open_local_for_plan
from tilesync.stores.local.fs import ensure_real_folder, read_boot_id


def opened(root: Path, state_dir: Path | None = None) -> AbstractContextManager[LocalDestination]:
    return open_local(root, state_dir=state_dir)


def tree(folder: Path) -> dict[str, bytes | str | None]:
    """Everything below a folder: bytes of files, targets of symlinks."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(folder.rglob("*")):
        is_link = path.is_symlink()
        said = os.readlink(path) if is_link else path.read_bytes() if path.is_file() else None
        found[path.relative_to(folder).as_posix()] = said
    return found


class TestLocalFolder(ResumableDestinationContract):
    """A folder with its state inside."""

    @pytest.fixture
    def opening(self, tmp_path: Path) -> OpenDestination:
        return lambda: opened(tmp_path / "dest")


class TestLocalFolderWithStateElsewhere(ResumableDestinationContract):
    """A folder with its state in another place."""

    @pytest.fixture
    def opening(self, tmp_path: Path) -> OpenDestination:
        return lambda: opened(tmp_path / "dest", tmp_path / "a" / "state")


class TestFlatFolder(ResumableDestinationContract):
    """A folder in the flat layout."""

    @pytest.fixture
    def opening(self, tmp_path: Path) -> OpenDestination:
        return lambda: open_local(tmp_path / "dest", state_dir=None, layout=Layout.FLAT)


# --- what lies where ---


def test_names_and_bytes_are_the_container_s(tmp_path: Path) -> None:
    """A file lies below its version under the container's name, and nothing but the state lies beside it."""
    with opened(tmp_path / "d") as there:
        run_async(put_file(there, blob("a/ä %20#.bin", b"x"), b"x"))
        run_async(put_file(there, blob("tileset.json", b"y"), b"y"))
    found = {name: data for name, data in tree(tmp_path / "d").items() if not name.startswith(".tilesync")}
    assert found == {
        "versions": None,
        "versions/e1": None,
        "versions/e1/a": None,
        "versions/e1/a/ä %20#.bin": b"x",
        "versions/e1/tileset.json": b"y",
    }


@pytest.mark.parametrize("data", [b"small", BIG_BYTES], ids=["small", "big"])
def test_files_have_the_blob_s_date_and_the_umask_s_mode(tmp_path: Path, data: bytes) -> None:
    """A file gets the blob's Last-Modified and the mode that the umask leaves; the state is for its owner alone."""
    before = os.umask(0o027)
    try:
        with opened(tmp_path / "d") as there:
            held = run_async(put_file(there, blob("f/a", data, last_modified=1772353800), data))
    finally:
        os.umask(before)
    found = (tmp_path / "d/versions/e1/f/a").stat()
    assert (found.st_mtime_ns, held.mtime_ns) == (1772353800 * 10**9, 1772353800 * 10**9)
    assert stat.S_IMODE(found.st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "d/versions/e1/f").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "d/.tilesync").stat().st_mode) == 0o700


def test_state_elsewhere(tmp_path: Path) -> None:
    """With a state folder of its own, the destination holds no `.tilesync`."""
    with opened(tmp_path / "d", tmp_path / "s") as there:
        run_async(put_file(there, blob("a", BIG_BYTES), BIG_BYTES))
    assert not (tmp_path / "d/.tilesync").exists()
    assert {"catalog.sqlite3", "parts"} <= set(os.listdir(tmp_path / "s"))


def test_a_destination_may_be_reached_through_a_symlink(tmp_path: Path) -> None:
    """DEST itself may be a symlink to a folder, as administrators make them."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "d").symlink_to(tmp_path / "disk")
    with opened(tmp_path / "d") as there:
        run_async(put_file(there, blob("a", b"1"), b"1"))
    assert (tmp_path / "disk/versions/e1/a").read_bytes() == b"1"


# --- one run at a time ---


def test_a_second_run_is_busy_at_once(tmp_path: Path) -> None:
    """While one run holds a destination another is refused, and afterwards it is free."""
    with opened(tmp_path / "d"):
        with pytest.raises(DestinationBusy), opened(tmp_path / "d"):
            pass
        with pytest.raises(DestinationBusy), opened(tmp_path / "d" / ".." / "d"):
            pass
    with opened(tmp_path / "d"):
        pass


HOLD = """
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
    """Another process that holds the destination keeps this one out, until it ends, also by kill -9."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "d"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DestinationBusy, match="another run holds"), opened(tmp_path / "d"):
            pass
        holder.kill()
        holder.wait()
    with opened(tmp_path / "d"):
        pass


# --- what is not ours ---


def test_a_foreign_tileset_is_refused(tmp_path: Path) -> None:
    """A folder with a tileset.json that tilesync did not write is refused, and nothing in it changes."""
    root = tmp_path / "d"
    root.mkdir()
    (root / "tileset.json").write_text('{"root": {}}')
    (root / "latest.json").write_text('{"mine": true}')
    before = tree(root)
    with pytest.raises(DestinationError, match=r"tileset\.json that tilesync did not write"), opened(root):
        pass
    with pytest.raises(DestinationError), open_local_for_plan(root, state_dir=None, layout=Layout.VERSIONED):
        pass
    assert tree(root) == before


def test_another_layout_is_refused(tmp_path: Path) -> None:
    """A destination of another layout is refused; one that a run left with nothing in it has none."""
    with opened(tmp_path / "d") as there:
        there.catalog.set_value("layout", "flat")
    with opened(tmp_path / "d") as there:
        there.catalog.set_value("layout", "flat")
        there.catalog.add_version(Version(0, "v", "e", None, None, "", {}, published_at="2026-01-01T00:00:00Z"))
    with pytest.raises(DestinationError, match="layout flat"), opened(tmp_path / "d"):
        pass


def test_a_killed_first_publication_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was killed between the pointer and `latest.json` does not lock the next one out."""
    root = tmp_path / "d"
    with opened(root) as there:
        there.publication.write_manifest(SAMPLE_VERSION, [{"version": "e1"}])
        (root / "tileset.json").write_bytes(b"{}")
    with opened(root) as there:
        there.publication.point_at(SAMPLE_VERSION, [b"{}"], {"version": "e1", "manifest": "m"})
        assert (there.publication.latest() or {})["version"] == "e1"


@pytest.mark.parametrize("place", ["d", "d/.tilesync", "d/.tilesync/parts", "d/.tilesync/catalog.sqlite3/x"])
def test_a_file_where_a_folder_is_needed(tmp_path: Path, place: str) -> None:
    """A file, or a folder, in the wrong place is a clear error of the destination."""
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("in the way")
    with pytest.raises(DestinationError), opened(tmp_path / "d"):
        pass
    assert path.read_text() == "in the way"


@pytest.mark.parametrize("place", ["versions", "versions/e1", "versions/e1/a", "versions/e1/a/b"])
def test_a_file_in_the_way_of_a_blob(tmp_path: Path, place: str) -> None:
    """A file where a blob's name needs a folder is named in the error and stands."""
    path = tmp_path / "d" / place
    path.parent.mkdir(parents=True)
    path.write_text("in the way")
    with opened(tmp_path / "d") as there, pytest.raises(DestinationError, match="folder is needed"):
        run_async(put_file(there, blob("a/b/c", b"1"), b"1"))
    assert path.read_text() == "in the way"


def test_a_folder_in_the_way_of_a_blob(tmp_path: Path) -> None:
    """A folder where a file must go is an error, and what is in it stands."""
    (tmp_path / "d/versions/e1/a").mkdir(parents=True)
    (tmp_path / "d/versions/e1/a/b").write_text("b")
    with opened(tmp_path / "d") as there, pytest.raises(DestinationError):
        run_async(put_file(there, blob("a", b"1"), b"1"))
    assert (tmp_path / "d/versions/e1/a/b").read_text() == "b"


# --- symlinks planted in DEST ---


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder outside the destination, which must stand as it is."""
    folder = tmp_path / "outside"
    (folder / "sub").mkdir(parents=True)
    (folder / "file").write_text("precious")
    (folder / "sub/c").write_text("precious")
    before = tree(folder)
    yield folder
    assert tree(folder) == before


def everything(root: Path, layout: Layout = Layout.VERSIONED) -> None:
    """All that a run does with a destination."""
    with open_local(root, state_dir=None, layout=layout) as there:
        there.mark_intact()
        held = run_async(put_file(there, blob("a/b/c", BIG_BYTES), BIG_BYTES))
        run_async(put_file(there, blob("a/b/d", b"small"), b"small"))
        run_async(put_file(there, blob("tileset.json", b"{}"), b"{}"))
        there.files.unchanged(SAMPLE_VERSION, [held])
        there.files.remove(SAMPLE_VERSION, ["a/b/c"])
        there.publication.write_manifest(SAMPLE_VERSION, [{"version": "e1"}])
        there.publication.move_into_place(SAMPLE_VERSION, ["a/b/d", "tileset.json"], MOMENT)
        there.publication.point_at(SAMPLE_VERSION, [b"{}"], {"version": "e1", "manifest": "m"})
        there.files.remove_parts()
        there.publication.discard(OTHER, [held._replace(blob=blob("a/b/d", b"small"))], MOMENT)
        there.publication.retire(SAMPLE_VERSION, MOMENT)
        there.publication.empty_trash("2027-01-01T00:00:00Z")


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
    """A symlink where a folder of the destination belongs is refused with an error that names it, wherever it leads."""
    link = tmp_path / "d" / place
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / target)
    with pytest.raises(DestinationError, match=f"a symlink stands where a folder is needed: {link}"):
        everything(tmp_path / "d", layout)
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


def place_of(dest: Path, layout: Layout, place: str) -> Path:
    """Where something is to be planted: the part of a file has a name that tilesync gives it."""
    if place.endswith(PART):
        with open_local(dest, state_dir=None, layout=layout) as there:
            part = there.files.draft(SAMPLE_VERSION, blob("a/b/c", BIG_BYTES))._part.name
        place = place.replace(PART, part)
    (dest / place).parent.mkdir(parents=True, exist_ok=True)
    return dest / place


@pytest.mark.parametrize(("layout", "place"), FILES)
@pytest.mark.parametrize("target", ["outside/file", "outside/not-there", "outside/sub"])
def test_planted_file_links_touch_nothing(
    tmp_path: Path, outside: Path, layout: Layout, place: str, target: str
) -> None:
    """A symlink where a file of the destination belongs is replaced or refused; what it leads to stands."""
    link = place_of(tmp_path / "d", layout, place)
    link.symlink_to(tmp_path / target)
    try:
        everything(tmp_path / "d", layout)
    except DestinationError:
        return
    assert not link.is_symlink() or place == "current"


@pytest.mark.parametrize(("layout", "place"), FILES)
@pytest.mark.parametrize("size", [0, 8, 3 << 20])
def test_planted_hard_links_are_not_written_through(tmp_path: Path, layout: Layout, place: str, size: int) -> None:
    """A file elsewhere that has a name in the destination keeps its bytes, whatever is done under that name."""
    precious, link = tmp_path / "precious", place_of(tmp_path / "d", layout, place)
    precious.write_bytes(BIG_BYTES[:size])
    os.link(precious, link)
    with contextlib.suppress(DestinationError):
        everything(tmp_path / "d", layout)
    assert precious.read_bytes() == BIG_BYTES[:size]


@pytest.mark.parametrize(("layout", "place"), [each for each in FILES if not each[1].endswith(PART)])
def test_planted_fifos_keep_nobody_waiting(tmp_path: Path, layout: Layout, place: str) -> None:
    """A FIFO where a file of the destination belongs is replaced or refused, and never opened to wait."""
    os.mkfifo(place_of(tmp_path / "d", layout, place))
    code = (
        "import sys; sys.path[:0] = sys.argv[3:]; import tests.stores.local.test_destination as t;"
        "t.everything_or_refused(*sys.argv[1:3])"
    )
    folders = [str(Path(__file__).parents[3])]
    subprocess.run([sys.executable, "-c", code, tmp_path / "d", layout, *folders], check=True, timeout=100)


def everything_or_refused(root: str, layout: str) -> None:
    """All that a run does, as far as the destination lets it."""
    with contextlib.suppress(DestinationError):
        everything(Path(root), Layout(layout))


@pytest.mark.parametrize("place", ["versions", "versions/e1", "versions/e1/sub"])
def test_reading_through_planted_links_is_refused(tmp_path: Path, outside: Path, place: str) -> None:
    """Files outside are not taken for held ones: sizes, digests, bytes and removals are refused."""
    link = tmp_path / "d" / place
    link.parent.mkdir(parents=True)
    target = {"versions": tmp_path, "versions/e1": outside, "versions/e1/sub": outside / "sub"}[place]
    link.symlink_to(target)
    with opened(tmp_path / "d") as there:
        for look in (there.files.size, there.files.digest, there.files.read):
            with pytest.raises(DestinationError):
                look(SAMPLE_VERSION, "sub/c")
        with pytest.raises(DestinationError):
            there.files.read_into(SAMPLE_VERSION, "sub/c", reject_bytes)
        with pytest.raises(DestinationError):
            next(there.files.chunks(SAMPLE_VERSION, "sub/c"))
        with pytest.raises(DestinationError):
            there.files.remove(SAMPLE_VERSION, ["sub/c"])


def test_a_linked_file_is_not_held(tmp_path: Path, outside: Path) -> None:
    """A symlink in the place of a file has no size and no digest, and is never read."""
    link = tmp_path / "d/versions/e1/file"
    link.parent.mkdir(parents=True)
    link.symlink_to(outside / "file")
    with opened(tmp_path / "d") as there:
        assert there.files.size(SAMPLE_VERSION, "file") is None
        assert there.files.digest(SAMPLE_VERSION, "file") is None
        assert there.files.read_into(SAMPLE_VERSION, "file", reject_bytes) is None
        with pytest.raises(DestinationError):
            there.files.read(SAMPLE_VERSION, "file")
        there.files.remove(SAMPLE_VERSION, ["file"])
    assert not os.path.lexists(link)


# --- restarts of the machine ---


@pytest.mark.parametrize(
    ("left", "now", "held"), [("b1", "b1", 1 << 20), ("b1", "b2", 0), ("b1", None, 0), (None, None, 0), (None, "b1", 0)]
)
def test_parts_are_trusted_within_one_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str | None, now: str | None, held: int
) -> None:
    """Parts, which are not made durable, are continued only when it is known that the machine has not restarted."""
    monkeypatch.setattr(local, "read_boot_id", lambda: left)
    with opened(tmp_path / "d") as there:
        there.mark_intact()

        async def work() -> None:
            draft = there.files.draft(SAMPLE_VERSION, blob("a", BIG_BYTES))
            await draft.append(BIG_BYTES[: 1 << 20])
            await draft.suspend()

        run_async(work())
    monkeypatch.setattr(local, "read_boot_id", lambda: now)
    with opened(tmp_path / "d") as there:
        assert there.is_intact is (held > 0)
        draft = there.files.draft(SAMPLE_VERSION, blob("a", BIG_BYTES))
        assert draft.received_bytes == held
        run_async(draft.append(BIG_BYTES[held:]))
        run_async(draft.commit(digests_of(BIG_BYTES)))
        assert there.files.read(SAMPLE_VERSION, "a") == BIG_BYTES


def test_calm_comes_by_settling(tmp_path: Path) -> None:
    """A destination that was never settled is not calm; once settled it stays so for the next run."""
    if read_boot_id() is None:
        pytest.skip("this system does not tell when it started")
    with opened(tmp_path / "d") as there:
        assert not there.is_intact
    with opened(tmp_path / "d") as there:
        assert not there.is_intact
        there.mark_intact()
        assert there.is_intact
    with opened(tmp_path / "d") as there:
        assert there.is_intact


# --- a full disk ---


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True).returncode
    ):
        pytest.skip("mounting a small tmpfs is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path, *, but: int) -> Path:
    found = os.statvfs(disk)
    (disk / "filler").write_bytes(b"\0" * (found.f_bavail * found.f_frsize - but))
    return disk / "filler"


@pytest.mark.parametrize("size", [900_000, len(BIG_BYTES)], ids=["in memory", "in a part"])
def test_a_full_disk(small_disk: Path, size: int) -> None:
    """A disk that fills up is its own error; what stood stands, and with room made the transfer goes on rightly."""
    item, data = blob("a", BIG_BYTES[:size]), BIG_BYTES[:size]
    with opened(small_disk / "d") as there:
        there.mark_intact()
        run_async(put_file(there, Blob("old", 3), b"old"))
        filler = fill(small_disk, but=300_000)

        async def work() -> None:
            draft = there.files.draft(SAMPLE_VERSION, item)
            try:
                await draft.append(data[: 1 << 20])
                await draft.commit(digests_of(data))
            finally:
                filler.unlink()
                await draft.suspend()

        with pytest.raises(DiskFull):
            run_async(work())
        assert there.files.size(SAMPLE_VERSION, "a") is None
        assert there.files.read(SAMPLE_VERSION, "old") == b"old"
    with opened(small_disk / "d") as there:
        draft = there.files.draft(SAMPLE_VERSION, item)
        assert data.startswith(run_async(read_draft(draft)))


def test_a_full_disk_while_listing(small_disk: Path) -> None:
    """A catalog without room takes in nothing of the page and is whole; with room made it goes on."""
    with opened(small_disk / "d") as there:
        version = there.catalog.add_version(SAMPLE_VERSION)
        filler = fill(small_disk, but=150_000)
        page = [(Blob("n" * 200 + str(number), 1), None) for number in range(5000)]
        with pytest.raises(DiskFull):
            there.catalog.add_page(version, page, [])
        assert there.catalog.compute_totals(version).files == 0
        filler.unlink()
        there.catalog.add_page(version, page[:100], [])
        assert there.catalog.compute_totals(version).files == 100


def test_a_full_disk_while_opening(small_disk: Path) -> None:
    """A destination without any room at all is an error of the destination, and opens once there is some."""
    filler = fill(small_disk, but=0)
    with pytest.raises(DiskFull), opened(small_disk / "d"):
        pass
    filler.unlink()
    with opened(small_disk / "d"):
        pass


# --- looking without touching ---


def test_looking_writes_nothing(tmp_path: Path) -> None:
    """A look at a destination changes nothing, whether it is missing, empty, or has a catalog."""
    with open_local_for_plan(tmp_path / "missing", state_dir=None, layout=Layout.VERSIONED) as there:
        assert there.catalog is not None
        assert there.catalog.versions() == []
        there.check_names(["a"])
    assert tree(tmp_path) == {}
    with opened(tmp_path / "d") as there:
        there.catalog.add_version(SAMPLE_VERSION)
    before = tree(tmp_path)
    with open_local_for_plan(tmp_path / "d", state_dir=None, layout=Layout.VERSIONED) as seen:
        assert seen.catalog is not None
        assert [version.name for version in seen.catalog.versions()] == ["e1"]
    assert tree(tmp_path) == before


def test_one_loop_per_run(tmp_path: Path) -> None:
    """A destination outlives the event loop that wrote to it: its writer waits for no loop of the past."""
    with opened(tmp_path / "d") as there:
        for number in range(3):
            asyncio.run(put_file(there, blob(str(number), b"1"), b"1"))
        assert [there.files.size(SAMPLE_VERSION, str(number)) for number in range(3)] == [1, 1, 1]


def test_scratch_is_gone_with_the_context() -> None:
    """An empty catalog and files that can be put and read, in a folder that is there only for the time being."""
    with local.open_scratch_files() as (catalog, files, put_there):
        assert catalog.is_new
        put_there(SAMPLE_VERSION, "a/ä b", b"12")
        assert files.read(SAMPLE_VERSION, "a/ä b") == b"12"
        root = Path(files._resolver._tree.path)
        with pytest.raises(DestinationError):
            put_there(SAMPLE_VERSION, "../up", b"x")
    assert not root.exists()


def test_a_folder_that_another_thread_makes_first_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that need the same new folder both have it."""
    mkdir = os.mkdir

    def late(*arguments: Any, **where: Any) -> None:
        mkdir(*arguments, **where)
        mkdir(*arguments, **where)

    monkeypatch.setattr(os, "mkdir", late)
    assert ensure_real_folder(tmp_path / "new", make=True)
    monkeypatch.setattr(os, "mkdir", lambda *_, **__: (tmp_path / "file").touch())
    with pytest.raises(DestinationError, match="a file stands"):
        ensure_real_folder(tmp_path / "file", make=True)


@pytest.mark.parametrize("layout", Layout)
def test_a_state_folder_serves_one_destination(tmp_path: Path, layout: Layout) -> None:
    """A second DEST with the state of the first is refused in words, wherever it is opened; one that moved is not."""
    state = tmp_path / "state"
    with open_local(tmp_path / "one", state_dir=state, layout=layout):
        pass
    refused = partial(pytest.raises, DestinationError, match=f"belongs to {tmp_path}/one, not to {tmp_path}/two")
    with refused() as raised, open_local(tmp_path / "two", state_dir=state, layout=layout):
        pass
    assert "its own --state-dir" in raised.value.hint
    with refused(), open_local_for_plan(tmp_path / "two", state_dir=state, layout=layout):
        pass
    with refused(), open_local_for_audit(tmp_path / "two", state):
        pass
    assert not (tmp_path / "two").exists()
    (tmp_path / "one").rename(tmp_path / "two")
    with open_local(tmp_path / "two", state_dir=state, layout=layout):
        pass
    (tmp_path / "one").mkdir()
    with pytest.raises(DestinationError), open_local(tmp_path / "one", state_dir=state, layout=layout):
        pass
