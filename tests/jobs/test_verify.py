"""Verify: every finding is reported, and bad files are marked for repair."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.builders import export, glb, read_tree
from tests.support.faults import blob_name
from tests.support.simulator import EXPORT, OTHER_EXPORT, JobOutcome, Simulator, verify
from tilesync.errors import DestinationError, VerifyFailed
from tilesync.events import Finding
from tilesync.model import FileStamp, StoredFile, Version
from tilesync.protocols import WholeFile
from tilesync.stores.local.reader import LocalStoredFiles

FILES = export()


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    with Simulator() as sim:
        sim.offer_export(dict(FILES))
        assert sim.mirror(tmp_path / "d").exit_code == 0
    return tmp_path / "d"


def problems(run: JobOutcome) -> dict[str, str]:
    return {finding.name: finding.problem for finding in run.events_of(Finding)}


def folder(dest: Path) -> Path:
    return dest / "versions" / EXPORT


@pytest.mark.parametrize("quick", [False, True])
def test_intact_version_has_no_findings(dest: Path, quick: bool) -> None:
    """If nothing changed since publication, the exit code is 0, and every file is counted."""
    run = verify(dest, quick=quick)
    assert run.exit_code == 0
    assert run.events_of(Finding) == []
    assert (run.stats.listed, run.stats.verified) == (len(FILES), len(FILES))
    assert run.stats.transferred_bytes == (0 if quick else sum(map(len, FILES.values())))


def test_all_findings_are_reported(dest: Path) -> None:
    """A missing, a longer and a changed file, and a symlink, are four findings: exit 10."""
    (folder(dest) / "tiles/001.glb").unlink()
    (folder(dest) / "tiles/002.glb").write_bytes(FILES["tiles/002.glb"] + b"x")
    (folder(dest) / "tiles/003.glb").write_bytes(FILES["tiles/003.glb"][:-1] + b"?")
    (folder(dest) / "tiles/004.glb").unlink()
    (folder(dest) / "tiles/004.glb").symlink_to("005.glb")
    run = verify(dest)
    assert isinstance(run.error, VerifyFailed)
    assert run.exit_code == 10
    assert problems(run) == {
        "tiles/001.glb": "missing",
        "tiles/002.glb": "size",
        "tiles/003.glb": "content",
        "tiles/004.glb": "missing",
    }
    assert "4 problems" in str(run.error)


def test_quick_compares_names_and_sizes_only(dest: Path) -> None:
    """--quick finds a changed size, but not a changed byte."""
    (folder(dest) / "tiles/003.glb").write_bytes(b"?" * len(FILES["tiles/003.glb"]))
    assert verify(dest, quick=True).exit_code == 0
    (folder(dest) / "tiles/002.glb").write_bytes(b"")
    assert problems(verify(dest, quick=True)) == {"tiles/002.glb": "size"}


def test_one_changed_bit_anywhere_is_found(dest: Path) -> None:
    """One flipped bit in any file is the only finding."""
    for name, data in FILES.items():
        if data:
            path = folder(dest) / name
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 0x80]))
            assert problems(verify(dest)) == {name: "content"}
            path.write_bytes(data)
    assert verify(dest).exit_code == 0


@pytest.mark.parametrize("damage", ["changed", "gone", "foreign"])
def test_wrong_pointer_is_a_finding(dest: Path, damage: str) -> None:
    """If the pointer is not the rebased root tileset: exit 10, and mirror repairs it."""
    pointer = (dest / "tileset.json").read_bytes()
    if damage == "gone":
        (dest / "tileset.json").unlink()
    else:
        (dest / "tileset.json").write_bytes(b"{}" if damage == "foreign" else pointer.replace(b"data/", b"dada/"))
    assert problems(verify(dest)) == {"tileset.json": "pointer"}


def test_mirror_repairs_a_changed_pointer(tmp_path: Path) -> None:
    """The next mirror run restores the pointer."""
    with Simulator() as sim:
        sim.offer_export(dict(FILES))
        sim.mirror(tmp_path)
        (tmp_path / "tileset.json").write_bytes(b"{}")
        assert verify(tmp_path).exit_code == 10
        assert sim.mirror(tmp_path).exit_code == 0
    assert verify(tmp_path).exit_code == 0


def test_truncated_manifest_is_a_finding(dest: Path) -> None:
    """A manifest with fewer lines than its header states is a finding."""
    path = dest / "manifests" / f"{EXPORT}.jsonl"
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:-2]), encoding="utf-8")
    run = verify(dest)
    assert run.exit_code == 10
    assert list(problems(run).values()) == ["manifest"]


@pytest.mark.parametrize("text", ["", "no json\n", "{}\n", '{"version": 1}\n[]\n'])
def test_damaged_manifest_is_a_finding(dest: Path, text: str) -> None:
    """Any damaged manifest gives exit 10 and a sentence, no crash."""
    (dest / "manifests" / f"{EXPORT}.jsonl").write_text(text)
    run = verify(dest)
    assert run.exit_code == 10
    assert "manifest" in str(run.error)


def test_missing_manifest_is_an_error(dest: Path) -> None:
    """A version without its manifest gives exit 10 or 8, never 0."""
    (dest / "manifests" / f"{EXPORT}.jsonl").unlink()
    assert verify(dest).exit_code in {8, 10}


def test_empty_folder_is_exit_8(tmp_path: Path) -> None:
    """An empty folder is no destination, and stays empty."""
    run = verify(tmp_path)
    assert isinstance(run.error, DestinationError)
    assert run.exit_code == 8
    assert list(tmp_path.iterdir()) == []


def test_no_catalog_is_needed(dest: Path) -> None:
    """A copy without state is verified against its manifest; the hint says that nothing was marked."""
    shutil.rmtree(dest / ".tilesync")
    assert verify(dest).exit_code == 0
    (folder(dest) / "tiles/001.glb").unlink()
    run = verify(dest)
    assert run.exit_code == 10
    assert run.error is not None
    assert "--state-dir" in run.error.hint
    assert not (dest / ".tilesync").exists()


def test_only_the_catalog_changes(dest: Path) -> None:
    """An audit changes no published file."""
    (folder(dest) / "tiles/001.glb").write_bytes(b"bad")
    before = {name: data for name, data in read_tree(dest).items() if not name.startswith(".tilesync")}
    verify(dest)
    assert {name: data for name, data in read_tree(dest).items() if not name.startswith(".tilesync")} == before


def test_unsafe_names_in_the_manifest_are_not_read(dest: Path) -> None:
    """A manifest is untrusted input: a name that leads outside is a finding, and that file is not read."""
    path = dest / "manifests" / f"{EXPORT}.jsonl"
    head, first, *rest = path.read_text(encoding="utf-8").splitlines()
    row = json.loads(first)
    data = FILES[row["name"]]
    (dest.parent / "outside").write_bytes(data)
    row["name"] = "../../../outside"
    path.write_text("\n".join([head, json.dumps(row), *rest]) + "\n", encoding="utf-8")
    assert verify(dest).exit_code != 0


# --- all versions ---

THIRD = "cccccccc-0000-4000-8000-000000000003"


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """Three versions that differ in one file each."""
    with Simulator() as sim:
        for number, which in enumerate((EXPORT, OTHER_EXPORT, THIRD), 1):
            files = export(8) | {"tiles/003.glb": glb(which.encode())}
            sim.offer_export(files, export_id=which, lastModified=f"2026-03-0{number}T08:30:00Z")
            assert sim.mirror(tmp_path / "h").error is None
    return tmp_path / "h"


def test_every_version_is_audited_and_each_inode_read_once(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All versions are verified, with their references, and no shared file is read twice."""
    read: list[int] = []
    read_whole, read_into = LocalStoredFiles.read_whole, LocalStoredFiles.read_into

    def count_whole(
        self: LocalStoredFiles, version: Version, stored: Sequence[StoredFile]
    ) -> Iterator[WholeFile | None]:
        for whole in read_whole(self, version, stored):
            read.extend([whole.inode] if whole is not None else [])
            yield whole

    def count_chunked(
        self: LocalStoredFiles, version: Version, name: str, into: Callable[[bytes], object]
    ) -> FileStamp | None:
        read.append((history / "versions" / version.name / name).stat().st_ino)
        return read_into(self, version, name, into)

    monkeypatch.setattr(LocalStoredFiles, "read_whole", count_whole)
    monkeypatch.setattr(LocalStoredFiles, "read_into", count_chunked)
    run = verify(history, every=True)
    assert run.error is None
    files = len(read_tree(history / "versions" / EXPORT))
    assert run.stats.listed == run.stats.verified == 3 * files
    assert len(read) == len(set(read)) == files + 2
    assert run.stats.completeness.missing == 0
    assert run.stats.completeness.referenced == 3 * (files - 1)


