"""Subtree walk: unreadable subtrees, and limits of files, tiles and memory."""

from __future__ import annotations

import gzip
import json
import resource
import tracemalloc
from dataclasses import replace

import pytest

from tests.support.catalog_fixture import CatalogFixture
from tests.support.cpu_limit import limit_cpu_time
from tests.support.subtrees import (
    ALL,
    GLB,
    NONE,
    SCHEMA,
    implicit_tile,
    implicit_tileset,
    make_named_subtree,
    make_subtree,
    make_subtree_with_children,
)
from tilesync.jobs.versions import subtree_walk as module
from tilesync.jobs.versions.subtree_walk import SubtreeWalk
from tilesync.model import Completeness, Globs


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a readable subtree"),
        (b"garbage", "not a readable subtree"),
        (make_subtree()[:-9], "not a readable subtree"),
        (make_subtree_with_children(1)[:-1], "cut off"),
        (make_subtree_with_children(1)[:20], "cut off"),
        (gzip.compress(make_subtree(), mtime=0)[:-5], "gzip"),
        (b"{}", "tileAvailability"),
        (b"[" * 100_000, "not a readable subtree"),
    ],
)
def test_unreadable_subtree_counts_as_missing(fixture: CatalogFixture, data: bytes, reason: str) -> None:
    """An unreadable subtree is one missing file, with the reason, until it is repaired."""
    fixture.put_all({"tileset.json": implicit_tileset(), "c/0/0/0.glb": GLB})
    fixture.put_unread("s/0/0/0.subtree", data)
    assert fixture.count_completeness() == Completeness(referenced=3, missing=1, orphans=1)
    ((sentence, asker, role),) = fixture.catalog.references.list_missing(fixture.version)
    assert (asker, role) == ("s/0/0/0.subtree", "")
    assert sentence.startswith("s/0/0/0.subtree: ")
    assert reason in sentence
    fixture.put("s/0/0/0.subtree", make_subtree())
    assert fixture.count_completeness() == Completeness(referenced=3)


def test_subtree_with_too_many_tiles_is_unreadable(fixture: CatalogFixture) -> None:
    """2^40 tiles are refused at once."""
    fixture.put_all({"tileset.json": implicit_tileset(levels=21), "s/0/0/0.subtree": make_subtree()})
    with limit_cpu_time():
        assert fixture.count_completeness().missing == 1
    assert "1466015503701 tiles" in fixture.missing().pop()


def test_deleted_subtree_counts_as_missing(fixture: CatalogFixture) -> None:
    """A subtree that someone deleted counts as missing, and does not end the run."""
    fixture.put_all({"tileset.json": implicit_tileset(), "s/0/0/0.subtree": make_subtree()})
    (fixture.root / "versions/e1/s/0/0/0.subtree").unlink()
    assert fixture.count_completeness().missing == 1


def test_invalid_content_uri_is_unreadable(fixture: CatalogFixture) -> None:
    """A CONTENT_URI that is not UTF-8 makes the subtree unreadable, even if others were read before."""
    broken = make_named_subtree("a.glb", "ä", levels=2).replace("ä".encode(), b"\xc3\x28")
    fixture.put_all({"tileset.json": implicit_tileset(levels=2, schema=json.loads(SCHEMA)), "s/0/0/0.subtree": broken})
    assert fixture.count_completeness().missing == 1
    assert "CONTENT_URI" in fixture.missing().pop()


def test_template_without_variables_ends(fixture: CatalogFixture) -> None:
    """A template with one name for all tiles is reported; its file is followed for each available tile."""
    fixture.put_all(
        {
            "tileset.json": implicit_tileset(subtrees="one.subtree", available=3),
            "one.subtree": make_subtree(children=ALL),
        }
    )
    fixture.put("c/0/0/0.glb", GLB)
    assert fixture.count_completeness() == Completeness(referenced=2 + 21, missing=20)
    assert {name for name in fixture.missing() if name.startswith("c/2/")} == {
        f"c/2/{x}/{y}.glb" for x in range(4) for y in range(4)
    }
    assert set(fixture.problems()) == {
        ("one.subtree", "cycle"), ("one.subtree", "availability"), ("tileset.json", "template")
    }  # fmt: skip


@pytest.mark.parametrize(
    ("template", "cells"),
    [("{level}.subtree", 1 + 4 + 16), ("{x}.subtree", 1 + 4 + 12 + 24), ("s/{x}/{y}", 1 + 2 + 3 + 3)],
)
def test_a_subtree_is_followed_for_each_tile_that_it_serves(fixture: CatalogFixture, template: str, cells: int) -> None:
    """If a template lacks a variable, the contents of each tile reached through it are found."""
    fixture.put("tileset.json", implicit_tileset(subtrees=template, available=4))
    for number in range(3):
        fixture.put(template.format(level=number, x=number, y=0), make_subtree(children=ALL))
    fixture.count_completeness()
    assert ("tileset.json", "template") in fixture.problems()
    assert len([name for name in fixture.missing() if name.startswith("c/")]) == cells


def test_octree_template_without_z(fixture: CatalogFixture) -> None:
    """Tiles above one another share a subtree, and each gets its own contents."""
    tile = implicit_tile(levels=1, subtrees="s/{level}/{x}/{y}", content="c/{level}/{x}/{y}/{z}", available=2)
    tile["implicitTiling"]["subdivisionScheme"] = "OCTREE"
    fixture.put_all({"tileset.json": implicit_tileset(tile), "s/0/0/0": make_subtree(children=ALL)})
    fixture.put_all({f"s/1/{x}/{y}": make_subtree() for x in (0, 1) for y in (0, 1)})
    assert fixture.count_completeness() == Completeness(referenced=2 + 4 + 9, missing=9)
    assert "c/1/1/1/1" in fixture.missing()


