"""A catalog that was lost: told again by manifests and bytes, without the network where possible."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.builders import export, glb, tree
from tests.support.faults import any_blob, blob_name, error
from tests.support.simulator import EXPORT, Simulator, latest, verify
from tilesync.events import Notice, Warned

OTHER = "bbbbbbbb-0000-4000-8000-000000000002"


def lose(dest: Path) -> None:
    for path in (dest / ".tilesync").glob("catalog.sqlite3*"):
        path.unlink()


def test_nothing_is_fetched_again(tmp_path: Path) -> None:
    """The catalog was deleted: the next night reads what is held and makes one request, to the API."""
    with Simulator() as sim:
        files = sim.hold()
        sim.mirror(tmp_path)
        lose(tmp_path)
        sim.forget()
        run = sim.mirror(tmp_path)
        assert len(sim.requests) == 1
        assert (run.exit, run.tally.kept) == (0, len(files))
        assert any(EXPORT in event.message for event in run.of(Notice))
        sim.forget()
        assert sim.mirror(tmp_path).exit == 0
        assert len(sim.requests) == 1
    assert tree(tmp_path / "versions" / EXPORT) == files
    assert verify(tmp_path).exit == 0


def test_the_whole_state_folder_may_be_lost(tmp_path: Path) -> None:
    """Without .tilesync altogether it is the same."""
    with Simulator() as sim:
        sim.hold()
        sim.mirror(tmp_path)
        shutil.rmtree(tmp_path / ".tilesync")
        sim.forget()
        assert sim.mirror(tmp_path).exit == 0
        assert len(sim.requests) == 1


def test_what_was_damaged_meanwhile_is_healed(tmp_path: Path) -> None:
    """A file changed while there was no catalog: found by its SHA-256, fetched again, alone."""
    with Simulator() as sim:
        files = sim.hold()
        sim.mirror(tmp_path)
        lose(tmp_path)
        (tmp_path / "versions" / EXPORT / "tiles/003.glb").write_bytes(b"x" * len(files["tiles/003.glb"]))
        (tmp_path / "versions" / EXPORT / "tiles/004.glb").unlink()
        sim.forget()
        run = sim.mirror(tmp_path)
        assert sorted(blob_name(r) or "" for r in sim.asked()) == ["tiles/003.glb", "tiles/004.glb"]
    assert run.exit == 0
    assert tree(tmp_path / "versions" / EXPORT) == files


def test_all_versions_are_taken_over(tmp_path: Path) -> None:
    """Two versions held: both are known again, the current one stays current, and a third gets a name of its own."""
    with Simulator() as sim:
        first = sim.hold()
        sim.mirror(tmp_path)
        second = sim.hold(export(seed=2), export_id=OTHER)
        sim.mirror(tmp_path)
        lose(tmp_path)
        sim.forget()
        assert sim.mirror(tmp_path).exit == 0
        assert len(sim.requests) == 1
        assert latest(tmp_path)["version"] == OTHER
        third = {**second, "tiles/new.glb": glb(b"new")}
        sim.regenerate(third, export_id=OTHER)
        lose(tmp_path)
        assert sim.mirror(tmp_path).exit == 0
    assert tree(tmp_path / "versions" / EXPORT) == first
    assert tree(tmp_path / "versions" / OTHER) == second
    assert tree(tmp_path / "versions" / f"{OTHER}-2") == third


def test_an_unfinished_version_is_salvaged(tmp_path: Path) -> None:
    """No manifest yet and no catalog: files that lie there with the listed MD5 are kept, the rest is fetched."""
    with Simulator() as sim:
        files = sim.hold()
        dead = sim.fault(any_blob, error(403, "AuthorizationFailure"), times=None, skip=9)
        assert sim.mirror(tmp_path, transfers=1).exit == 5
        dead.times = 0
        lose(tmp_path)
        sim.forget()
        run = sim.mirror(tmp_path)
        assert run.exit == 0
        assert len(sim.asked()) == len(files) - 9
    assert tree(tmp_path / "versions" / EXPORT) == files
    assert (run.tally.fetched, run.tally.kept) == (len(files) - 9, 9)


def test_a_manifest_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    """A damaged manifest of an older version: a warning, its files untouched, the run goes on."""
    with Simulator() as sim:
        first = sim.hold()
        sim.mirror(tmp_path)
        second = sim.hold(export(seed=2), export_id=OTHER)
        lose(tmp_path)
        (tmp_path / "manifests" / f"{EXPORT}.jsonl").write_text("{}\n")
        run = sim.mirror(tmp_path)
    assert run.exit == 0
    assert len(run.of(Warned)) == 1
    assert tree(tmp_path / "versions" / EXPORT) == first
    assert tree(tmp_path / "versions" / OTHER) == second


def test_a_damaged_catalog_says_what_to_do(tmp_path: Path) -> None:
    """A catalog that is no database: exit 8, the hint says that deleting it loses nothing, and it does not."""
    with Simulator() as sim:
        files = sim.hold()
        sim.mirror(tmp_path)
        lose(tmp_path)
        (tmp_path / ".tilesync/catalog.sqlite3").write_bytes(b"no database" * 500)
        run = sim.mirror(tmp_path)
        assert run.exit == 8
        assert run.error is not None
        assert "catalog.sqlite3" in run.error.hint
        lose(tmp_path)
        assert sim.mirror(tmp_path).exit == 0
    assert tree(tmp_path / "versions" / EXPORT) == files
