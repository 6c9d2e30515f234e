"""The audit: every finding told, what is bad marked for healing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from builders import export, tree
from simulator import EXPORT, Run, Simulator, verify

from tilesync.errors import DestinationError, VerifyFailed
from tilesync.events import Finding

FILES = export()


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    with Simulator() as sim:
        sim.hold(dict(FILES))
        assert sim.mirror(tmp_path / "d").exit == 0
    return tmp_path / "d"


def problems(run: Run) -> dict[str, str]:
    return {finding.name: finding.problem for finding in run.of(Finding)}


def folder(dest: Path) -> Path:
    return dest / "versions" / EXPORT


@pytest.mark.parametrize("quick", [False, True])
def test_a_whole_version_has_no_findings(dest: Path, quick: bool) -> None:
    """Nothing changed since publishing: exit 0, every file counted."""
    run = verify(dest, quick=quick)
    assert run.exit == 0
    assert run.of(Finding) == []
    assert (run.tally.listed, run.tally.verified) == (len(FILES), len(FILES))
    assert run.tally.bytes == (0 if quick else sum(map(len, FILES.values())))


def test_all_findings_are_told(dest: Path) -> None:
    """A missing file, a longer one, a changed one and a symlink: four findings, exit 10."""
    (folder(dest) / "tiles/001.glb").unlink()
    (folder(dest) / "tiles/002.glb").write_bytes(FILES["tiles/002.glb"] + b"x")
    (folder(dest) / "tiles/003.glb").write_bytes(FILES["tiles/003.glb"][:-1] + b"?")
    (folder(dest) / "tiles/004.glb").unlink()
    (folder(dest) / "tiles/004.glb").symlink_to("005.glb")
    run = verify(dest)
    assert isinstance(run.error, VerifyFailed)
    assert run.exit == 10
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
    assert verify(dest, quick=True).exit == 0
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
    assert verify(dest).exit == 0


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
        sim.hold(dict(FILES))
        sim.mirror(tmp_path)
        (tmp_path / "tileset.json").write_bytes(b"{}")
        assert verify(tmp_path).exit == 10
        assert sim.mirror(tmp_path).exit == 0
    assert verify(tmp_path).exit == 0


def test_a_cut_manifest_is_a_finding(dest: Path) -> None:
    """A manifest with fewer lines than its first line says does not pass as whole."""
    path = dest / "manifests" / f"{EXPORT}.jsonl"
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:-2]), encoding="utf-8")
    run = verify(dest)
    assert run.exit == 10
    assert list(problems(run).values()) == ["manifest"]


@pytest.mark.parametrize("text", ["", "no json\n", "{}\n", '{"version": 1}\n[]\n'])
def test_a_damaged_manifest_is_a_problem_not_a_bug(dest: Path, text: str) -> None:
    """Whatever stands in the manifest: exit 10 with a sentence."""
    (dest / "manifests" / f"{EXPORT}.jsonl").write_text(text)
    run = verify(dest)
    assert run.exit == 10
    assert "manifest" in str(run.error)


def test_a_missing_manifest_is_a_problem(dest: Path) -> None:
    """Without its manifest a version cannot be audited: exit 10 or 8, never 0."""
    (dest / "manifests" / f"{EXPORT}.jsonl").unlink()
    assert verify(dest).exit in {8, 10}


def test_nothing_held_is_exit_8(tmp_path: Path) -> None:
    """A folder that holds nothing is no destination, and stays empty."""
    run = verify(tmp_path)
    assert isinstance(run.error, DestinationError)
    assert run.exit == 8
    assert list(tmp_path.iterdir()) == []


def test_it_needs_no_catalog(dest: Path) -> None:
    """A copy without state is audited against its manifest alone; that nothing can be marked is said."""
    shutil.rmtree(dest / ".tilesync")
    assert verify(dest).exit == 0
    (folder(dest) / "tiles/001.glb").unlink()
    run = verify(dest)
    assert run.exit == 10
    assert run.error is not None
    assert "--state-dir" in run.error.hint
    assert not (dest / ".tilesync").exists()


def test_it_changes_nothing_but_the_catalog(dest: Path) -> None:
    """No file that was published is written by an audit, whatever it finds."""
    (folder(dest) / "tiles/001.glb").write_bytes(b"bad")
    before = {name: data for name, data in tree(dest).items() if not name.startswith(".tilesync")}
    verify(dest)
    assert {name: data for name, data in tree(dest).items() if not name.startswith(".tilesync")} == before


def test_names_that_climb_out_of_the_manifest_read_nothing_outside(dest: Path) -> None:
    """A manifest is input too: a name that leads outside is a finding, not a reading of that file."""
    path = dest / "manifests" / f"{EXPORT}.jsonl"
    head, first, *rest = path.read_text(encoding="utf-8").splitlines()
    row = json.loads(first)
    data = FILES[row["name"]]
    (dest.parent / "outside").write_bytes(data)
    row["name"] = "../../../outside"
    path.write_text("\n".join([head, json.dumps(row), *rest]) + "\n", encoding="utf-8")
    assert verify(dest).exit != 0