def test_subtree_for_too_many_tiles_is_unreadable(fixture: CatalogFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree of 30 levels in a few bytes is reported as not fully known, and the walk ends."""
    monkeypatch.setattr(module, "MAX_REPEATED_FILES", 1 << 12)
    fixture.put_all({"tileset.json": implicit_tileset(subtrees="{x}.subtree", content="c", available=30), "c": GLB})
    fixture.put_all({f"{x}.subtree": make_subtree(children=ALL) for x in range(2)})
    assert 1 < fixture.count_completeness().missing < 1 << 12
    assert any("serves too many tiles" in name for name in fixture.missing())


@pytest.mark.scale
@pytest.mark.parametrize("children", [NONE, ALL])
def test_absent_announced_files_end_the_walk(fixture: CatalogFixture, children: dict[str, int]) -> None:
    """Half a kilobyte that announces a million files is followed only until it is clear that they are absent."""
    fixture.put("tileset.json", implicit_tileset(levels=10, available=20))
    fixture.put("s/0/0/0.subtree", make_subtree(children=children))
    tracemalloc.start()
    with limit_cpu_time():
        result = fixture.count_completeness()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert module.FIRST_CHECKPOINT_FILES <= result.missing < 2 * module.FIRST_CHECKPOINT_FILES
    assert any("not followed further" in name for name in fixture.missing())
    assert most < 60 << 20


@pytest.mark.scale
def test_excluded_files_do_not_end_the_walk(fixture: CatalogFixture) -> None:
    """Contents that the globs exclude are not checked, so they do not end the walk."""
    fixture.version = replace(fixture.version, globs=Globs(exclude=("c/**",)))
    fixture.put("tileset.json", implicit_tileset(levels=8, available=8))
    fixture.put("s/0/0/0.subtree", make_subtree())
    assert fixture.count_completeness() == Completeness(referenced=2 + 21_845)


@pytest.mark.scale
def test_walk_pauses_until_announced_files_are_there(fixture: CatalogFixture) -> None:
    """Of many contents the first are announced, the others once those are there: a walk finds all."""
    fixture.put("tileset.json", implicit_tileset(levels=8, available=8))
    fixture.put("s/0/0/0.subtree", make_subtree())
    following = SubtreeWalk(fixture.version, fixture.catalog, fixture.files)
    assert following.advance() == {"tileset.json", "s/0/0/0.subtree"}
    first = len(fixture.references_from("s/0/0/0.subtree"))
    assert module.FIRST_CHECKPOINT_FILES <= first < 21_845
    assert following.advance() == set()
    for name in fixture.references_from("s/0/0/0.subtree"):
        fixture.put_unread(name, GLB)
    assert following.advance(is_final=True) == {"s/0/0/0.subtree"}
    assert len(fixture.references_from("s/0/0/0.subtree")) == 21_845


@pytest.mark.scale
def test_children_of_one_name_cost_little(fixture: CatalogFixture) -> None:
    """A quarter million children with one name are one file, referenced once."""
    fixture.put("tileset.json", implicit_tileset(levels=9, available=40, subtrees="{level}.subtree"))
    fixture.put_all({"0.subtree": make_subtree(content=NONE, children=ALL), "9.subtree": make_subtree(content=NONE)})
    with limit_cpu_time():
        assert fixture.count_completeness() == Completeness(referenced=3)


@pytest.mark.scale
def test_subtree_with_too_many_children_is_unreadable(fixture: CatalogFixture) -> None:
    """A few bytes that announce 2^24 children are refused fast, with little memory and no references."""
    fixture.put("tileset.json", implicit_tileset(levels=12, available=40))
    fixture.put("s/0/0/0.subtree", make_subtree(content=NONE, children=ALL))
    with limit_cpu_time():
        assert fixture.count_completeness() == Completeness(referenced=3, missing=1)
    assert fixture.missing() == {"s/0/0/0.subtree: it announces more than 1,048,576 child subtrees"}
    assert len(fixture.all_references()) == 1


@pytest.mark.parametrize(("key", "number"), [("MAX_CHILD_SUBTREES", 16), ("MAX_CONTENTS_PER_SUBTREE", 5)])
def test_limits_are_exact(fixture: CatalogFixture, monkeypatch: pytest.MonkeyPatch, key: str, number: int) -> None:
    """As many children and contents as the limit are followed, and one more is too many."""
    fixture.put_all({"tileset.json": implicit_tileset(levels=2), "s/0/0/0.subtree": make_subtree(children=ALL)})
    monkeypatch.setattr(module, key, number)
    assert fixture.count_completeness() == Completeness(referenced=2 + 16 + 5, missing=16 + 5)
    monkeypatch.setattr(module, key, number - 1)
    assert fixture.count_completeness() == Completeness(referenced=3, missing=1)


@pytest.mark.scale
def test_missing_children_cost_little(fixture: CatalogFixture) -> None:
    """Many missing children take little memory and time, also when the walk advances again."""
    fixture.put("tileset.json", implicit_tileset(levels=6))
    fixture.put("s/0/0/0.subtree", make_subtree(content=NONE, children=ALL))
    following = SubtreeWalk(fixture.version, fixture.catalog, fixture.files)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with limit_cpu_time():
        following.advance()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10
    tracemalloc.start()
    with limit_cpu_time():
        for _ in range(10):
            assert following.advance() == set()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10 << 20
    fixture.put("s/6/63/63.subtree", make_subtree())
    assert following.advance() == {"s/6/63/63.subtree"}
