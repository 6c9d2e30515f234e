"""Subtree walk: implicit tilesets, followed through the stored files."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import samples
from tests.support.builders import read_tree, tileset
from tests.support.catalog_fixture import HOME, CatalogFixture
from tests.support.examples import examples
from tests.support.subtrees import (
    ALL,
    CONTENTS,
    GLB,
    NONE,
    SCHEMA,
    SUBTREES,
    implicit_tile,
    implicit_tileset,
    make_named_subtree,
    make_subtree,
    make_subtree_with_buffer,
    make_subtree_with_children,
)
from tilesync.jobs.versions import subtree_walk as module
from tilesync.jobs.versions.subtree_walk import SubtreeWalk
from tilesync.model import Completeness, Diagnostic, Role


def advance_walk(fixture: CatalogFixture, **options: bool) -> set[str]:
    return SubtreeWalk(fixture.version, fixture.catalog, fixture.files).advance(**options)


def contents(fixture: CatalogFixture) -> set[str]:
    """Return every content that a subtree refers to."""
    return {
        target
        for source, target, role in fixture.all_references()
        if role == Role.CONTENT and source.endswith("subtree")
    }


# --- real tilesets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sample", "entry", "files", "missing"),
    [
        ("SparseImplicitOctree", "tileset.json", 45, set()),
        ("SparseImplicitQuadtree", "tileset.json", 42, set()),
        ("FullQuadtree", "tileset.json", 23, set()),
        ("ImplicitTileMetadata", "tileset_1.1.json", 7, {"content/1/1/0.b3dm"}),
    ],
)
def test_real_tilesets(tmp_path: Path, sample: str, entry: str, files: int, missing: set[str]) -> None:
    """The references of a real tileset are its files, one for one, and only empty files are reported."""
    result = read_tree(samples.sample_folder(sample))
    result["tileset.json"] = result.pop(entry)
    fixture = CatalogFixture(tmp_path, catalog=tmp_path / "catalog.sqlite3")
    fixture.put_all(result)
    assert len(result) == files
    assert fixture.count_completeness() == Completeness(files + len(missing), len(missing))
    assert fixture.missing() == missing
    hollow = {name for name, data in result.items() if not data}
    assert {(name, diagnostic.problem) for name, diagnostic in fixture.diagnostics()} == {
        (name, "empty content") for name in hollow
    }


@pytest.mark.parametrize("sample", ["SparseImplicitOctree", "SparseImplicitQuadtree"])
def test_any_absent_file_of_a_real_tileset_is_missing(tmp_path: Path, sample: str) -> None:
    """Any absent file is missing; files that only it refers to are orphans."""
    files = read_tree(samples.sample_folder(sample))
    for number, lost in enumerate(sorted(files)[::4]):
        if lost == "tileset.json":
            continue
        fixture = CatalogFixture(tmp_path / str(number))
        fixture.put_all({name: data for name, data in files.items() if name != lost})
        result = fixture.count_completeness()
        assert fixture.missing() == {lost}
        assert result.referenced - 1 + result.orphans == len(files) - 1
        assert bool(result.orphans) <= lost.endswith(".subtree")


# --- files in any order ----------------------------------------------------------------------------------------------


def make_two_tilesets() -> dict[str, bytes]:
    """Return two implicit tilesets.

    One has an external schema, one has three levels and a buffer that two subtrees share.
    """
    return {
        "tileset.json": tileset("a/tileset.json", "b/tileset.json"),
        "a/tileset.json": implicit_tileset(schemaUri="../schema.json"),
        "a/s/0/0/0.subtree": make_named_subtree("named.glb"),
        "a/named.glb": GLB,
        "schema.json": SCHEMA,
        "b/tileset.json": gzip.compress(implicit_tileset(), mtime=0),
        "b/s/0/0/0.subtree": make_subtree_with_children(0b0110, content=NONE),
        "b/s/1/1/0.subtree": make_subtree_with_buffer("../../../bits.bin"),
        "b/s/1/0/1.subtree": make_subtree_with_buffer("../../../bits.bin"),
        "b/bits.bin": b"\x01",
        "b/s/2/2/0.subtree": gzip.compress(make_subtree(), mtime=0),
        "b/s/2/0/2.subtree": make_subtree(content=NONE),
        "b/c/1/1/0.glb": GLB,
        "b/c/1/0/1.glb": GLB,
        "b/c/2/2/0.glb": GLB,
    }


REFERENCED = {
    ("a/tileset.json", "a/s/0/0/0.subtree", "subtree"),
    ("a/tileset.json", "schema.json", "schema"),
    ("a/s/0/0/0.subtree", "a/named.glb", "content"),
    ("b/tileset.json", "b/s/0/0/0.subtree", "subtree"),
    ("b/s/0/0/0.subtree", "b/s/1/1/0.subtree", "subtree"),
    ("b/s/0/0/0.subtree", "b/s/1/0/1.subtree", "subtree"),
    ("b/s/1/1/0.subtree", "b/bits.bin", "buffer"),
    ("b/s/1/0/1.subtree", "b/bits.bin", "buffer"),
    ("b/s/1/1/0.subtree", "b/s/2/2/0.subtree", "subtree"),
    ("b/s/1/0/1.subtree", "b/s/2/0/2.subtree", "subtree"),
    ("b/s/1/1/0.subtree", "b/c/1/1/0.glb", "content"),
    ("b/s/1/0/1.subtree", "b/c/1/0/1.glb", "content"),
    ("b/s/2/2/0.subtree", "b/c/2/2/0.glb", "content"),
    ("tileset.json", "a/tileset.json", "content"),
    ("tileset.json", "b/tileset.json", "content"),
}


def test_everything_at_once(fixture: CatalogFixture) -> None:
    """If all files are there, every reference is found, and the files with new references are returned."""
    fixture.put_all(make_two_tilesets())
    asking = {source for source, _, role in REFERENCED if role in {"subtree", "content"}} - {"tileset.json"}
    assert advance_walk(fixture) == asking
    assert fixture.all_references() == REFERENCED
    assert fixture.count_completeness() == Completeness(referenced=len(make_two_tilesets()))


@examples(60)
@given(st.permutations(sorted(make_two_tilesets())), st.sets(st.integers(0, len(make_two_tilesets()))), st.booleans())
def test_any_order_gives_the_same_closure(names: list[str], stops: set[int], restart: bool) -> None:
    """Files may arrive in any order and steps, with restarts: the references in the end are the same."""
    files = make_two_tilesets()
    with tempfile.TemporaryDirectory() as folder:
        fixture = CatalogFixture(Path(folder))
        following = SubtreeWalk(fixture.version, fixture.catalog, fixture.files)
        grown = set[str]()
        for number, name in enumerate(names):
            fixture.put(name, files[name])
            if number in stops:
                if restart:
                    following = SubtreeWalk(fixture.version, fixture.catalog, fixture.files)
                grown |= following.advance()
                assert fixture.all_references() <= REFERENCED
        grown |= following.advance()
        assert fixture.all_references() == REFERENCED
        assert "b/s/1/0/1.subtree" in grown
        assert fixture.count_completeness() == Completeness(referenced=len(files))
        assert fixture.all_references() == REFERENCED
        fixture.catalog.close()


@examples(40)
@given(st.permutations(sorted(make_two_tilesets())), st.integers(1, len(make_two_tilesets())))
def test_a_walk_ends_with_the_same_closure(names: list[str], batch: int) -> None:
    """Fetching only referenced files, in batches, finds every file once."""
    files = make_two_tilesets()
    with tempfile.TemporaryDirectory() as folder:
        fixture = CatalogFixture(Path(folder))
        following, fetched, wanted = (
            SubtreeWalk(fixture.version, fixture.catalog, fixture.files),
            list[str](),
            {"tileset.json"},
        )
        while wanted:
            for name in sorted(wanted, key=names.index)[:batch]:
                fixture.put(name, files[name])
                fetched.append(name)
            following.advance()
            wanted = {"tileset.json"} | {target for _, target, _ in fixture.all_references()}
            wanted -= set(fetched)
        assert sorted(fetched) == sorted(files)
        fixture.catalog.close()


def test_a_walk_follows_no_file_twice(fixture: CatalogFixture) -> None:
    """A walk follows nothing twice, and a new walk gives the same result."""
    fixture.put_all(make_two_tilesets())
    following = SubtreeWalk(fixture.version, fixture.catalog, fixture.files)
    assert following.advance()
    assert following.advance() == set()
    assert following.advance(is_final=True) == set()
    assert advance_walk(fixture, is_final=True)
    assert fixture.all_references() == REFERENCED


def test_two_roots_may_share_their_subtrees(fixture: CatalogFixture) -> None:
    """Two implicit tiles with the same subtrees and other contents refer to the contents of both."""
    roots = [implicit_tile(levels=1, subtrees=SUBTREES, content=f"{n}/{{level}}-{{x}}-{{y}}.glb") for n in "ab"]
    fixture.put_all(
        {
            "tileset.json": implicit_tileset(*roots),
            "s/0/0/0.subtree": make_subtree_with_children(1),
            "s/1/0/0.subtree": make_subtree(),
        }
    )
    fixture.count_completeness()
    assert fixture.missing() == {"a/0-0-0.glb", "a/1-0-0.glb", "b/0-0-0.glb", "b/1-0-0.glb"}
    assert fixture.problems() == []


def test_case_insensitive_disk(fixture: CatalogFixture) -> None:
    """On a case-insensitive disk, subtrees are found in any spelling, and missing ones are named as referenced."""
    fixture.catalog.set_case_insensitive(is_case_insensitive=True)
    fixture.put_all(
        {
            "tileset.json": implicit_tileset(subtrees=f"S{SUBTREES}", content=f"C{CONTENTS[1:]}"),
            "SS/0/0/0.subtree": make_subtree_with_children(0b11),
        }
    )
    fixture.put("SS/1/0/0.subtree", make_subtree(content=NONE))
    for spelled in ("Ss/0/0/0.subtree", "Ss/1/0/0.subtree"):  # such a disk has them under these names, too
        fixture.write(spelled, (fixture.root / "versions/e1" / spelled.replace("Ss", "SS")).read_bytes())
    assert fixture.count_completeness() == Completeness(referenced=5, missing=2)
    assert fixture.missing() == {"Ss/1/1/0.subtree", "C/0/0/0.glb"}


# --- schema ----------------------------------------------------------------------------------------------------------


def test_walk_waits_for_the_schema(fixture: CatalogFixture) -> None:
    """Nothing is followed before the schema is stored, since it may rename contents."""
    fixture.put_all(
        {"tileset.json": implicit_tileset(schemaUri="schema.json"), "s/0/0/0.subtree": make_named_subtree("other.glb")}
    )
    following = SubtreeWalk(fixture.version, fixture.catalog, fixture.files)
    assert following.advance() == set()
    assert contents(fixture) == set()
    fixture.put("schema.json", SCHEMA)
    assert following.advance() == {"tileset.json", "s/0/0/0.subtree"}
    assert contents(fixture) == {"other.glb"}


def test_embedded_schema_counts_too(fixture: CatalogFixture) -> None:
    """An embedded schema renames contents like an external one."""
    fixture.put_all(
        {
            "tileset.json": implicit_tileset(schema=json.loads(SCHEMA)),
            "s/0/0/0.subtree": make_named_subtree("other.glb"),
        }
    )
    advance_walk(fixture)
    assert contents(fixture) == {"other.glb"}


def test_content_uris_give_a_warning_about_the_pointer(fixture: CatalogFixture) -> None:
    """The pointer cannot rebase names in subtrees, which are relative to their tileset."""
    fixture.put_all(
        {
            "tileset.json": implicit_tileset(schema=json.loads(SCHEMA)),
            "s/0/0/0.subtree": make_named_subtree("other.glb"),
        }
    )
    advance_walk(fixture)
    assert fixture.problems() == [("tileset.json", "pointer")]
    fixture.put("tileset.json", implicit_tileset())
    advance_walk(fixture)
    assert fixture.problems() == []


def test_missing_schema_counts_as_empty(fixture: CatalogFixture) -> None:
    """In the end a missing schema is missing and the templates hold; if it arrives later, it takes effect."""
    fixture.put_all(
        {"tileset.json": implicit_tileset(schemaUri="schema.json"), "s/0/0/0.subtree": make_named_subtree("other.glb")}
    )
    assert fixture.count_completeness() == Completeness(referenced=4, missing=2)
    assert fixture.missing() == {"schema.json", "c/0/0/0.glb"}
    fixture.put_all({"schema.json": SCHEMA, "other.glb": GLB})
    assert fixture.count_completeness() == Completeness(referenced=4)


def test_broken_schema_counts_as_missing(fixture: CatalogFixture) -> None:
    """A schema that cannot be read is reported and counts as missing, until it is repaired."""
    fixture.put_all(
        {"tileset.json": implicit_tileset(schemaUri="schema"), "s/0/0/0.subtree": make_named_subtree("other.glb")}
    )
    fixture.put_unread("schema", SCHEMA[:-1])
    fixture.put_all({"c/0/0/0.glb": GLB, "other.glb": GLB})
    assert fixture.count_completeness() == Completeness(referenced=5, missing=1, orphans=1)
    ((name, asker, _),) = fixture.catalog.references.list_missing(fixture.version)
    assert (name[:8], asker) == ("schema: ", "schema")
    fixture.put("schema", SCHEMA)
    assert fixture.count_completeness() == Completeness(referenced=4, orphans=1)


# --- buffers ---------------------------------------------------------------------------------------------------------


def test_subtree_waits_for_its_buffer(fixture: CatalogFixture) -> None:
    """A subtree waits for its buffer; in the end only the buffer is missing."""
    fixture.put_all(
        {"tileset.json": implicit_tileset(), "s/0/0/0.subtree": make_subtree_with_buffer("b.bin"), "c/0/0/0.glb": GLB}
    )
    following = SubtreeWalk(fixture.version, fixture.catalog, fixture.files)
    assert following.advance() == {"tileset.json"}
    assert fixture.count_completeness() == Completeness(referenced=3, missing=1, orphans=1)
    assert fixture.missing() == {"s/0/0/b.bin"}
    fixture.put("s/0/0/b.bin", b"\x08")
    assert following.advance() == {"s/0/0/0.subtree"}
    assert fixture.count_completeness() == Completeness(referenced=5, missing=1)
    assert fixture.missing() == {"s/1/1/1.subtree"}


def test_repaired_buffer_is_read_again(fixture: CatalogFixture) -> None:
    """A subtree with a broken buffer counts as missing only until the buffer is repaired."""
    fixture.put_all(
        {"tileset.json": implicit_tileset(), "s/0/0/0.subtree": make_subtree_with_buffer("b.bin"), "c/0/0/0.glb": GLB}
    )
    fixture.put("s/0/0/b.bin", b"")
    assert fixture.count_completeness().missing == 1
    fixture.put("s/0/0/b.bin", b"\x00")
    assert fixture.count_completeness() == Completeness(referenced=4)
    assert fixture.diagnostics() == []


def test_buffer_in_another_container_is_unreadable(fixture: CatalogFixture) -> None:
    """A subtree whose buffer is in another container is unreadable."""
    fixture.put_all(
        {"tileset.json": implicit_tileset(), "s/0/0/0.subtree": make_subtree_with_buffer("https://elsewhere.org/b.bin")}
    )
    result = fixture.count_completeness()
    assert (result.missing, result.unfollowed) == (1, 1)
    assert fixture.missing() == {"s/0/0/0.subtree: its buffer https://elsewhere.org/b.bin is outside the container"}


def test_names_of_buffers_are_shown_safely(fixture: CatalogFixture) -> None:
    """Messages show names from a subtree without control characters and secrets."""
    fixture.put_all(
        {"tileset.json": implicit_tileset(), "s/0/0/0.subtree": make_subtree_with_buffer("\ud800\n\x1b.bin?sig=SECRET")}
    )
    assert fixture.count_completeness().missing == 2
    assert fixture.missing() == {
        "\ufffd\ufffd\ufffd.bin is not UTF-8",
        "s/0/0/0.subtree: its buffer \ufffd\ufffd\ufffd.bin is outside the container",
    }


@pytest.mark.parametrize("most", [0, 1])
def test_subtree_size_is_limited(fixture: CatalogFixture, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """A subtree or buffers above the limit are unreadable; at the limit they are read."""
    subtree_json = make_subtree_with_buffer("b.bin")
    monkeypatch.setattr(module, "MAX_SUBTREE_BYTES", len(subtree_json) - 1 + most)
    fixture.put_all(
        {"tileset.json": implicit_tileset(), "s/0/0/0.subtree": subtree_json, "c/0/0/0.glb": GLB, "s/0/0/b.bin": b"\0"}
    )
    assert fixture.count_completeness().missing == 1 - most
    fixture.put("s/0/0/b.bin", bytes(len(subtree_json) + most))
    assert fixture.count_completeness().missing == 1


def test_total_buffer_size_is_limited(fixture: CatalogFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small buffers together may exceed the limit."""
    buffers = [{"uri": f"{number}.bin", "byteLength": 1} for number in range(3)]
    views = [{"buffer": number, "byteOffset": 0, "byteLength": 1} for number in range(3)]
    tiles, content, children = ({"bitstream": number} for number in range(3))
    subtree_json = make_subtree(
        content=content, children=children, tileAvailability=tiles, buffers=buffers, bufferViews=views
    )
    files = {f"s/0/0/{number}.bin": b"\1" + bytes(599) for number in range(3)}
    fixture.put_all({"tileset.json": implicit_tileset(), "s/0/0/0.subtree": subtree_json, "c/0/0/0.glb": GLB, **files})
    fixture.put("s/1/0/0.subtree", make_subtree(content=NONE))
    assert len(subtree_json) < 1799
    monkeypatch.setattr(module, "MAX_SUBTREE_BYTES", 1800)
    assert fixture.count_completeness() == Completeness(referenced=7)
    monkeypatch.setattr(module, "MAX_SUBTREE_BYTES", 1799)
    assert fixture.count_completeness().missing == 1
    assert fixture.missing() == {"s/0/0/0.subtree: its buffers have more than 1,799 bytes"}


