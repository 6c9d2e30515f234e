"""Catalog: the inventory of a walk."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.catalog_rows import (
    NEW,
    SHA,
    WALKED,
    add_blobs,
    find_file_id,
    relist,
    store_files,
    tileset_content,
    wanted_names,
)
from tests.support.examples import examples
from tilesync.catalog.catalog import Catalog
from tilesync.model import (
    UNKNOWN_SIZE,
    Blob,
    Completeness,
    FileResult,
    Kind,
    ParsedContent,
    Role,
    StoredFile,
    Totals,
)


def test_a_walk_wants_the_references_of_arrived_files(path: Path) -> None:
    """References of an arrived file become wanted once, by name only; the number of new ones is returned."""
    catalog = Catalog(path)
    version = catalog.add_version(WALKED)
    catalog.add_wanted(version, "tileset.json")
    assert wanted_names(catalog, version) == ["tileset.json"]
    assert store_files(catalog, version, tileset_json=tileset_content("b.json", "a", "tileset.json")) == 2
    assert [blob for _, blob in catalog.list_wanted(version, 0, limit=9)] == [
        Blob("a", UNKNOWN_SIZE),
        Blob("b.json", UNKNOWN_SIZE),
    ]
    assert store_files(catalog, version, b_json=tileset_content("a", "tileset.json", "b.json", "c")) == 1
    assert wanted_names(catalog, version) == ["a", "c"]
    assert catalog.compute_totals(version) == Totals(4, 10, 2, 10)
    catalog.close()


def test_a_walk_reads_on_by_id(path: Path) -> None:
    """New wanted files come after all files that a reader has already got."""
    catalog = Catalog(path)
    version = catalog.add_version(WALKED)
    catalog.add_wanted(version, "m")
    seen: list[str] = []
    after, contents = 0, {"m": tileset_content("z", "b"), "z": tileset_content("a", "b"), "a": tileset_content("m")}
    while rows := catalog.list_wanted(version, after, limit=9):
        seen += [blob.name for _, blob in rows]
        after = rows[-1][0]
        store_files(catalog, version, **{blob.name: contents.get(blob.name, ParsedContent()) for _, blob in rows})
    assert seen == ["m", "b", "z", "a"]
    assert catalog.compute_totals(version).stored_files == 4
    catalog.close()


def test_a_known_name_is_not_added_again(path: Path) -> None:
    """A known name is not added again, whether it is wanted, stored or missing."""
    catalog = Catalog(path)
    version = catalog.add_version(WALKED)
    for name in ("held", "missing", "wanted"):
        catalog.add_wanted(version, name)
    store_files(catalog, version, held=tileset_content("held", "missing", "wanted"))
    catalog.mark_missing(version, [find_file_id(catalog, version, "missing")])
    for name in ("held", "missing", "wanted"):
        catalog.add_wanted(version, name)
    assert catalog.add_wanted_references(version, "held") == 0
    assert wanted_names(catalog, version) == ["wanted"]
    catalog.close()


def test_a_listed_version_wants_nothing_by_itself(path: Path) -> None:
    """Where the listing is the inventory, arriving files add nothing to it."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    add_blobs(catalog, version, "tileset.json")
    assert store_files(catalog, version, tileset_json=tileset_content("a", "b")) == 0
    assert wanted_names(catalog, version) == []
    assert catalog.compute_totals(version).files == 1
    catalog.close()


def test_references_in_parts_are_all_wanted(path: Path) -> None:
    """All references of a file that came in parts become wanted, not only those of the last part."""
    catalog = Catalog(path)
    version = catalog.add_version(WALKED)
    catalog.add_wanted(version, "tileset.json")
    catalog.references.add(version, "tileset.json", tileset_content("stale"))
    catalog.references.add(version, "tileset.json", tileset_content("a", "b"), replace_existing=True)
    catalog.references.add(version, "tileset.json", tileset_content("c"))
    ((number, blob),) = catalog.list_wanted(version, 0, limit=9)
    whole = StoredFile(blob._replace(size=9), SHA, 7)
    assert (
        catalog.mark_stored(version, [FileResult(number, whole, ParsedContent(Kind.TILESET), has_more_references=True)])
        == 3
    )
    assert wanted_names(catalog, version) == ["a", "b", "c"]
    catalog.close()


