"""The audit: every finding told, what is bad marked for healing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.builders import export, glb, read_tree
from tests.support.faults import blob_name
from tests.support.simulator import EXPORT, JobOutcome, Simulator, verify
from tilesync.errors import DestinationError, VerifyFailed
from tilesync.events import Finding
from tilesync.model import FileStamp, Version
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
def test_a_whole_version_has_no_findings(dest: Path, quick: bool) -> None:
    """Nothing changed since publishing: exit 0, every file counted."""
    run = verify(dest, quick=quick)
    assert run.exit_code == 0
    assert run.events_of(Finding) == []
    assert (run.stats.listed, run.stats.verified) == (len(FILES), len(FILES))
    assert run.stats.transferred_bytes == (0 if quick else sum(map(len, FILES.values())))


def test_all_findings_are_told(dest: Path) -> None:
    """A missing file, a longer one, a changed one and a symlink: four findings, exit 10."""
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
    """A changed byte is not seen by --quick, a changed length is."""
    (folder(dest) / "tiles/003.glb").write_bytes(b"?" * len(FILES["tiles/003.glb"]))
    assert verify(dest, quick=True).exit_code == 0
    (folder(dest) / "tiles/002.glb").write_bytes(b"")
    assert problems(verify(dest, quick=True)) == {"tiles/002.glb": "size"}


def test_one_changed_bit_anywhere_is_found(dest: Path) -> None:
    """Each file in turn with one bit flipped is the one finding."""
    for name, data in FILES.items():
        if data:
            path = folder(dest) / name
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 0x80]))
            assert problems(verify(dest)) == {name: "content"}
            path.write_bytes(data)
    assert verify(dest).exit_code == 0


@pytest.mark.parametrize("damage", ["changed", "gone", "foreign"])
def test_a_pointer_that_does_not_lead_there_is_a_finding(dest: Path, damage: str) -> None:
    """The pointer must be the root of the current version, re-based: anything else is exit 10, and mirror mends it."""
    pointer = (dest / "tileset.json").read_bytes()
    if damage == "gone":
        (dest / "tileset.json").unlink()
    else:
        (dest / "tileset.json").write_bytes(b"{}" if damage == "foreign" else pointer.replace(b"data/", b"dada/"))
    assert problems(verify(dest)) == {"tileset.json": "pointer"}


def test_a_pointer_that_was_changed_is_mended_by_mirror(tmp_path: Path) -> None:
    """After the next run of the main job the pointer is right again."""
    with Simulator() as sim:
        sim.offer_export(dict(FILES))
        sim.mirror(tmp_path)
        (tmp_path / "tileset.json").write_bytes(b"{}")
        assert verify(tmp_path).exit_code == 10
        assert sim.mirror(tmp_path).exit_code == 0
    assert verify(tmp_path).exit_code == 0


def test_a_cut_manifest_is_a_finding(dest: Path) -> None:
    """A manifest with fewer lines than its first line says does not pass as whole."""
    path = dest / "manifests" / f"{EXPORT}.jsonl"
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:-2]), encoding="utf-8")
    run = verify(dest)
    assert run.exit_code == 10
    assert list(problems(run).values()) == ["manifest"]


@pytest.mark.parametrize("text", ["", "no json\n", "{}\n", '{"version": 1}\n[]\n'])
def test_a_damaged_manifest_is_a_problem_not_a_bug(dest: Path, text: str) -> None:
    """Whatever stands in the manifest: exit 10 with a sentence."""
    (dest / "manifests" / f"{EXPORT}.jsonl").write_text(text)
    run = verify(dest)
    assert run.exit_code == 10
    assert "manifest" in str(run.error)


def test_a_missing_manifest_is_a_problem(dest: Path) -> None:
    """Without its manifest a version cannot be audited: exit 10 or 8, never 0."""
    (dest / "manifests" / f"{EXPORT}.jsonl").unlink()
    assert verify(dest).exit_code in {8, 10}


def test_nothing_held_is_exit_8(tmp_path: Path) -> None:
    """A folder that holds nothing is no destination, and stays empty."""
    run = verify(tmp_path)
    assert isinstance(run.error, DestinationError)
    assert run.exit_code == 8
    assert list(tmp_path.iterdir()) == []


def test_it_needs_no_catalog(dest: Path) -> None:
    """A copy without state is audited against its manifest alone; that nothing can be marked is said."""
    shutil.rmtree(dest / ".tilesync")
    assert verify(dest).exit_code == 0
    (folder(dest) / "tiles/001.glb").unlink()
    run = verify(dest)
    assert run.exit_code == 10
    assert run.error is not None
    assert "--state-dir" in run.error.hint
    assert not (dest / ".tilesync").exists()


def test_it_changes_nothing_but_the_catalog(dest: Path) -> None:
    """No file that was published is written by an audit, whatever it finds."""
    (folder(dest) / "tiles/001.glb").write_bytes(b"bad")
    before = {name: data for name, data in read_tree(dest).items() if not name.startswith(".tilesync")}
    verify(dest)
    assert {name: data for name, data in read_tree(dest).items() if not name.startswith(".tilesync")} == before


def test_names_that_climb_out_of_the_manifest_read_nothing_outside(dest: Path) -> None:
    """A manifest is input too: a name that leads outside is a finding, not a reading of that file."""
    path = dest / "manifests" / f"{EXPORT}.jsonl"
    head, first, *rest = path.read_text(encoding="utf-8").splitlines()
    row = json.loads(first)
    data = FILES[row["name"]]
    (dest.parent / "outside").write_bytes(data)
    row["name"] = "../../../outside"
    path.write_text("\n".join([head, json.dumps(row), *rest]) + "\n", encoding="utf-8")
    assert verify(dest).exit_code != 0


# --- every version ---

OTHER = "bbbbbbbb-0000-4000-8000-000000000002"
THIRD = "cccccccc-0000-4000-8000-000000000003"


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """Three versions that differ in one file each."""
    with Simulator() as sim:
        for number, which in enumerate((EXPORT, OTHER, THIRD), 1):
            files = export(8) | {"tiles/003.glb": glb(which.encode())}
            sim.offer_export(files, export_id=which, lastModified=f"2026-03-0{number}T08:30:00Z")
            assert sim.mirror(tmp_path / "h").error is None
    return tmp_path / "h"


def test_every_version_is_audited_and_each_inode_read_once(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All versions are proven whole, with what they ask for, and no file that they share is read a second time."""
    read: list[int] = []
    feed = LocalStoredFiles.read_into

    def counting(
        self: LocalStoredFiles, version: Version, name: str, into: Callable[[bytes], object]
    ) -> FileStamp | None:
        read.append((history / "versions" / version.name / name).stat().st_ino)
        return feed(self, version, name, into)

    monkeypatch.setattr(LocalStoredFiles, "read_into", counting)
    run = verify(history, every=True)
    assert run.error is None
    files = len(read_tree(history / "versions" / EXPORT))
    assert run.stats.listed == run.stats.verified == 3 * files
    assert len(read) == len(set(read)) == files + 2
    assert run.stats.completeness.missing == 0
    assert run.stats.completeness.referenced == 3 * (files - 1)


