"""A lost catalog: rebuilt from manifests and files, without the network if possible."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.builders import export, glb, read_tree
from tests.support.faults import blob_name, error_response, is_blob
from tests.support.simulator import EXPORT, OTHER_EXPORT, Simulator, read_latest, verify
from tilesync.events import Notice, Warned


def delete_catalog(dest: Path) -> None:
    for path in (dest / ".tilesync").glob("catalog.sqlite3*"):
        path.unlink()


def test_nothing_is_fetched_again(tmp_path: Path) -> None:
    """After the loss of the catalog, the next run reads the stored files and makes one request, to the API."""
    with Simulator() as sim:
        files = sim.offer_export()
        sim.mirror(tmp_path)
        delete_catalog(tmp_path)
        sim.clear_requests()
        run = sim.mirror(tmp_path)
        assert len(sim.requests) == 1
        assert (run.exit_code, run.stats.kept) == (0, len(files))
        assert any(EXPORT in event.message for event in run.events_of(Notice))
        sim.clear_requests()
        assert sim.mirror(tmp_path).exit_code == 0
        assert len(sim.requests) == 1
    assert read_tree(tmp_path / "versions" / EXPORT) == files
    assert verify(tmp_path).exit_code == 0


def test_the_whole_state_folder_may_be_lost(tmp_path: Path) -> None:
    """The result is the same without the whole state folder."""
    with Simulator() as sim:
        sim.offer_export()
        sim.mirror(tmp_path)
        shutil.rmtree(tmp_path / ".tilesync")
        sim.clear_requests()
        assert sim.mirror(tmp_path).exit_code == 0
        assert len(sim.requests) == 1


def test_damage_without_a_catalog_is_repaired(tmp_path: Path) -> None:
    """A file changed while there was no catalog is found by its SHA-256, and only that is fetched."""
    with Simulator() as sim:
        files = sim.offer_export()
        sim.mirror(tmp_path)
        delete_catalog(tmp_path)
        (tmp_path / "versions" / EXPORT / "tiles/003.glb").write_bytes(b"x" * len(files["tiles/003.glb"]))
        (tmp_path / "versions" / EXPORT / "tiles/004.glb").unlink()
        sim.clear_requests()
        run = sim.mirror(tmp_path)
        assert sorted(blob_name(r) or "" for r in sim.blob_requests()) == ["tiles/003.glb", "tiles/004.glb"]
    assert run.exit_code == 0
    assert read_tree(tmp_path / "versions" / EXPORT) == files


def test_all_versions_are_rebuilt(tmp_path: Path) -> None:
    """Both versions are known again, the current one stays current, and a third gets a new name."""
    with Simulator() as sim:
        first = sim.offer_export()
        sim.mirror(tmp_path)
        second = sim.offer_export(export(seed=2), export_id=OTHER_EXPORT)
        sim.mirror(tmp_path)
        delete_catalog(tmp_path)
        sim.clear_requests()
        assert sim.mirror(tmp_path).exit_code == 0
        assert len(sim.requests) == 1
        assert read_latest(tmp_path)["version"] == OTHER_EXPORT
        third = {**second, "tiles/new.glb": glb(b"new")}
        sim.regenerate(third, export_id=OTHER_EXPORT)
        delete_catalog(tmp_path)
        assert sim.mirror(tmp_path).exit_code == 0
    assert read_tree(tmp_path / "versions" / EXPORT) == first
    assert read_tree(tmp_path / "versions" / OTHER_EXPORT) == second
    assert read_tree(tmp_path / "versions" / f"{OTHER_EXPORT}-2") == third


def test_unfinished_version_is_reused(tmp_path: Path) -> None:
    """Without manifest and catalog, files with the listed MD5 are kept, and the others are fetched."""
    with Simulator() as sim:
        files = sim.offer_export()
        dead = sim.add_fault(is_blob, error_response(403, "AuthorizationFailure"), times=None, skip=9)
        assert sim.mirror(tmp_path, transfers=1).exit_code == 5
        dead.times = 0
        delete_catalog(tmp_path)
        sim.clear_requests()
        run = sim.mirror(tmp_path)
        assert run.exit_code == 0
        assert len(sim.blob_requests()) == len(files) - 9
    assert read_tree(tmp_path / "versions" / EXPORT) == files
    assert (run.stats.fetched, run.stats.kept) == (len(files) - 9, 9)


def test_unreadable_manifest_is_reported(tmp_path: Path) -> None:
    """A damaged manifest of an older version is a warning; its files stay, and the run goes on."""
    with Simulator() as sim:
        first = sim.offer_export()
        sim.mirror(tmp_path)
        second = sim.offer_export(export(seed=2), export_id=OTHER_EXPORT)
        delete_catalog(tmp_path)
        (tmp_path / "manifests" / f"{EXPORT}.jsonl").write_text("{}\n")
        run = sim.mirror(tmp_path)
    assert run.exit_code == 0
    assert len(run.events_of(Warned)) == 1
    assert read_tree(tmp_path / "versions" / EXPORT) == first
    assert read_tree(tmp_path / "versions" / OTHER_EXPORT) == second


def test_damaged_catalog_has_a_hint(tmp_path: Path) -> None:
    """A catalog that is no database: exit 8, and the hint to delete it is right: nothing is lost."""
    with Simulator() as sim:
        files = sim.offer_export()
        sim.mirror(tmp_path)
        delete_catalog(tmp_path)
        (tmp_path / ".tilesync/catalog.sqlite3").write_bytes(b"no database" * 500)
        run = sim.mirror(tmp_path)
        assert run.exit_code == 8
        assert run.error is not None
        assert "catalog.sqlite3" in run.error.hint
        delete_catalog(tmp_path)
        assert sim.mirror(tmp_path).exit_code == 0
    assert read_tree(tmp_path / "versions" / EXPORT) == files