def test_damage_is_found_in_every_version_that_shares_it(history: Path) -> None:
    """A damaged inode is a finding in each version, a lost name in one; mirror repairs all."""
    shared, lost = "tiles/001.glb", "tiles/002.glb"
    good = (history / "versions" / EXPORT / shared).read_bytes()
    with (history / "versions" / OTHER_EXPORT / shared).open("r+b") as file:
        file.write(b"?")
    (history / "versions" / EXPORT / lost).unlink()
    run = verify(history, every=True)
    assert run.exit_code == 10
    assert {(result.version, result.name) for result in run.events_of(Finding)} == {
        *((which, shared) for which in (EXPORT, OTHER_EXPORT, THIRD)),
        (EXPORT, lost),
    }
    assert "4 problems found in 3 versions" in str(run.error)
    with Simulator() as sim:
        files = export(8) | {"tiles/003.glb": glb(THIRD.encode())}
        sim.offer_export(files, export_id=THIRD, lastModified="2026-03-03T08:30:00Z")
        again = sim.mirror(history)
        assert {blob_name(request) for request in sim.blob_requests()} == {shared}
    assert again.error is None
    assert {(history / "versions" / which / shared).read_bytes() for which in (EXPORT, OTHER_EXPORT, THIRD)} == {good}
    assert verify(history, every=True).error is None