# --- limits and errors -----------------------------------------------------------------------------------------------


# --- diagnostics -----------------------------------------------------------------------------------------------------


def test_available_levels_do_not_end_the_walk(fixture: CatalogFixture) -> None:
    """Subtrees below the available levels are followed, as viewers do, and reported."""
    fixture.put_all(
        {
            "tileset.json": implicit_tileset(available=1),
            "s/0/0/0.subtree": make_subtree_with_children(1),
            "c/0/0/0.glb": GLB,
        }
    )
    fixture.put_all({"s/1/0/0.subtree": make_subtree(), "c/1/0/0.glb": GLB})
    assert fixture.count_completeness() == Completeness(referenced=5)
    assert fixture.problems() == [("s/0/0/0.subtree", "availability"), ("s/1/0/0.subtree", "availability")]


def test_wrong_availability_is_reported(fixture: CatalogFixture) -> None:
    """An invalid availability is reported with its file, and is no error."""
    wrong = make_subtree(tileAvailability={"constant": 1, "availableCount": 7})
    fixture.put_all({"tileset.json": implicit_tileset(), "s/0/0/0.subtree": wrong, "c/0/0/0.glb": GLB})
    assert fixture.count_completeness() == Completeness(referenced=3)
    sentence = "availableCount of tileAvailability is 7, 1 are available"
    assert fixture.diagnostics() == [("s/0/0/0.subtree", Diagnostic("availability", sentence))]


