"""Test real tilesets: walk and mirror them.

What each must give was computed by an independent walker, and stands in the table of their SOURCES.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import samples
from tests.support.builders import read_tree
from tests.support.faults import error_response, is_listing
from tests.support.simulator import EXPORT, Simulator, both_inventories, verify
from tests.support.viewer_walk import walk
from tilesync.events import DiagnosticReported, FileFailed
from tilesync.model import ROOT, Inventory

ROW = re.compile(r"\| (?P<name>\w+)/(?P<entry>\S+\.json) \| (?P<files>\d+)[^|]*\| (?P<bytes>[\d,]+) \|")

TRUNCATED = "TilesetOfTilesetsWithError"
INCOMPLETE = "ImplicitTileMetadata"
CYCLIC = "CyclicExternalTilesets"
EMPTY = "FullQuadtree"


@dataclass(frozen=True)
class Sample:
    """A sample: folder, entry and the expected closure."""

    folder: Path
    entry: str
    files: int
    size: int

    @property
    def name(self) -> str:
        return self.folder.name

    def blobs(self) -> dict[str, bytes]:
        """Its files as a container whose root is the entry."""
        files = read_tree(self.folder)
        return {ROOT: files[self.entry], **{name: data for name, data in files.items() if name != ROOT}}


def read_samples() -> list[Sample]:
    """Return the samples of the table."""
    folder = samples.SAMPLES_FOLDER
    rows = ROW.finditer((folder / "SOURCES.md").read_text(encoding="utf-8")) if folder else ()
    return [
        Sample(samples.sample_folder(row["name"]), row["entry"], int(row["files"]), int(row["bytes"].replace(",", "")))
        for row in rows
    ]


SAMPLES = read_samples()
each = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)


def find_sample(name: str) -> Sample:
    folder = samples.sample_folder(name)
    return next(sample for sample in SAMPLES if sample.folder == folder)


@samples.requires_samples
def test_every_sample_is_in_the_table() -> None:
    """Every tileset in the samples folder is in the table."""
    assert len(SAMPLES) >= 10
    assert {sample.name for sample in SAMPLES} == {
        path.name for path in samples.sample_folder().iterdir() if path.is_dir()
    }


@samples.requires_samples
@each
def test_the_closure_of_a_real_tileset(sample: Sample) -> None:
    """The walk finds the files and bytes that an independent walker found, and the known errors."""
    result = walk(sample.folder, sample.entry)
    size = sum((sample.folder / name).stat().st_size for name in result.files)
    assert (len(result.files), size) == (sample.files, sample.size)
    assert result.missing == ({"content/1/1/0.b3dm"} if sample.name == INCOMPLETE else set())
    assert set(result.damaged) == ({"tileset3/ll.b3dm"} if sample.name == TRUNCATED else set())
    empty = [name for name, diagnostic in result.diagnostics if diagnostic.problem == "empty content"]
    assert len(empty) == (21 if sample.name == EMPTY else 0)


@samples.requires_samples
@each
@both_inventories
def test_a_real_tileset_is_mirrored(sample: Sample, inventory: Inventory, tmp_path: Path) -> None:
    """Listing and walk both mirror the closure; that of the pointer is that of the version's root."""
    blobs = sample.blobs()
    with Simulator() as service:
        service.offer_export(blobs)
        run = service.mirror(tmp_path, inventory=inventory, allow_missing=sample.name == INCOMPLETE)
    if sample.name == TRUNCATED:
        assert run.exit_code == 3
        assert [failed.name for failed in run.events_of(FileFailed)] == ["tileset3/ll.b3dm"]
        return
    assert run.error is None
    version = tmp_path / "versions" / EXPORT
    whole = walk(version)
    assert read_tree(version) == (blobs if inventory is Inventory.LIST else {name: blobs[name] for name in whole.files})
    copies = sample.name == CYCLIC
    assert len(whole.files) == sample.files + copies  # one of the circle asks for the entry under its own name
    result = run.stats.completeness
    assert result.referenced - result.missing + result.orphans == run.stats.listed
    assert result.referenced - result.missing == sample.files + copies
    pointer = walk(tmp_path)
    assert pointer.files - {ROOT} == {f"versions/{EXPORT}/{name}" for name in whole.files - {ROOT}}
    assert pointer.missing == {f"versions/{EXPORT}/{name}" for name in whole.missing}
    audit = verify(tmp_path)
    assert audit.exit_code == 0
    assert audit.stats.completeness == result


def test_without_listing_permission_every_shared_image_arrives(tmp_path: Path) -> None:
    """100 GLBs that share two images, from a container that can be read but not listed: 103 files."""
    sample = find_sample("SharedImages")
    with Simulator() as service:
        service.offer_export(sample.blobs())
        service.add_fault(is_listing, error_response(403, "AuthorizationPermissionMismatch"), times=None)
        run = service.mirror(tmp_path)
        images = [
            request.path.rpartition("/")[2] for request in service.blob_requests() if request.path.endswith(".png")
        ]
    assert run.error is None
    assert read_tree(tmp_path / "versions" / EXPORT) == sample.blobs()
    assert run.stats.fetched == sample.files == 103
    assert sorted(images) == ["texture0.png", "texture1.png"]


def test_known_defects_of_samples_are_reported(tmp_path: Path) -> None:
    """A reference cycle, a missing content and empty contents are reported, each with its file."""
    diagnostics: dict[str, list[DiagnosticReported]] = {}
    for name in (CYCLIC, INCOMPLETE, EMPTY):
        with Simulator() as service:
            service.offer_export(find_sample(name).blobs())
            diagnostics[name] = service.mirror(tmp_path / name, allow_missing=True).events_of(DiagnosticReported)
    assert [diagnostic.name for diagnostic in diagnostics[CYCLIC] if diagnostic.problem == "cycle"] == [
        "tilesetWithCycleA.json"
    ]
    (missing,) = [diagnostic for diagnostic in diagnostics[INCOMPLETE] if diagnostic.problem == "missing"]
    assert missing.name == "content/1/1/0.b3dm"
    assert "subtrees/1.1/0.0.0.json refers to it" in missing.message
    assert len([diagnostic for diagnostic in diagnostics[EMPTY] if diagnostic.problem == "empty content"]) == 21
