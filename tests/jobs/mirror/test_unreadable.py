"""Unreadable files: a finding of their own, never treated as lost, and never fetched again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builders import export
from tests.support.simulator import EXPORT, JobOutcome, Simulator, verify
from tilesync.events import Finding
from tilesync.jobs.verify import UNREADABLE_HINT
from tilesync.model import Layout

NOBODY = 65534


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Import all modules of a run: the other user cannot read the Python installation."""
    with Simulator() as service:
        service.offer_export(export(4))
        for layout in Layout:
            folder = tmp_path_factory.mktemp(layout)
            assert service.mirror(folder, layout=layout).error is None
            assert verify(folder).error is None


@pytest.fixture
def folder(loaded: None) -> Iterator[Path]:
    """A folder of an unprivileged user, who runs the whole test."""
    if os.geteuid() != 0:
        pytest.skip("only root can be another user for a while")
    with tempfile.TemporaryDirectory() as path:
        os.chown(path, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            yield Path(path)
        finally:
            os.seteuid(0)


@pytest.fixture
def sim(folder: Path) -> Iterator[Simulator]:
    """A service whose export is mirrored already; only later requests count."""
    with Simulator() as service:
        service.offer_export(export(8))
        assert service.mirror(folder / "d").error is None
        service.clear_requests()
        yield service


def problems(run: JobOutcome) -> dict[str, str]:
    return {finding.name: finding.problem for finding in run.events_of(Finding)}


@pytest.mark.parametrize("quick", [False, True])
def test_an_unreadable_folder_is_reported(folder: Path, sim: Simulator, quick: bool) -> None:
    """Its files are neither missing nor fetched again: exit 10 with a hint, 8 for a mirror run, and no problem
    afterwards.
    """
    tiles = folder / "d/versions" / EXPORT / "tiles"
    tiles.chmod(0)
    run = verify(folder / "d", quick=quick)
    tiles.chmod(0o755)
    assert run.exit_code == 10
    assert problems(run) == {name: "unreadable" for name in export(8) if name.startswith("tiles/")}
    assert run.error is not None
    assert run.error.hint == UNREADABLE_HINT
    tiles.chmod(0)
    run_again = sim.mirror(folder / "d")
    tiles.chmod(0o755)
    assert run_again.exit_code == 8
    assert "Permission denied" in str(run_again.error)
    again = sim.mirror(folder / "d")
    assert (again.exit_code, again.stats.fetched, sim.blob_requests()) == (0, 0, [])
    assert verify(folder / "d").error is None


def test_an_unreadable_file_is_reported(folder: Path, sim: Simulator) -> None:
    """It still counts as stored; a damaged file beside it is marked and fetched again, and both hints are given."""
    files = folder / "d/versions" / EXPORT
    (files / "tiles/003.glb").chmod(0)
    (files / "tiles/004.glb").write_bytes(b"damaged")
    run = verify(folder / "d")
    assert problems(run) == {"tiles/003.glb": "unreadable", "tiles/004.glb": "size"}
    assert run.error is not None
    assert run.error.hint.startswith(UNREADABLE_HINT)
    assert "fetches the bad files again" in run.error.hint
    assert sim.mirror(folder / "d").error is None
    assert [request.path.rpartition("/")[2] for request in sim.blob_requests()] == ["004.glb"]
    (files / "tiles/003.glb").chmod(0o644)
    assert verify(folder / "d").error is None


def test_an_unreadable_manifest_is_reported(folder: Path, sim: Simulator) -> None:
    """It is not damaged: the next run does not write it again, and verify succeeds once it is readable."""
    manifest = folder / f"d/manifests/{EXPORT}.jsonl"
    before = manifest.read_bytes()
    manifest.chmod(0)
    run = verify(folder / "d")
    assert problems(run) == {f"manifests/{EXPORT}.jsonl": "unreadable"}
    assert run.exit_code == 10
    assert sim.mirror(folder / "d").exit_code in {0, 8}
    manifest.chmod(0o644)
    assert (manifest.read_bytes(), sim.blob_requests()) == (before, [])
    assert verify(folder / "d").error is None


@pytest.mark.parametrize("place", ["manifests", "latest.json", "tileset.json", "versions", "."])
def test_a_mirror_run_never_treats_unreadable_files_as_lost(folder: Path, sim: Simulator, place: str) -> None:
    """Exit 8, nothing is fetched, nothing is written; verify fails too."""
    path = folder / "d" / place
    mode = path.stat().st_mode
    path.chmod(0)
    exits = sim.mirror(folder / "d").exit_code, verify(folder / "d").exit_code
    path.chmod(mode)
    assert exits[0] == 8
    assert exits[1] in {8, 10}
    assert sim.blob_requests() == []
    assert sim.mirror(folder / "d").error is None
    assert sim.blob_requests() == []


def test_a_catalog_is_not_rebuilt_from_unreadable_files(folder: Path, sim: Simulator) -> None:
    """Exit 8; once all files are readable, the version is recorded and nothing is fetched."""
    file = folder / "d/versions" / EXPORT / "tiles/003.glb"
    for path in (folder / "d/.tilesync").glob("catalog*"):
        path.unlink()
    file.chmod(0)
    run = sim.mirror(folder / "d")
    file.chmod(0o644)
    assert run.exit_code == 8
    assert "tiles/003.glb" in str(run.error)
    assert sim.mirror(folder / "d").error is None
    assert sim.blob_requests() == []


def test_unreadable_files_of_the_flat_layout_are_not_lost(folder: Path) -> None:
    """The flat layout treats unreadable files the same way."""
    with Simulator() as sim:
        sim.offer_export(export(8))
        assert sim.mirror(folder / "d", layout=Layout.FLAT).error is None
        sim.clear_requests()
        (folder / "d/tiles").chmod(0)
        audit, run_again = verify(folder / "d"), sim.mirror(folder / "d", layout=Layout.FLAT)
        (folder / "d/tiles").chmod(0o755)
        assert set(problems(audit).values()) == {"unreadable"}
        assert (run_again.exit_code, sim.blob_requests()) == (8, [])
        assert sim.mirror(folder / "d", layout=Layout.FLAT).error is None
        assert sim.blob_requests() == []