@pytest.mark.parametrize(
    ("template", "result"),
    [
        ("https://elsewhere.org/{level}/{x}/{y}.subtree", Completeness(referenced=1, unfollowed=1)),
        ("../../{level}/{x}/{y}.subtree", Completeness(referenced=1, unfollowed=1)),
        ("con/{level}/{x}/{y}.subtree", Completeness(referenced=2, missing=1)),
        (f"{HOME}/s/{{level}}/{{x}}/{{y}}.subtree", Completeness(referenced=3, missing=1, unfollowed=1)),
        (
            "a.3tz/{level}/{x}/{y}.subtree",
            Completeness(referenced=2, missing=0, unfollowed=1),
        ),  # archives are not walked
    ],
)
def test_template_targets(fixture: CatalogFixture, template: str, result: Completeness) -> None:
    """Templates are URIs like others.

    External targets are not followed, unsafe ones are missing, and archives are not walked.
    """
    fixture.put_all({"tileset.json": implicit_tileset(subtrees=template)})
    fixture.put_all({"s/0/0/0.subtree": make_subtree(), "a.3tz": b"PK\x03\x04"})
    settled = fixture.count_completeness()
    assert (settled.referenced, settled.missing) == (result.referenced, result.missing)
    assert settled.unfollowed == result.unfollowed


