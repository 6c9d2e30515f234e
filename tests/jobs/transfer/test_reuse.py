"""Reuse between versions: unchanged files are linked or copied, never fetched again or changed through a link."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.builders import IMODEL, export, glb, read_tree, referenced_export, tileset
from tests.support.faults import blob_name, error_response, is_blob
from tests.support.simulator import EXPORT, OTHER_EXPORT, JobOutcome, Simulator, both_inventories, read_latest, verify
from tilesync.core import manifest
from tilesync.model import Blob, ExportFacts, Inventory, StoredFile, Version, VersionSummary
from tilesync.stores.local.writer import LocalFiles


def inode(dest: Path, name: str, version: str = EXPORT) -> int:
    return (dest / "versions" / version / name).stat().st_ino


def requested_names(sim: Simulator) -> set[str]:
    return {str(blob_name(request)) for request in sim.blob_requests()}


def file_counts(run: JobOutcome) -> tuple[int, int, int]:
    """Return fetched, reused and kept files of a successful run; asserts that the counts add up."""
    assert run.error is None
    stats = run.stats
    assert stats.listed == stats.fetched + stats.reused + stats.kept + stats.excluded + stats.failed
    return stats.fetched, stats.reused, stats.kept


def mirror_second(sim: Simulator, dest: Path, files: dict[str, bytes], *, md5: bool = True) -> JobOutcome:
    """Offer another export and mirror it; only its requests count."""
    sim.offer_export(files, export_id=OTHER_EXPORT, md5=md5)
    sim.clear_requests()
    return sim.mirror(dest)


def test_a_run_fetches_only_changed_files(tmp_path: Path) -> None:
    """One new file in an export: one file is fetched; the others are hard links."""
    with Simulator(page_size=7) as sim:
        files = sim.offer_export(export(40))
        sim.mirror(tmp_path)
        changed = files | {"tiles/007.glb": glb(b"new")}
        run = mirror_second(sim, tmp_path, changed)
        assert requested_names(sim) == {"tiles/007.glb"}
    assert file_counts(run) == (1, len(files) - 1, 0)
    assert run.stats.reused_bytes == sum(len(data) for name, data in files.items() if name != "tiles/007.glb")
    assert run.stats.transferred_bytes == run.stats.planned_bytes == len(changed["tiles/007.glb"])
    assert run.stats.verified == len(files)
    assert read_tree(tmp_path / "versions" / EXPORT) == files
    assert read_tree(tmp_path / "versions" / OTHER_EXPORT) == changed
    same = {name for name in files if inode(tmp_path, name) == inode(tmp_path, name, OTHER_EXPORT)}
    assert same == files.keys() - {"tiles/007.glb"}
    assert run.stats.completeness.missing == 0
    assert run.stats.completeness.referenced == len(files) - 1
    assert verify(tmp_path).exit_code == 0


def test_names_need_not_be_equal(tmp_path: Path) -> None:
    """A renamed file is linked; its references are parsed at the new place."""
    with Simulator() as sim:
        files = sim.offer_export(export(6))
        sim.mirror(tmp_path)
        moved = {name.replace("tiles/", "tiles2/"): data for name, data in files.items()}
        moved["tileset.json"] = tileset("tiles2/tileset.json", "data/%C3%A4%20b%2520%2B%23.bin")
        run = mirror_second(sim, tmp_path, moved)
        assert requested_names(sim) == {"tileset.json"}
    assert file_counts(run) == (1, len(files) - 1, 0)
    assert read_tree(tmp_path / "versions" / OTHER_EXPORT) == moved
    assert inode(tmp_path, "tiles/tileset.json") == inode(tmp_path, "tiles2/tileset.json", OTHER_EXPORT)
    assert run.stats.completeness.missing == 0
    assert verify(tmp_path).exit_code == 0


def test_equal_bytes_are_linked_after_the_fetch_without_md5(tmp_path: Path) -> None:
    """Without MD5 in the listing every file is fetched, and equal ones take no space."""
    with Simulator() as sim:
        files = sim.offer_export(export(6), md5=False)
        sim.mirror(tmp_path)
        changed = files | {"tiles/001.glb": glb(b"new")}
        run = mirror_second(sim, tmp_path, changed, md5=False)
    assert file_counts(run) == (len(files), 0, 0)
    same = {name for name in files if inode(tmp_path, name) == inode(tmp_path, name, OTHER_EXPORT)}
    assert same == files.keys() - {"tiles/001.glb"}
    assert read_tree(tmp_path / "versions" / OTHER_EXPORT) == changed
    assert verify(tmp_path).exit_code == 0


@both_inventories
def test_absolute_urls_are_parsed_again_in_another_container(tmp_path: Path, inventory: Inventory) -> None:
    """A shared tileset with absolute URLs of its old container references nothing in the new one; that is reported."""
    with Simulator() as sim:
        url = f"{sim.url}/{EXPORT}/tiles/a.glb"
        files = {
            "tileset.json": tileset("tiles/tileset.json"),
            "tiles/tileset.json": tileset(url),
            "tiles/a.glb": glb(b"a"),
        }
        sim.offer_export(files)
        first = sim.mirror(tmp_path, inventory=inventory, allow_missing=True)
        sim.offer_export(files, export_id=OTHER_EXPORT)
        run = sim.mirror(tmp_path, inventory=inventory)
    assert (first.error, run.error) == (None, None)
    assert (first.stats.completeness.referenced, first.stats.completeness.unfollowed) == (3, 1)
    assert (run.stats.completeness.referenced, run.stats.completeness.unfollowed) == (2, 1)
    assert verify(tmp_path).stats.completeness == run.stats.completeness


@both_inventories
def test_implicit_tilings_and_contents_with_textures_are_shared_whole(tmp_path: Path, inventory: Inventory) -> None:
    """References of shared files are the same as after a fetch, with each inventory."""
    with Simulator() as sim:
        files = sim.offer_export(referenced_export())
        first = sim.mirror(tmp_path, inventory=inventory)
        sim.offer_export(files, export_id=OTHER_EXPORT)
        run = sim.mirror(tmp_path, inventory=inventory)
    assert file_counts(run) == (0, len(files), 0)
    assert run.stats.completeness == first.stats.completeness
    assert read_tree(tmp_path / "versions" / OTHER_EXPORT) == files


def rewritten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def rewritten_unseen(path: Path) -> None:
    """Replace a file by one of the same size and mtime: only the inode differs."""
    result = path.stat()
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes()[:-1] + b"?")
    os.utime(copy, ns=(result.st_mtime_ns, result.st_mtime_ns))
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


@pytest.mark.parametrize("change", [rewritten, rewritten_unseen, removed, symlinked, in_a_symlinked_folder])
def test_changed_files_are_not_shared(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """A file that someone changed, replaced or hid behind a symlink is fetched instead."""
    with Simulator() as sim:
        files = sim.offer_export(export(6))
        sim.mirror(tmp_path)
        change(tmp_path / "versions" / EXPORT / "tiles/003.glb")
        run = mirror_second(sim, tmp_path, files)
        assert "tiles/003.glb" in requested_names(sim)
    assert run.error is None
    assert run.stats.transferred_bytes == run.stats.planned_bytes
    assert read_tree(tmp_path / "versions" / OTHER_EXPORT) == files
    assert verify(tmp_path).exit_code == 0


def test_a_copied_destination_shares_intact_files(tmp_path: Path) -> None:
    """With new inodes the bytes decide: intact files are linked, damaged ones are fetched."""
    with Simulator() as sim:
        files = sim.offer_export(export(6))
        sim.mirror(tmp_path / "old")
        shutil.copytree(tmp_path / "old", tmp_path / "new", symlinks=True)
        rewritten_unseen(tmp_path / "new/versions" / EXPORT / "tiles/003.glb")
        run = mirror_second(sim, tmp_path / "new", files)
        assert requested_names(sim) == {"tiles/003.glb"}
    assert file_counts(run) == (1, len(files) - 1, 0)
    assert read_tree(tmp_path / "new/versions" / OTHER_EXPORT) == files


@pytest.mark.parametrize("reason", [errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOTSUP, None])
def test_files_are_copied_where_links_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int | None) -> None:
    """Another file system, too many links, no hard links: nothing is fetched, and the copy is a separate file."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(reason, os.strerror(reason)) if reason else NotImplementedError

    with Simulator() as sim:
        files = sim.offer_export(export(6))
        sim.mirror(tmp_path)
        monkeypatch.setattr(os, "link", refuse)
        run = mirror_second(sim, tmp_path, files)
        assert requested_names(sim) == set()
    assert file_counts(run) == (0, len(files), 0)
    assert read_tree(tmp_path / "versions" / OTHER_EXPORT) == files
    assert inode(tmp_path, "tiles/003.glb") != inode(tmp_path, "tiles/003.glb", OTHER_EXPORT)
    assert verify(tmp_path).exit_code == 0


