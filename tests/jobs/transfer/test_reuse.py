"""Sharing between versions: what did not change is linked or copied, never fetched again, and never written through."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.builders import IMODEL, export, glb, read_tree, tileset
from tests.support.faults import blob_name, error_response, is_blob
from tests.support.simulator import EXPORT, JobOutcome, Simulator, read_latest, verify
from tilesync.core import manifest
from tilesync.model import Blob, Inventory, StoredFile, Version
from tilesync.stores.local.writer import LocalFiles

OTHER = "bbbbbbbb-0000-4000-8000-000000000002"
INVENTORIES = pytest.mark.parametrize("inventory", list(Inventory))


def walkable(tiles: int = 8) -> dict[str, bytes]:
    return {name: data for name, data in export(tiles).items() if data}


def inode(dest: Path, name: str, version: str = EXPORT) -> int:
    return (dest / "versions" / version / name).stat().st_ino


def asked(sim: Simulator) -> set[str]:
    return {str(blob_name(request)) for request in sim.blob_requests()}


def numbers(run: JobOutcome) -> tuple[int, int, int]:
    """Fetched, reused and kept, of a run that ended well and counts every file once."""
    assert run.error is None
    tally = run.stats
    assert tally.listed == tally.fetched + tally.reused + tally.kept + tally.excluded + tally.failed
    return tally.fetched, tally.reused, tally.kept


def second(sim: Simulator, dest: Path, files: dict[str, bytes], *, md5: bool = True) -> JobOutcome:
    """Offer another export and mirror it, counting requests from there."""
    sim.offer_export(files, export_id=OTHER, md5=md5)
    sim.clear_requests()
    return sim.mirror(dest)


def test_a_night_moves_what_changed(tmp_path: Path) -> None:
    """Of an export of which one file is new, one file is fetched; the others are the same files on the disk."""
    with Simulator(page_size=7) as sim:
        files = sim.offer_export(export(40))
        sim.mirror(tmp_path)
        changed = files | {"tiles/007.glb": glb(b"new")}
        run = second(sim, tmp_path, changed)
        assert asked(sim) == {"tiles/007.glb"}
    assert numbers(run) == (1, len(files) - 1, 0)
    assert run.stats.reused_bytes == sum(len(data) for name, data in files.items() if name != "tiles/007.glb")
    assert run.stats.transferred_bytes == run.stats.planned_bytes == len(changed["tiles/007.glb"])
    assert run.stats.verified == len(files)
    assert read_tree(tmp_path / "versions" / EXPORT) == files
    assert read_tree(tmp_path / "versions" / OTHER) == changed
    same = {name for name in files if inode(tmp_path, name) == inode(tmp_path, name, OTHER)}
    assert same == files.keys() - {"tiles/007.glb"}
    assert run.stats.completeness.missing == 0
    assert run.stats.completeness.referenced == len(files) - 1
    assert verify(tmp_path).exit_code == 0


def test_names_need_not_be_equal(tmp_path: Path) -> None:
    """A file that went to another name is linked; what it asks for is read at its new place."""
    with Simulator() as sim:
        files = sim.offer_export(export(6))
        sim.mirror(tmp_path)
        moved = {name.replace("tiles/", "tiles2/"): data for name, data in files.items()}
        moved["tileset.json"] = tileset("tiles2/tileset.json", "data/%C3%A4%20b%2520%2B%23.bin")
        run = second(sim, tmp_path, moved)
        assert asked(sim) == {"tileset.json"}
    assert numbers(run) == (1, len(files) - 1, 0)
    assert read_tree(tmp_path / "versions" / OTHER) == moved
    assert inode(tmp_path, "tiles/tileset.json") == inode(tmp_path, "tiles2/tileset.json", OTHER)
    assert run.stats.completeness.missing == 0
    assert verify(tmp_path).exit_code == 0


def test_without_md5_equal_bytes_are_linked_once_fetched(tmp_path: Path) -> None:
    """Where the listing has no MD5 everything is fetched, and what turns out the same takes no room."""
    with Simulator() as sim:
        files = sim.offer_export(export(6), md5=False)
        sim.mirror(tmp_path)
        changed = files | {"tiles/001.glb": glb(b"new")}
        run = second(sim, tmp_path, changed, md5=False)
    assert numbers(run) == (len(files), 0, 0)
    same = {name for name in files if inode(tmp_path, name) == inode(tmp_path, name, OTHER)}
    assert same == files.keys() - {"tiles/001.glb"}
    assert read_tree(tmp_path / "versions" / OTHER) == changed
    assert verify(tmp_path).exit_code == 0


@INVENTORIES
def test_absolute_urls_mean_another_thing_in_another_container(tmp_path: Path, inventory: Inventory) -> None:
    """A shared tileset that names its old container by URL asks for nothing here any more, and that is said."""
    with Simulator() as sim:
        url = f"{sim.url}/{EXPORT}/tiles/a.glb"
        files = {
            "tileset.json": tileset("tiles/tileset.json"),
            "tiles/tileset.json": tileset(url),
            "tiles/a.glb": glb(b"a"),
        }
        sim.offer_export(files)
        first = sim.mirror(tmp_path, inventory=inventory, allow_missing=True)
        sim.offer_export(files, export_id=OTHER)
        run = sim.mirror(tmp_path, inventory=inventory)
    assert (first.error, run.error) == (None, None)
    assert (first.stats.completeness.referenced, first.stats.completeness.unfollowed) == (3, 1)
    assert (run.stats.completeness.referenced, run.stats.completeness.unfollowed) == (2, 1)
    assert verify(tmp_path).stats.completeness == run.stats.completeness


@INVENTORIES
def test_implicit_tilings_and_contents_with_textures_are_shared_whole(tmp_path: Path, inventory: Inventory) -> None:
    """What the shared files ask for is known as if they had been fetched, whichever way they are found."""
    with Simulator() as sim:
        files = sim.offer_export(walkable())
        first = sim.mirror(tmp_path, inventory=inventory)
        sim.offer_export(files, export_id=OTHER)
        run = sim.mirror(tmp_path, inventory=inventory)
    assert numbers(run) == (0, len(files), 0)
    assert run.stats.completeness == first.stats.completeness
    assert read_tree(tmp_path / "versions" / OTHER) == files


def rewritten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def rewritten_unseen(path: Path) -> None:
    """Another file of the same size and mtime: only the inode tells."""
    found = path.stat()
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes()[:-1] + b"?")
    os.utime(copy, ns=(found.st_mtime_ns, found.st_mtime_ns))
    copy.replace(path)


def removed(path: Path) -> None:
    path.unlink()


def symlinked(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to("real")


def in_a_symlinked_folder(path: Path) -> None:
    folder = path.parent
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


@pytest.mark.parametrize("spoil", [rewritten, rewritten_unseen, removed, symlinked, in_a_symlinked_folder])
def test_only_what_is_as_it_was_left_is_shared(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """A file that someone changed, replaced or hid behind a symlink is fetched instead."""
    with Simulator() as sim:
        files = sim.offer_export(export(6))
        sim.mirror(tmp_path)
        spoil(tmp_path / "versions" / EXPORT / "tiles/003.glb")
        run = second(sim, tmp_path, files)
        assert "tiles/003.glb" in asked(sim)
    assert run.error is None
    assert run.stats.transferred_bytes == run.stats.planned_bytes
    assert read_tree(tmp_path / "versions" / OTHER) == files
    assert verify(tmp_path).exit_code == 0


def test_a_destination_that_was_copied_shares_what_is_still_right(tmp_path: Path) -> None:
    """With new inodes the bytes decide: what is right is linked, what is not is fetched."""
    with Simulator() as sim:
        files = sim.offer_export(export(6))
        sim.mirror(tmp_path / "old")
        shutil.copytree(tmp_path / "old", tmp_path / "new", symlinks=True)
        rewritten_unseen(tmp_path / "new/versions" / EXPORT / "tiles/003.glb")
        run = second(sim, tmp_path / "new", files)
        assert asked(sim) == {"tiles/003.glb"}
    assert numbers(run) == (1, len(files) - 1, 0)
    assert read_tree(tmp_path / "new/versions" / OTHER) == files


@pytest.mark.parametrize("reason", [errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOTSUP, None])
def test_where_no_link_can_be_made_the_file_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int | None
) -> None:
    """Another file system, too many links, none at all: nothing is fetched, and the copy is a file of its own."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(reason, os.strerror(reason)) if reason else NotImplementedError

    with Simulator() as sim:
        files = sim.offer_export(export(6))
        sim.mirror(tmp_path)
        monkeypatch.setattr(os, "link", refuse)
        run = second(sim, tmp_path, files)
        assert asked(sim) == set()
    assert numbers(run) == (0, len(files), 0)
    assert read_tree(tmp_path / "versions" / OTHER) == files
    assert inode(tmp_path, "tiles/003.glb") != inode(tmp_path, "tiles/003.glb", OTHER)
    assert verify(tmp_path).exit_code == 0