def test_templates_are_resolved_again(fixture: CatalogFixture) -> None:
    """A template with an absolute URI is followed once the address of the container is known."""
    known, fixture.version = fixture.version, replace(fixture.version, container_url="")
    fixture.put_all(
        {"tileset.json": implicit_tileset(subtrees=f"{HOME}/{SUBTREES}"), "s/0/0/0.subtree": make_subtree(content=NONE)}
    )
    assert fixture.count_completeness() == Completeness(referenced=1, orphans=1, unfollowed=1)
    fixture.version = known
    assert fixture.count_completeness() == Completeness(referenced=2, unfollowed=1)


def test_changed_templates_replace_references(fixture: CatalogFixture) -> None:
    """If the templates of a tileset change, its unchanged subtrees refer to the new names only."""
    fixture.put_all(
        {"tileset.json": implicit_tileset(), "s/0/0/0.subtree": make_subtree_with_children(0), "c/0/0/0.glb": GLB}
    )
    assert fixture.count_completeness() == Completeness(referenced=3)
    fixture.put_all({"tileset.json": implicit_tileset(content="d/{level}/{x}/{y}.glb"), "d/0/0/0.glb": GLB})
    assert fixture.count_completeness() == Completeness(referenced=3, orphans=1)
    assert contents(fixture) == {"d/0/0/0.glb"}