def test_what_is_bad_is_found_in_every_version_that_shares_it(history: Path) -> None:
    """A rotten inode is bad in each version, a lost name in one; each finding says in which; all of it is healed."""
    shared, lost = "tiles/001.glb", "tiles/002.glb"
    good = (history / "versions" / EXPORT / shared).read_bytes()
    with (history / "versions" / OTHER / shared).open("r+b") as file:
        file.write(b"?")
    (history / "versions" / EXPORT / lost).unlink()
    run = verify(history, every=True)
    assert run.exit_code == 10
    assert {(found.version, found.name) for found in run.events_of(Finding)} == {
        *((which, shared) for which in (EXPORT, OTHER, THIRD)),
        (EXPORT, lost),
    }
    assert "4 problems found in 3 versions" in str(run.error)
    with Simulator() as sim:
        files = export(8) | {"tiles/003.glb": glb(THIRD.encode())}
        sim.offer_export(files, export_id=THIRD, lastModified="2026-03-03T08:30:00Z")
        again = sim.mirror(history)
        assert {blob_name(request) for request in sim.blob_requests()} == {shared}
    assert again.error is None
    assert {(history / "versions" / which / shared).read_bytes() for which in (EXPORT, OTHER, THIRD)} == {good}
    assert verify(history, every=True).error is None


def test_a_file_that_was_shared_and_is_another_now(history: Path) -> None:
    """Only what is still one file counts as read: a changed copy under a shared name is found."""
    path = history / "versions" / EXPORT / "tiles/001.glb"
    data, found = path.read_bytes(), path.stat()
    path.unlink()
    path.write_bytes(data[:-1] + b"?")
    os.utime(path, ns=(found.st_mtime_ns, found.st_mtime_ns))
    run = verify(history, every=True)
    assert [(each.version, each.name) for each in run.events_of(Finding)] == [(EXPORT, "tiles/001.glb")]


def test_an_old_manifest_that_is_torn(history: Path) -> None:
    """It is a finding of its version, and the others are audited."""
    (history / "manifests" / f"{EXPORT}.jsonl").write_text("torn")
    run = verify(history, every=True)
    assert run.exit_code == 10
    assert [(each.version, each.problem) for each in run.events_of(Finding)] == [(EXPORT, "manifest")]
    assert run.stats.verified == 2 * len(read_tree(history / "versions" / OTHER))


def test_quick_looks_at_names_and_sizes_of_all(history: Path) -> None:
    """Nothing is read; a lost file of an old version is found."""
    (history / "versions" / EXPORT / "tiles/001.glb").unlink()
    run = verify(history, every=True, quick=True)
    assert [(each.version, each.name) for each in run.events_of(Finding)] == [(EXPORT, "tiles/001.glb")]
    assert run.stats.transferred_bytes == 0