def test_changed_copy_of_a_shared_file_is_found(history: Path) -> None:
    """Only a file that is still the same inode counts as read, so a changed copy is found."""
    path = history / "versions" / EXPORT / "tiles/001.glb"
    data, result = path.read_bytes(), path.stat()
    path.unlink()
    path.write_bytes(data[:-1] + b"?")
    os.utime(path, ns=(result.st_mtime_ns, result.st_mtime_ns))
    run = verify(history, every=True)
    assert [(each.version, each.name) for each in run.events_of(Finding)] == [(EXPORT, "tiles/001.glb")]


def test_damaged_manifest_of_an_old_version(history: Path) -> None:
    """It is a finding of that version, and the other versions are verified."""
    (history / "manifests" / f"{EXPORT}.jsonl").write_text("torn")
    run = verify(history, every=True)
    assert run.exit_code == 10
    assert [(each.version, each.problem) for each in run.events_of(Finding)] == [(EXPORT, "manifest")]
    assert run.stats.verified == 2 * len(read_tree(history / "versions" / OTHER_EXPORT))


def test_quick_checks_names_and_sizes_of_all_versions(history: Path) -> None:
    """Nothing is read, and a lost file of an old version is found."""
    (history / "versions" / EXPORT / "tiles/001.glb").unlink()
    run = verify(history, every=True, quick=True)
    assert [(each.version, each.name) for each in run.events_of(Finding)] == [(EXPORT, "tiles/001.glb")]
    assert run.stats.transferred_bytes == 0
