"""The demo city is a valid, complete and reproducible 3D Tiles 1.1 export."""

import json
import math
import posixpath
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest

from tests.support.demo_glbs import dot, split_all_glbs
from tilesync.demo.city import build_city

Box = tuple[list[float], list[float]]


def walk_tiles(
    files: dict[str, bytes], name: str = "tileset.json"
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any] | None]]:
    """Yield every tile as (tileset name, tile, parent); the parent of an external root is the referring tile."""
    waiting: list[tuple[str, dict[str, Any], dict[str, Any] | None]] = [(name, json.loads(files[name])["root"], None)]
    while waiting:
        name, tile, parent = waiting.pop()
        yield name, tile, parent
        waiting += [(name, child, tile) for child in tile.get("children", ())]
        target = resolve(name, tile["content"]["uri"])
        if target.endswith(".json"):
            waiting.append((target, json.loads(files[target])["root"], tile))


def resolve(name: str, uri: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(uri)))


def tile_box(tile: dict[str, Any]) -> Box:
    numbers = tile["boundingVolume"]["box"]
    reach = numbers[3], numbers[7], numbers[11]
    return [m - r for m, r in zip(numbers, reach, strict=False)], [m + r for m, r in zip(numbers, reach, strict=False)]


def is_inside(inner: Box, outer: Box) -> bool:
    low = all(a >= b - 1e-6 for a, b in zip(inner[0], outer[0], strict=True))
    return low and all(a <= b + 1e-6 for a, b in zip(inner[1], outer[1], strict=True))


def test_the_first_name_is_the_root_tileset(files: dict[str, bytes]) -> None:
    """The first name is `tileset.json`, the entry."""
    assert next(iter(files)) == "tileset.json"


def test_every_reference_has_a_file_and_every_file_a_reference(files: dict[str, bytes]) -> None:
    """The names are exactly the files that `tileset.json` references, directly or not."""
    result = {"tileset.json"} | {resolve(name, tile["content"]["uri"]) for name, tile, _ in walk_tiles(files)}
    for name, (document, _) in split_all_glbs(files).items():
        result |= {resolve(name, image["uri"]) for image in document["images"] if "uri" in image}
    assert result == set(files)


def test_there_are_many_small_tiles(files: dict[str, bytes]) -> None:
    """The city has at least 400 GLBs of a few kilobytes, 8 MB in total, like a real export."""
    sizes = sorted(len(payload) for name, payload in files.items() if name.endswith(".glb"))
    assert len(sizes) >= 400
    assert 5_000 < sizes[len(sizes) // 2] < 25_000
    assert sum(map(len, files.values())) < 8_500_000


def test_textures_are_embedded_in_some_tiles_and_shared_by_others(files: dict[str, bytes]) -> None:
    """Embedded and shared textures both occur, and every image is a PNG."""
    documents = split_all_glbs(files)
    shared = {name for name, (document, _) in documents.items() if any("uri" in one for one in document["images"])}
    embedded = {
        name for name, (document, _) in documents.items() if any("bufferView" in one for one in document["images"])
    }
    assert len(shared) > 100
    assert len(embedded) > 100
    assert all(files[name].startswith(b"\x89PNG\r\n\x1a\n") for name in files if name.endswith(".png"))


def test_a_texture_name_needs_percent_encoding(files: dict[str, bytes]) -> None:
    """A name with spaces and a plus is referenced with both percent-encoded."""
    assert "textures/glass + steel.png" in files
    images = [image.get("uri") for document, _ in split_all_glbs(files).values() for image in document["images"]]
    assert "../textures/glass%20%2B%20steel.png" in images


def test_boxes_enclose_children_and_content(files: dict[str, bytes]) -> None:
    """The box of each tile contains the boxes of its children and every vertex of its content."""
    documents = split_all_glbs(files)
    for name, tile, parent in walk_tiles(files):
        if parent is not None:
            assert is_inside(tile_box(tile), tile_box(parent)), tile["content"]
        content = documents.get(resolve(name, tile["content"]["uri"]))
        if content is not None:
            (x0, y0, z0), (x1, y1, z1) = (content[0]["accessors"][0][end] for end in ("min", "max"))
            assert is_inside(([x0, -z1, y0], [x1, -z0, y1]), tile_box(tile)), tile["content"]


def test_errors_shrink_towards_the_leaves(files: dict[str, bytes]) -> None:
    """No child is coarser than its parent, leaves are exact, and both kinds of refinement occur."""
    result = list(walk_tiles(files))
    assert all(tile["geometricError"] <= parent["geometricError"] for _, tile, parent in result if parent)
    leaves = [tile for _, tile, _ in result if "children" not in tile and tile["content"]["uri"].endswith(".glb")]
    assert {tile["geometricError"] for tile in leaves} == {0.0}
    assert {tile["refine"] for _, tile, _ in result} == {"ADD", "REPLACE"}


def test_all_tilesets_are_version_1_1(files: dict[str, bytes]) -> None:
    """The root and all districts are 3D Tiles 1.1, and no less coarse as a whole than their root tile."""
    tilesets = [json.loads(payload) for name, payload in files.items() if name.endswith(".json")]
    assert len(tilesets) == 17
    for tileset in tilesets:
        assert tileset["asset"]["version"] == "1.1"
        assert tileset["geometricError"] >= tileset["root"]["geometricError"]


def test_the_root_transform_is_upright_on_the_ellipsoid(files: dict[str, bytes]) -> None:
    """The transform is a rotation at a point on WGS84; its third column points away from the earth."""
    matrix = json.loads(files["tileset.json"])["root"]["transform"]
    axes = [matrix[at : at + 3] for at in (0, 4, 8)]
    place = matrix[12:15]
    for one in range(3):
        for other in range(3):
            assert math.isclose(dot(axes[one], axes[other]), one == other, abs_tol=1e-12)
    surface = (place[0] / 6378137) ** 2 + (place[1] / 6378137) ** 2 + (place[2] / 6356752.314245) ** 2
    assert math.isclose(surface, 1, abs_tol=1e-12)
    assert math.isclose(dot(axes[2], place), math.hypot(*place), rel_tol=1e-4)


@pytest.mark.scale
def test_the_same_seed_gives_the_same_bytes(files: dict[str, bytes]) -> None:
    """Generation is deterministic, and another seed gives another city."""
    assert build_city() == files
    assert build_city(seed=8) != files


def test_another_edition_changes_a_handful(files: dict[str, bytes]) -> None:
    """A second edition has the same names and differs in one block and the tiles and tilesets above it."""
    second = build_city(edition=2)
    assert second.keys() == files.keys()
    changed = {name for name in files if files[name] != second[name]}
    assert 4 <= len(changed) <= 6
    assert {name.partition("/")[0] for name in changed if "/" in name} == {"district-05"}