def test_missing_files_are_not_in_the_inventory(path: Path) -> None:
    """A missing file is not wanted, counted or stored, until it is wanted again."""
    catalog = Catalog(path)
    version = catalog.add_version(WALKED)
    catalog.add_wanted(version, "tileset.json")
    store_files(catalog, version, tileset_json=tileset_content("a", "b"))
    catalog.mark_missing(version, [find_file_id(catalog, version, "a")])
    assert wanted_names(catalog, version) == ["b"]
    assert catalog.compute_totals(version) == Totals(2, 5, 1, 5)
    assert catalog.find_stored(version, ["a"]) == {}
    catalog.close()
    catalog = Catalog(path)
    catalog.mark_missing_wanted(version)
    assert wanted_names(catalog, version) == ["a", "b"]
    assert catalog.compute_totals(version) == Totals(3, 5, 1, 5)
    catalog.close()


def test_mark_missing_wanted_leaves_other_versions_alone(path: Path) -> None:
    """Missing files of one version stay missing when another version wants its own again."""
    catalog = Catalog(path)
    one, two = catalog.add_version(WALKED), catalog.add_version(replace(WALKED, name="e2"))
    for version in (one, two):
        catalog.add_wanted(version, "a")
        catalog.mark_missing(version, [find_file_id(catalog, version, "a")])
    catalog.mark_missing_wanted(two)
    assert (wanted_names(catalog, one), wanted_names(catalog, two)) == ([], ["a"])
    catalog.close()


def test_a_second_walk_wants_everything_anew(path: Path) -> None:
    """A second walk wants known files again as it reaches them, after all files that a reader has already got."""
    catalog = Catalog(path)
    version = catalog.add_version(WALKED)
    catalog.add_wanted(version, "tileset.json")
    store_files(catalog, version, tileset_json=tileset_content("gone.json", "a", "lost"))
    store_files(catalog, version, gone_json=tileset_content("g"), a=ParsedContent())
    catalog.mark_missing(version, [find_file_id(catalog, version, "lost")])
    catalog.finish_listing(version)
    version = relist(catalog, version)
    assert wanted_names(catalog, version) == []
    catalog.add_wanted(version, "tileset.json")
    first = find_file_id(catalog, version, "tileset.json")
    assert catalog.find_stored(version, ["tileset.json"]) == {}
    assert store_files(catalog, version, tileset_json=tileset_content("a", "new", "lost")) == 3
    assert min(number for number, _ in catalog.list_wanted(version, 0, limit=9)) > first
    assert wanted_names(catalog, version) == ["a", "lost", "new"]
    assert (
        store_files(catalog, version, a=tileset_content("tileset.json"), new=ParsedContent(), lost=ParsedContent()) == 0
    )
    assert sorted(catalog.finish_listing(version)) == ["g", "gone.json"]
    assert wanted_names(catalog, version) == []
    assert catalog.compute_totals(version) == Totals(4, 20, 4, 20)
    assert catalog.references.compute_completeness(version) == Completeness(referenced=4)
    catalog.close()


def test_files_that_a_second_walk_misses_lose_their_references(path: Path) -> None:
    """A tileset that is gone is missing, and its old references are dropped."""
    catalog = Catalog(path)
    version = catalog.add_version(WALKED)
    catalog.add_wanted(version, "tileset.json")
    store_files(catalog, version, tileset_json=tileset_content("a.json"))
    store_files(catalog, version, a_json=tileset_content("b"))
    store_files(catalog, version, b=ParsedContent())
    catalog.finish_listing(version)
    version = relist(catalog, version)
    catalog.add_wanted(version, "tileset.json")
    store_files(catalog, version, tileset_json=tileset_content("a.json"))
    catalog.mark_missing(version, [find_file_id(catalog, version, "a.json")])
    assert catalog.finish_listing(version) == ["b"]
    assert catalog.references.compute_completeness(version) == Completeness(referenced=2, missing=1)
    assert catalog.references.list_targets(version, "a.json", Role.CONTENT) == []
    catalog.close()


def test_walking_on_a_case_insensitive_disk(path: Path) -> None:
    """On a case-insensitive disk two spellings of one name are one file, with the first spelling."""
    catalog = Catalog(path)
    catalog.set_case_insensitive(is_case_insensitive=True)
    version = catalog.add_version(WALKED)
    catalog.add_wanted(version, "Tileset.json")
    ((number, blob),) = catalog.list_wanted(version, 0, limit=9)
    assert blob.name == "Tileset.json"
    result = FileResult(number, StoredFile(blob._replace(size=1), SHA, 7), tileset_content("A.glb", "TILESET.json"))
    assert catalog.mark_stored(version, [result]) == 1
    assert catalog.add_wanted_references(version, "tileset.JSON") == 0
    catalog.add_wanted(version, "a.GLB")
    assert wanted_names(catalog, version) == ["A.glb"]
    catalog.close()


