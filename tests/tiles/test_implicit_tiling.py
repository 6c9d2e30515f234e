"""Implicit tiling: templates, the implicit root tile, and the JSON and binary form of a subtree."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.subtrees import IMPLICIT_MEMBERS, WRONG_VALUES
from tilesync.errors import BlobDamaged
from tilesync.tiles.implicit_tiling import (
    Cell,
    ImplicitTiling,
    fill_template,
    find_missing_variables,
    parse_implicit_tiling,
)


def test_all_variables_are_replaced() -> None:
    """Every occurrence of a variable is replaced, in any order; other braces stay."""
    cell = Cell(7, 12, 345, 6)
    assert fill_template("{z}/{x}/{y}-{level}_{x}", cell) == "6/12/345-7_12"
    assert fill_template("{X}{}{0}{{x}}%7Bx%7D{level", cell) == "{X}{}{0}{12}%7Bx%7D{level"


@given(
    st.text(alphabet="{}xyz0!:level/%", max_size=30)
    | st.lists(st.sampled_from(["{x}", "{y}", "{z}", "{level}", "{", "}"])).map("".join)
)
def test_filling_is_replacing(template: str) -> None:
    """For any template, the result equals a plain replacement of the four variables."""
    cell = Cell(1, 22, 333, 4444)
    expected = template.replace("{level}", "1").replace("{x}", "22").replace("{y}", "333").replace("{z}", "4444")
    assert fill_template(template, cell) == expected


def test_missing_variables() -> None:
    """A template without a variable of its scheme is reported; `{z}` is required in octrees only."""
    whole = "{level}{x}{y}{z}"
    assert find_missing_variables(ImplicitTiling(True, 1, 1, whole, (whole,))) == []
    assert find_missing_variables(ImplicitTiling(False, 1, 1, "{level}{x}{y}", ())) == []
    assert find_missing_variables(ImplicitTiling(True, 1, 1, "{level}{x}{y}", ("all.glb", whole))) == [
        "the template {level}{x}{y} lacks {z}: one file would stand for many tiles",
        "the template all.glb lacks {level}, {x}, {y}, {z}: one file would stand for many tiles",
    ]


def test_the_implicit_root_tile_is_read() -> None:
    """Both schemes and both spellings of the levels are parsed."""
    assert parse_implicit_tiling(IMPLICIT_MEMBERS, ["a", "b"]) == ImplicitTiling(False, 3, 6, "s/{level}", ("a", "b"))
    draft = {key: IMPLICIT_MEMBERS[key] for key in IMPLICIT_MEMBERS if key != "availableLevels"} | {"maximumLevel": 2}
    assert parse_implicit_tiling(draft | {"subdivisionScheme": "OCTREE"}, []) == ImplicitTiling(
        True, 3, 3, "s/{level}", ()
    )
    assert parse_implicit_tiling(draft | {"availableLevels": 9}, []).available_levels == 9
    assert parse_implicit_tiling(IMPLICIT_MEMBERS | {"subtrees": {"url": "u"}}, []).subtree_template == "u"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"subdivisionScheme": "quadtree"}, "neither QUADTREE nor OCTREE"),
        ({"subtreeLevels": 0}, "subtreeLevels"),
        ({"subtreeLevels": True}, "subtreeLevels"),
        ({"subtreeLevels": 64}, "more than the 63 levels"),
        ({"availableLevels": 0}, "availableLevels"),
        ({"availableLevels": None, "maximumLevel": -1}, "maximumLevel"),
        ({"subtrees": {}}, "template"),
        ({"subtrees": {"uri": ""}}, "template"),
    ],
)
def test_an_unusable_root_tile_is_damage(change: dict[str, Any], reason: str) -> None:
    """Each defect of an implicit root tile has its own sentence."""
    with pytest.raises(BlobDamaged, match=reason):
        parse_implicit_tiling(IMPLICIT_MEMBERS | change, [])


def test_a_root_tile_of_any_json_raises_nothing_else() -> None:
    """Any JSON in place of any field is parsed or is damage."""
    for wrong in WRONG_VALUES:
        for members in (wrong, *(IMPLICIT_MEMBERS | {key: wrong} for key in (*IMPLICIT_MEMBERS, "maximumLevel"))):
            with suppress(BlobDamaged):
                assert isinstance(parse_implicit_tiling(members, []), ImplicitTiling)