def test_own_references_of_a_subtree_stay(fixture: CatalogFixture) -> None:
    """A new walk clears references of earlier walks, never those read from the file itself."""
    fixture.put_all(
        {
            "tileset.json": implicit_tileset(),
            "s/0/0/0.subtree": make_subtree_with_buffer("b.bin?x=1"),
            "s/0/0/b.bin": b"\0",
        }
    )
    fixture.put("c/0/0/0.glb", GLB)
    for _ in range(3):
        assert fixture.count_completeness() == Completeness(referenced=4)
        assert fixture.problems() == [("s/0/0/0.subtree", "query")]


def test_many_contents_are_saved_in_parts(fixture: CatalogFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The references of a subtree go to the catalog in parts, and none is lost."""
    monkeypatch.setattr(module, "MAX_REFERENCES_IN_MEMORY", 7)
    portions: list[int] = []
    original_add = fixture.catalog.references.add

    def counting_add(version: Any, source: str, content: Any, **options: bool) -> None:
        portions.append(len(content.references))
        original_add(version, source, content, **options)

    monkeypatch.setattr(fixture.catalog.references, "add", counting_add)
    fixture.put_all({"tileset.json": implicit_tileset(levels=3), "s/0/0/0.subtree": make_subtree(children=ALL)})
    advance_walk(fixture)
    assert max(portions) == 7
    assert fixture.references_from("s/0/0/0.subtree") == fill_names(CONTENTS, range(3))
    assert fixture.references_from("s/0/0/0.subtree", Role.SUBTREE) == fill_names(SUBTREES, [3])


def fill_names(template: str, levels: Iterable[int]) -> set[str]:
    return {template.format(level=n, x=x, y=y) for n in levels for x in range(2**n) for y in range(2**n)}