@st.composite
def containers(draw: st.DrawFn) -> list[dict[str, list[str]]]:
    """Generate container contents and references of each file, one state after another."""
    names = ["r", "a", "b", "c", "d", "e"]
    several = st.lists(st.sampled_from(names), max_size=4)
    stored = st.dictionaries(st.sampled_from(names[1:]), several)
    return [draw(stored) | {"r": draw(several)} for _ in range(draw(st.integers(1, 3)))]


@given(containers(), st.integers(1, 3))
@examples(80)
def test_walks_request_each_reachable_file_once(times: list[dict[str, list[str]]], portion: int) -> None:
    """Each walk requests each reachable file once, stores what exists, and drops the rest."""
    catalog = Catalog(Path(":memory:"))
    version, before = catalog.add_version(WALKED), set[str]()
    for container in times:
        version = relist(catalog, version)
        reached, pending = set[str](), ["r"]
        while pending:
            if (name := pending.pop()) not in reached:
                reached.add(name)
                pending += container.get(name, [])
        catalog.add_wanted(version, "r")
        requested: list[str] = []
        after = 0
        while rows := catalog.list_wanted(version, after, limit=portion):
            after = rows[-1][0]
            requested += [blob.name for _, blob in rows]
            catalog.mark_missing(version, [number for number, blob in rows if blob.name not in container])
            there = [(number, blob) for number, blob in rows if blob.name in container]
            contents = [tileset_content(*container[blob.name]) for _, blob in there]
            stored = [StoredFile(blob._replace(size=1), SHA, 1) for _, blob in there]
            catalog.mark_stored(
                version,
                [FileResult(n, h, r) for (n, _), h, r in zip(there, stored, contents, strict=True)],
            )
        assert sorted(requested) == sorted(reached)
        assert set(catalog.finish_listing(version)) == before - reached
        assert {key for key, _ in catalog.list_stored(version, limit=99)} == reached & container.keys()
        asked_for = {(source, target) for source in reached & container.keys() for target in container[source]}
        assert set(catalog.query("SELECT source, target FROM reference")) == asked_for
        before = reached
    catalog.close()


WALK = """
import sys
from dataclasses import replace
from pathlib import Path
from tilesync.model import Blob, FileResult, Inventory, Kind, ParsedContent, Reference, Role, StoredFile, Version
from tilesync.catalog.catalog import Catalog
catalog = Catalog(Path(sys.argv[1]))
version = catalog.add_version(Version(0, "e1", "e1", inventory=Inventory.WALK))
catalog.add_wanted(version, "t")
while True:
    rows = catalog.list_wanted(version, 0, limit=50)
    results = []
    for number, blob in rows:
        references = tuple(Reference(blob.name + letter, Role.CONTENT) for letter in "abc")
        if int.from_bytes(blob.name.encode(), "big") % 5 == 0:
            catalog.references.add(version, blob.name, ParsedContent(references=references[:2]), replace_existing=True)
            content, has_more = ParsedContent(Kind.TILESET, references[2:]), True
        else:
            content, has_more = ParsedContent(Kind.TILESET, references), False
        stored = StoredFile(blob._replace(size=1), b"s" * 32, 1)
        results.append(FileResult(number, stored, content, has_more_references=has_more))
    catalog.mark_stored(version, results)
    catalog.mark_missing(version, [number for number, _ in catalog.list_wanted(version, 0, limit=3)][2:])
    print(len(rows), flush=True)
"""


@pytest.mark.parametrize("batches", [1, 6, 30])
def test_a_kill_leaves_whole_steps_of_a_walk(path: Path, batches: int) -> None:
    """A process killed while walking leaves each stored file with all its references, all of them known."""
    reported = 0
    with subprocess.Popen([sys.executable, "-c", WALK, path], stdout=subprocess.PIPE, text=True) as walker:
        assert walker.stdout is not None
        for _ in range(batches):
            reported += int(walker.stdout.readline())
        walker.kill()
    catalog = Catalog(path)
    (version,) = catalog.versions()
    stored = {key for key, _ in catalog.list_stored(version, limit=10**6)}
    assert len(stored) >= reported
    known = {row[0] for row in catalog.query("SELECT key FROM blob")}
    for name in stored:
        assert catalog.references.list_targets(version, name, Role.CONTENT) == [name + letter for letter in "abc"]
        assert {name + letter for letter in "abc"} <= known
    catalog.mark_missing_wanted(version)
    assert len(wanted_names(catalog, version)) == min(100, len(known - stored))
    catalog.close()