def test_a_copy_is_proved_by_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that rotted without a trace is not copied on: it is fetched."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    with Simulator() as sim:
        files = sim.offer_export(export(6))
        sim.mirror(tmp_path)
        rot(tmp_path / "versions" / EXPORT / "tiles/003.glb")
        monkeypatch.setattr(os, "link", refuse)
        run = second(sim, tmp_path, files)
        assert asked(sim) == {"tiles/003.glb"}
    assert numbers(run) == (1, len(files) - 1, 0)
    assert read_tree(tmp_path / "versions" / OTHER) == files


def rot(path: Path) -> None:
    """Other bytes in the same file, and nothing that tells of it."""
    found = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"?")
    os.utime(path, ns=(found.st_mtime_ns, found.st_mtime_ns))


def test_room_is_judged_by_what_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with room for the changed file alone is no full disk, also for a run that continues."""
    with Simulator(page_size=7) as sim:
        files = sim.offer_export(export(20))
        sim.mirror(tmp_path)
        sim.offer_export(files | {"tiles/007.glb": glb(b"new")}, export_id=OTHER)
        monkeypatch.setattr(LocalFiles, "free_bytes", lambda _: len(glb(b"new")))
        run = sim.mirror(tmp_path)
        assert run.error is None
        again = sim.mirror(tmp_path)
    assert again.error is None
    assert read_latest(tmp_path)["version"] == OTHER


def test_a_link_is_broken_when_a_version_is_healed(tmp_path: Path) -> None:
    """The fresh bytes come as a file of their own, never through the link; the older version then shares it too."""
    with Simulator() as sim:
        files = sim.offer_export(export(6))
        sim.mirror(tmp_path)
        second(sim, tmp_path, files)
        old, new = (tmp_path / "versions" / version / "tiles/003.glb" for version in (EXPORT, OTHER))
        assert old.stat().st_ino == new.stat().st_ino
        rot(new)
        with old.open("rb") as link:
            rotten = link.read()
            assert verify(tmp_path).exit_code == 10
            sim.clear_requests()
            run = sim.mirror(tmp_path)
            assert run.error is None
            assert asked(sim) == {"tiles/003.glb"}
            link.seek(0)
            assert link.read() == rotten != files["tiles/003.glb"]
            assert new.stat().st_ino != os.fstat(link.fileno()).st_ino
            assert os.fstat(link.fileno()).st_nlink == 0
    assert new.read_bytes() == old.read_bytes() == files["tiles/003.glb"]
    assert verify(tmp_path, every=True).exit_code == 0


def test_an_interrupted_version_shares_too(tmp_path: Path) -> None:
    """What an older, unfinished version has is not fetched again for the next export."""
    with Simulator() as sim:
        files = sim.offer_export(export(12))
        failing = sim.add_fault(is_blob, error_response(404), times=None, skip=8)
        assert sim.mirror(tmp_path).exit_code == 3
        sim.faults.remove(failing)
        have = read_tree(tmp_path / "versions" / EXPORT)
        run = second(sim, tmp_path, files)
        assert asked(sim) == files.keys() - have.keys()
    assert numbers(run) == (len(files) - len(have), len(have), 0)
    assert read_tree(tmp_path / "versions" / OTHER) == files


def laid_down(dest: Path, files: dict[str, bytes]) -> None:
    """A finished version of these files, as a run leaves it, but for the state."""
    lines = []
    for name, data in files.items():
        path = dest / "versions" / EXPORT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        blob = Blob(name, len(data), "0x1", hashlib.md5(data).digest())
        lines.append(manifest.make_line(StoredFile(blob, hashlib.sha256(data).digest(), 0)))
    total = sum(map(len, files.values()))
    version = Version(
        0, EXPORT, EXPORT, IMODEL, None, "2026-03-01T08:30:00Z", {"id": EXPORT}, published_at="2026-03-01T08:31:00Z"
    )
    lines.insert(0, manifest.make_header(replace(version, files=len(files), bytes=total)))
    (dest / "manifests").mkdir()
    (dest / "manifests" / f"{EXPORT}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_twenty_thousand_files_of_which_one_changed(tmp_path: Path) -> None:
    """The night moves one file."""
    files = {f"t/{number // 500:02d}/{number:05d}.glb": glb(b"%d" % number) for number in range(19_999)}
    files["tileset.json"] = tileset(*files)
    laid_down(tmp_path, files)
    changed = files | {"t/00/00007.glb": glb(b"new")}
    with Simulator() as sim:
        run = second(sim, tmp_path, changed)
        assert asked(sim) == {"t/00/00007.glb"}
    assert numbers(run) == (1, 19_999, 0)
    assert run.stats.transferred_bytes == len(glb(b"new"))
    same = sum(inode(tmp_path, name) == inode(tmp_path, name, OTHER) for name in files)
    assert same == 19_999