def test_a_copy_is_checked_by_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file damaged without a trace is not copied: it is fetched."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    with Simulator() as sim:
        files = sim.offer_export(export(6))
        sim.mirror(tmp_path)
        rot(tmp_path / "versions" / EXPORT / "tiles/003.glb")
        monkeypatch.setattr(os, "link", refuse)
        run = mirror_second(sim, tmp_path, files)
        assert requested_names(sim) == {"tiles/003.glb"}
    assert file_counts(run) == (1, len(files) - 1, 0)
    assert read_tree(tmp_path / "versions" / OTHER_EXPORT) == files


def rot(path: Path) -> None:
    """Change bytes of a file without changing its size, mtime or inode."""
    result = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"?")
    os.utime(path, ns=(result.st_mtime_ns, result.st_mtime_ns))


def test_free_space_is_needed_only_for_fetched_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Space for the changed file alone is enough, also for a run that continues."""
    with Simulator(page_size=7) as sim:
        files = sim.offer_export(export(20))
        sim.mirror(tmp_path)
        sim.offer_export(files | {"tiles/007.glb": glb(b"new")}, export_id=OTHER_EXPORT)
        monkeypatch.setattr(LocalFiles, "free_bytes", lambda _: len(glb(b"new")))
        run = sim.mirror(tmp_path)
        assert run.error is None
        again = sim.mirror(tmp_path)
    assert again.error is None
    assert read_latest(tmp_path)["version"] == OTHER_EXPORT


def test_a_repair_replaces_the_link(tmp_path: Path) -> None:
    """The repaired file is a new file, never written through the link; the older version then shares it too."""
    with Simulator() as sim:
        files = sim.offer_export(export(6))
        sim.mirror(tmp_path)
        mirror_second(sim, tmp_path, files)
        old, new = (tmp_path / "versions" / version / "tiles/003.glb" for version in (EXPORT, OTHER_EXPORT))
        assert old.stat().st_ino == new.stat().st_ino
        rot(new)
        with old.open("rb") as link:
            rotten = link.read()
            assert verify(tmp_path).exit_code == 10
            sim.clear_requests()
            run = sim.mirror(tmp_path)
            assert run.error is None
            assert requested_names(sim) == {"tiles/003.glb"}
            link.seek(0)
            assert link.read() == rotten != files["tiles/003.glb"]
            assert new.stat().st_ino != os.fstat(link.fileno()).st_ino
            assert os.fstat(link.fileno()).st_nlink == 0
    assert new.read_bytes() == old.read_bytes() == files["tiles/003.glb"]
    assert verify(tmp_path, every=True).exit_code == 0


def test_an_interrupted_version_shares_too(tmp_path: Path) -> None:
    """Files of an older, unfinished version are not fetched again for the next export."""
    with Simulator() as sim:
        files = sim.offer_export(export(12))
        failing = sim.add_fault(is_blob, error_response(404), times=None, skip=8)
        assert sim.mirror(tmp_path).exit_code == 3
        sim.faults.remove(failing)
        have = read_tree(tmp_path / "versions" / EXPORT)
        run = mirror_second(sim, tmp_path, files)
        assert requested_names(sim) == files.keys() - have.keys()
    assert file_counts(run) == (len(files) - len(have), len(have), 0)
    assert read_tree(tmp_path / "versions" / OTHER_EXPORT) == files


def write_version(dest: Path, files: dict[str, bytes]) -> None:
    """Write a finished version of these files, like a run, but without the state."""
    lines = []
    for name, data in files.items():
        path = dest / "versions" / EXPORT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        blob = Blob(name, len(data), "0x1", hashlib.md5(data).digest())
        lines.append(manifest.make_line(StoredFile(blob, hashlib.sha256(data).digest(), 0)))
    total = sum(map(len, files.values()))
    version = Version(
        0,
        EXPORT,
        EXPORT,
        facts=ExportFacts(imodel=IMODEL, changeset=None, modified="2026-03-01T08:30:00Z", record={"id": EXPORT}),
        summary=VersionSummary(published_at="2026-03-01T08:31:00Z"),
    )
    lines.insert(0, manifest.make_header(version.with_summary(files=len(files), bytes=total)))
    (dest / "manifests").mkdir()
    (dest / "manifests" / f"{EXPORT}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.scale
def test_twenty_thousand_files_of_which_one_changed(tmp_path: Path) -> None:
    """The run fetches one file."""
    files = {f"t/{number // 500:02d}/{number:05d}.glb": glb(b"%d" % number) for number in range(19_999)}
    files["tileset.json"] = tileset(*files)
    write_version(tmp_path, files)
    changed = files | {"t/00/00007.glb": glb(b"new")}
    with Simulator() as sim:
        run = mirror_second(sim, tmp_path, changed)
        assert requested_names(sim) == {"t/00/00007.glb"}
    assert file_counts(run) == (1, 19_999, 0)
    assert run.stats.transferred_bytes == len(glb(b"new"))
    same = sum(inode(tmp_path, name) == inode(tmp_path, name, OTHER_EXPORT) for name in files)
    assert same == 19_999
