"""Implicit tilesets whose templates or announcements mislead."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.broken_exports import PAGE, TILE, failure_messages, implicit, mirror, remarked_problems, subtree
from tests.support.builders import glb
from tests.support.simulator import EXPORT, Simulator, both_inventories, read_version, verify
from tilesync.events import FileFailed
from tilesync.jobs.versions import subtree_walk
from tilesync.model import Inventory


@both_inventories
@pytest.mark.parametrize(("size", "problems"), [(7, {("bits.bin", "damaged")}), (8, set())])
@pytest.mark.parametrize("form", ["binary", "JSON"])
def test_a_short_buffer_of_a_subtree_is_reported(
    form: str, size: int, problems: set[tuple[str, str]], inventory: Inventory, tmp_path: Path
) -> None:
    """A short buffer of a subtree is reported, even if it has enough bytes for its views."""
    views = [{"buffer": 0, "byteOffset": 0, "byteLength": 1}]
    document = subtree(buffers=[{"uri": "../../../bits.bin", "byteLength": 8}], bufferViews=views)
    document = document if form == "binary" else document[24:]
    files = {"tileset.json": implicit(), "s/0/0/0": document, "c/0/0/0.glb": TILE, "bits.bin": b"\0" * size}
    run = mirror(files, tmp_path, inventory)
    assert (run.exit_code, remarked_problems(run)) == (0, problems)


@both_inventories
def test_a_broken_subtree_is_reported_once(inventory: Inventory, tmp_path: Path) -> None:
    """A broken subtree is reported once, as broken with a hint, not also as missing."""
    files = {"tileset.json": implicit(), "s/0/0/0": PAGE, "c/0/0/0.glb": TILE}
    run = mirror(files, tmp_path, inventory)
    assert (run.exit_code, set(failure_messages(run)), len(run.events_of(FileFailed))) == (3, {"s/0/0/0"}, 1)
    assert run.error is not None
    assert str(run.error) == "1 file that the tilesets refer to is damaged"
    assert "--exclude" in run.error.hint
    assert "--allow-missing" not in run.error.hint


@both_inventories
def test_contents_without_availability_give_a_warning(inventory: Inventory, tmp_path: Path) -> None:
    """Two content templates with availability for one give a warning: viewers fail."""
    document = json.loads(implicit())
    del document["root"]["content"]
    document["root"]["contents"] = [{"uri": f"{name}/{{level}}/{{x}}/{{y}}.glb"} for name in ("c", "d")]
    files = {"tileset.json": json.dumps(document).encode(), "s/0/0/0": subtree(), "c/0/0/0.glb": TILE}
    run = mirror(files, tmp_path, inventory)
    assert (run.exit_code, remarked_problems(run)) == (0, {("s/0/0/0", "availability")})


@both_inventories
@pytest.mark.parametrize("template", ["s/{level}", "s/{x}", "s"])
def test_a_subtree_file_that_serves_several_tiles(template: str, inventory: Inventory, tmp_path: Path) -> None:
    """A subtree file that serves several tiles gives each its contents; a missing one is reported."""
    files = {"tileset.json": implicit(template, availableLevels=2)}
    files |= {template.format(level=n, x=n): subtree(children=1 - n) for n in (1, 0)}
    files["s"] = subtree(children=1) if template == "s" else b""
    cells = [(0, 0, 0), *((1, x, y) for x in (0, 1) for y in (0, 1))]
    if template == "s/{x}":
        files["s/1"] = subtree()
    files |= {f"c/{level}/{x}/{y}.glb": glb(bytes([level, x, y])) for level, x, y in cells}
    files = {name: data for name, data in files.items() if data}
    with Simulator() as sim:
        sim.offer_export(files)
        run = sim.mirror(tmp_path, inventory=inventory)
        assert (run.exit_code, run.stats.completeness.orphans) == (0, 0)
        assert read_version(tmp_path) == files
        assert verify(tmp_path).stats.completeness == run.stats.completeness
        del sim.containers[EXPORT]["c/1/1/1.glb"]
        assert set(failure_messages(sim.mirror(tmp_path / "b", inventory=inventory))) == {"c/1/1/1.glb"}


@both_inventories
def test_a_template_without_a_coordinate_gives_shared_contents(inventory: Inventory, tmp_path: Path) -> None:
    """A template without level or coordinates gives one content for several tiles."""
    files = {
        "tileset.json": implicit(contents="c/{level}.glb", subtreeLevels=3, availableLevels=3),
        "s/0/0/0": subtree(),
    }
    files |= {f"c/{level}.glb": TILE for level in range(3)}
    run = mirror(files, tmp_path, inventory)
    assert (run.exit_code, run.stats.completeness.referenced) == (0, 5)
    assert read_version(tmp_path) == files


@both_inventories
@pytest.mark.parametrize("children", [0, 1])
def test_a_million_announced_files_are_not_all_requested(
    children: int, inventory: Inventory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Announced files are requested only until it is clear that they are missing: exit 3."""
    monkeypatch.setattr(subtree_walk, "FIRST_CHECKPOINT_FILES", 1 << 11)
    files = {"tileset.json": implicit(subtreeLevels=10, availableLevels=20), "s/0/0/0": subtree(children=children)}
    with Simulator() as sim:
        sim.offer_export(files)
        run = sim.mirror(tmp_path, inventory=inventory)
        assert len(sim.requests) < 6_000
    assert run.exit_code == 3
    assert any("not followed further" in failed.message for failed in run.events_of(FileFailed))
    assert len(run.events_of(FileFailed)) < 6_000


@pytest.mark.parametrize("folder", ["old", "zold"])
def test_an_unreferenced_tileset_does_not_stop_the_walk(folder: str, tmp_path: Path) -> None:
    """An unreferenced tileset may claim a million files: all files that viewers reach are followed, and no others."""
    bomb = {"tileset.json": implicit(subtreeLevels=10, availableLevels=10), "s/0/0/0": subtree()}
    below = {"tileset.json": implicit(contents="c/{level}.glb"), "s/0/0/0": subtree(), "c/0.glb": TILE}
    files = {
        "tileset.json": implicit(contents="z/{level}/tileset.json"),
        "s/0/0/0": subtree(),
        **{f"z/0/{name}": data for name, data in below.items()},
        **{f"{folder}/{name}": data for name, data in bomb.items()},
    }
    run = mirror(files, tmp_path, Inventory.LIST)
    result = run.stats.completeness
    assert (run.exit_code, result.referenced, result.missing, result.orphans) == (0, 5, 0, 2)
    del files["z/0/c/0.glb"]
    assert set(failure_messages(mirror(files, tmp_path / "lost", Inventory.LIST))) == {"z/0/c/0.glb"}
