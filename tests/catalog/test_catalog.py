"""Catalog: versions, listings, walks, and old or damaged files."""

import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilesync.catalog.catalog import Catalog
from tilesync.catalog.schema import MIGRATIONS, SCHEMA_VERSION
from tilesync.errors import DestinationError, Incomplete
from tilesync.model import (
    UNKNOWN_SIZE,
    Blob,
    Completeness,
    Content,
    Diagnostic,
    FileResult,
    Globs,
    Inventory,
    Kind,
    ListingState,
    ParsedContent,
    Reference,
    Role,
    StoredFile,
    Totals,
    UnpackedFile,
    Version,
)

SHA = b"s" * 32
DOCUMENTS = (Kind.TILESET, Kind.SUBTREE)
NEW = Version(0, "e1", "e1", "i", "c", "2026", {"id": "e1", "deep": {"n": [1]}})
WALKED = replace(NEW, inventory=Inventory.WALK, container_url="https://host/container")
FULL = Blob("a/ä", 3, "0x8D", b"m" * 16, "t", "gzip", 1772353800)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog.sqlite3"


def names(catalog: Catalog, version: Version) -> list[str]:
    """List the wanted names, in listing order."""
    rows = [
        *catalog.list_wanted(version, 0, limit=100, empty=False),
        *catalog.list_wanted(version, 0, limit=100, empty=True),
    ]
    return [blob.name for _, blob in sorted(rows)]


def add(catalog: Catalog, version: Version, *blobs: Blob | str, folders: tuple[str, ...] = ()) -> None:
    catalog.add_page(version, [(b if isinstance(b, Blob) else Blob(b, 1), None) for b in blobs], folders)


def relist(catalog: Catalog, version: Version) -> Version:
    """Start a new listing of the same version."""
    version = replace(version, listing=version.listing.restart())
    catalog.update_version(version)
    return version


def reference_to(name: str, role: Role = Role.CONTENT) -> Reference:
    return Reference(name, role)


def tileset_content(*names: str, kind: Kind = Kind.TILESET, implicit: bool = False) -> ParsedContent:
    """Build the content of a tileset that references these."""
    return ParsedContent(kind, tuple(reference_to(name) for name in names), has_implicit_tiling=implicit)


def store_files(catalog: Catalog, version: Version, **readings: ParsedContent) -> int:
    """Mark wanted files as stored; dots in a name are written `_`."""
    named = {name.replace("_", "."): reading for name, reading in readings.items()}
    rows = [(number, blob) for number, blob in catalog.list_wanted(version, 0, limit=100) if blob.name in named]
    assert len(rows) == len(named)
    arrivals = [
        FileResult(number, StoredFile(blob._replace(size=5, etag="0x1"), SHA, 7), named[blob.name])
        for number, blob in rows
    ]
    return catalog.mark_stored(version, arrivals)


def wanted(catalog: Catalog, version: Version) -> list[str]:
    """List the wanted names in the order in which readers get them."""
    return [blob.name for _, blob in catalog.list_wanted(version, 0, limit=100)]


def number_of(catalog: Catalog, version: Version, name: str) -> int:
    return next(number for number, blob in catalog.list_wanted(version, 0, limit=100) if blob.name == name)


def store_all(catalog: Catalog, version: Version) -> None:
    rows = catalog.list_wanted(version, 0, limit=100, empty=False)
    catalog.mark_stored(version, [FileResult(number, StoredFile(blob, SHA, 5)) for number, blob in rows])


# --- versions and facts ---


def test_versions_come_back(path: Path) -> None:
    """Versions come back in the order in which they were started, with all fields, also after reopening."""
    catalog = Catalog(path)
    one = catalog.add_version(NEW)
    two = catalog.add_version(replace(NEW, name="e2", export="e2", imodel=None, changeset=None))
    three = catalog.add_version(
        replace(
            NEW,
            name="e1-2",
            published_at="t",
            files=3,
            bytes=4,
            manifest_sha256="00",
            listing=ListingState(is_complete=True),
        )
    )
    assert len({one.serial, two.serial, three.serial}) == 3
    catalog.close()
    catalog = Catalog(path)
    assert catalog.versions() == [one, two, three]
    assert catalog.versions(export="e1") == [one, three]
    assert catalog.versions(name="e1-2") == [three]
    assert catalog.versions(export="e3") == []
    catalog.close()


def test_updates_come_back(path: Path) -> None:
    """Every field of a version that may change is saved."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    changed = replace(
        version, modified="2027", record={"id": "e1", "x": None}, listing=ListingState(2, True, "m"),
        damaged=True, published_at="t", files=1, bytes=2, manifest_sha256="ff", inventory="walk",
        container_url="https://host/c",
        completeness=Completeness(4, 3, 2, 1),
    )  # fmt: skip
    catalog.update_version(changed)
    assert catalog.versions() == [changed]
    catalog.close()


def test_delete_version(path: Path) -> None:
    """A deleted version leaves nothing behind, and its name is free again."""
    catalog = Catalog(path)
    other = catalog.add_version(replace(NEW, name="other"))
    add(catalog, other, "x")
    version = catalog.add_version(NEW)
    add(catalog, version, "a/b", folders=("a",))
    catalog.references.add(
        version, "a/b", ParsedContent(references=(reference_to("x"),), diagnostics=(Diagnostic("problem", "detail"),))
    )
    catalog.delete_version(version)
    for table in ("blob", "folder", "reference", "remark"):
        assert catalog.query(f"SELECT count(*) FROM {table} WHERE version=?", version.serial) == [(0,)]
    assert catalog.versions() == [other]
    fresh = catalog.add_version(NEW)
    add(catalog, fresh, "a")
    assert catalog.finish_listing(fresh) == []
    assert (names(catalog, fresh), names(catalog, other)) == (["a"], ["x"])
    catalog.close()


def test_values(path: Path) -> None:
    """A value is kept under its key, the last one counts, and a catalog knows whether it is new."""
    catalog = Catalog(path)
    assert catalog.is_new
    assert catalog.get_value("boot") is None
    catalog.set_value("boot", "1")
    catalog.set_value("boot", "2")
    catalog.close()
    catalog = Catalog(path)
    assert not catalog.is_new
    assert catalog.get_value("boot") == "2"
    catalog.close()


# --- inventory ---


def test_a_page_comes_back(path: Path) -> None:
    """Blobs come back with every listed property, in listing order, with the marker of the page."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    catalog.add_page(replace(version, listing=ListingState(marker="next")), [(FULL, None), (Blob("0", 1), None)], ["a"])
    catalog.close()
    catalog = Catalog(path)
    assert [blob for _, blob in catalog.list_wanted(version, 0, limit=9, empty=False)] == [FULL, Blob("0", 1)]
    assert catalog.versions()[0].listing.marker == "next"
    catalog.close()


def test_wanted_is_read_in_portions(path: Path) -> None:
    """Wanted files are read from an id on, up to a limit; empty blobs can be read separately."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    add(catalog, version, "c", "b", Blob("empty", 0), "a")
    seen, after = [], 0
    while rows := catalog.list_wanted(version, after, limit=2, empty=False):
        assert len(rows) <= 2
        seen += [blob.name for _, blob in rows]
        after = rows[-1][0]
    assert seen == ["c", "b", "a"]
    assert [blob.name for _, blob in catalog.list_wanted(version, 0, limit=9, empty=True)] == ["empty"]
    catalog.close()


def test_stored_files(path: Path) -> None:
    """A stored file is no longer wanted, is found by name and in key order, and survives reopening."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    add(catalog, version, "c", FULL, "b")
    (number, blob), *_ = catalog.list_wanted(version, 1, limit=1, empty=False)
    catalog.mark_stored(version, [FileResult(number, StoredFile(blob, SHA, 7))])
    catalog.close()
    catalog = Catalog(path)
    assert names(catalog, version) == ["c", "b"]
    assert catalog.find_stored(version, ["b", FULL.name, "nothing"]) == {FULL.name: StoredFile(FULL, SHA, 7)}
    assert catalog.list_stored(version, limit=9) == [(FULL.name, StoredFile(FULL, SHA, 7))]
    assert catalog.compute_totals(version) == Totals(3, 5, 1, 3)
    catalog.close()


def test_stored_files_are_read_in_portions(path: Path) -> None:
    """Stored files are read in key order, after the last key."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    add(catalog, version, "b", "a/b", "a", "ä")
    store_all(catalog, version)
    seen, after = [], ""
    while rows := catalog.list_stored(version, after, limit=3):
        seen += [key for key, _ in rows]
        after = rows[-1][0]
    assert seen == ["a", "a/b", "b", "ä"]
    catalog.close()


def test_many_names_are_looked_up_at_once(path: Path) -> None:
    """Any number of names can be looked up at once."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    blobs = [Blob(f"{number}", 1) for number in range(2000)]
    catalog.add_page(version, [(blob, StoredFile(blob, SHA, 1)) for blob in blobs], [])
    assert set(catalog.find_stored(version, [blob.name for blob in blobs])) == {blob.name for blob in blobs}
    assert catalog.find_stored(version, []) == {}
    catalog.close()


def test_mark_wanted(path: Path) -> None:
    """Released files are wanted again; unknown names do no harm."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    add(catalog, version, "a", "b")
    store_all(catalog, version)
    catalog.mark_wanted(version, ["a", "nothing"])
    assert names(catalog, version) == ["a"]
    assert catalog.compute_totals(version) == Totals(2, 2, 1, 1)
    catalog.close()


def test_versions_do_not_mix(path: Path) -> None:
    """The same name in two versions is two files."""
    catalog = Catalog(path)
    one, two = catalog.add_version(NEW), catalog.add_version(replace(NEW, name="e2"))
    add(catalog, one, "a")
    add(catalog, two, "a")
    store_all(catalog, one)
    assert (names(catalog, one), names(catalog, two)) == ([], ["a"])
    assert catalog.finish_listing(two) == []
    assert catalog.compute_totals(one) == Totals(1, 1, 1, 1)
    catalog.close()


def test_any_spelling_is_found_at_once(path: Path) -> None:
    """On a case-insensitive disk, two spellings of one name are both found in one lookup."""
    catalog = Catalog(path)
    catalog.set_case_insensitive(is_case_insensitive=True)
    version = catalog.add_version(NEW)
    add(catalog, version, "Tile.glb")
    store_all(catalog, version)
    found = catalog.find_stored(version, ["tile.glb", "TILE.GLB", "other"])
    assert {name: held.blob.name for name, held in found.items()} == {"tile.glb": "Tile.glb", "TILE.GLB": "Tile.glb"}
    catalog.close()


def test_files_added_as_stored(path: Path) -> None:
    """Files added as stored have their kind and references; their `file_id` is ignored."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    arrivals = [
        FileResult(77, StoredFile(FULL, SHA, 5), tileset_content("b", implicit=True)),
        FileResult(77, StoredFile(Blob("b", 2), SHA, 6), tileset_content(kind=Kind.SUBTREE)),
        FileResult(77, StoredFile(Blob("c", 2), SHA, 6), ParsedContent(Kind.GLB)),
    ]
    catalog.add_stored_files(version, arrivals)
    assert catalog.list_stored(version, limit=9) == [(a.stored.blob.name, a.stored) for a in arrivals]
    assert catalog.list_stored(version, limit=9, kinds=DOCUMENTS) == [
        (a.stored.blob.name, a.stored) for a in arrivals[:2]
    ]
    assert catalog.references.list_implicit_tilesets(version) == [FULL.name]
    assert catalog.references.list_targets(version, FULL.name, Role.CONTENT) == ["b"]
    catalog.close()


def test_a_name_added_twice_is_refused(path: Path) -> None:
    """Adding a stored name twice is an error, the whole batch is rolled back, and no other file changes."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    catalog.add_stored_files(version, [FileResult(0, StoredFile(Blob("a", 1), SHA, 5), tileset_content("x"))])
    catalog.add_stored_files(version, [FileResult(0, StoredFile(Blob("b", 1), SHA, 5), ParsedContent(Kind.GLB))])
    with pytest.raises(Incomplete, match="twice: a"):
        catalog.add_stored_files(
            version,
            [
                FileResult(0, StoredFile(Blob(name, 1), SHA, 5), tileset_content("y", implicit=True))
                for name in ("c", "a")
            ],
        )
    assert [key for key, _ in catalog.list_stored(version, limit=9)] == ["a", "b"]
    assert [key for key, _ in catalog.list_stored(version, limit=9, kinds=DOCUMENTS)] == ["a"]
    assert catalog.references.list_implicit_tilesets(version) == []
    assert catalog.references.list_targets(version, "a", Role.CONTENT) == ["x"]
    catalog.close()


def test_documents_are_read_in_portions(path: Path) -> None:
    """Stored tilesets and subtrees are read in key order; a file that is wanted again is not stored."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    kinds = {"c": Kind.TILESET, "a": Kind.SUBTREE, "b": Kind.GLB, "d": Kind.TILESET, "e": Kind.TILESET, "f": Kind.JSON}
    catalog.add_stored_files(
        version, [FileResult(0, StoredFile(Blob(name, 1), SHA, 5), ParsedContent(kind)) for name, kind in kinds.items()]
    )
    catalog.mark_wanted(version, ["d"])
    seen, after = [], ""
    while rows := catalog.list_stored(version, after, limit=2, kinds=DOCUMENTS):
        seen += [key for key, _ in rows]
        after = rows[-1][0]
    assert seen == ["a", "c", "e"]
    catalog.close()


# --- clashes ---


@pytest.mark.parametrize("first", [[], ["z", "a"]], ids=["one page", "two pages"])
def test_a_name_listed_twice_is_refused(path: Path, first: list[str]) -> None:
    """A name listed twice, in one page or two, is an error, and the page is rolled back."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    add(catalog, version, *first)
    with pytest.raises(Incomplete, match="twice"):
        add(
            catalog,
            replace(version, listing=replace(version.listing, marker="m")),
            "new",
            "a",
            "more",
            *([] if first else ["a"]),
            folders=("f",),
        )
    assert names(catalog, version) == first
    assert catalog.versions()[0].listing.marker is None
    add(catalog, version, Blob("f", 5))
    assert catalog.finish_listing(version) == []
    catalog.close()


@pytest.mark.parametrize(("one", "other"), [("Tile.glb", "tile.GLB"), ("straße", "STRASSE"), ("e\u0301", "é")])
def test_names_that_differ_only_in_case(path: Path, one: str, other: str) -> None:
    """On a case-insensitive disk, names that differ only in case are refused, both named; elsewhere they are two."""
    catalog = Catalog(path)
    plain = catalog.add_version(NEW)
    add(catalog, plain, one, other)
    assert names(catalog, plain) == [one, other]
    catalog.set_case_insensitive(is_case_insensitive=True)
    version = catalog.add_version(replace(NEW, name="folded"))
    with pytest.raises(Incomplete) as error:
        add(catalog, version, one, other)
    assert one in str(error.value)
    assert other in str(error.value)
    assert names(catalog, version) == []
    add(catalog, version, one)
    with pytest.raises(Incomplete):
        add(catalog, version, other)
    catalog.close()


def test_case_folding_keeps_names(path: Path) -> None:
    """On a case-insensitive disk a name keeps the spelling of the container and is found by any spelling."""
    catalog = Catalog(path)
    catalog.set_case_insensitive(is_case_insensitive=True)
    version = catalog.add_version(NEW)
    add(catalog, version, "Tile.GLB")
    store_all(catalog, version)
    assert [held.blob.name for held in catalog.find_stored(version, ["Tile.GLB"]).values()] == ["Tile.GLB"]
    catalog.mark_wanted(version, ["Tile.GLB"])
    assert names(catalog, version) == ["Tile.GLB"]
    catalog.close()
    assert Catalog(path).is_case_insensitive


def test_folded_folders_clash(path: Path) -> None:
    """On a case-insensitive disk a file clashes with a folder that differs only in case."""
    catalog = Catalog(path)
    catalog.set_case_insensitive(is_case_insensitive=True)
    version = catalog.add_version(NEW)
    add(catalog, version, "Data", "data/a", folders=("data",))
    with pytest.raises(DestinationError, match="both a file and a folder: Data"):
        catalog.finish_listing(version)
    catalog.close()


def test_a_file_that_is_a_folder_is_refused(path: Path) -> None:
    """A blob with bytes that is also the folder of another stops the listing."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    add(catalog, version, "a", "a/b", folders=("a",))
    with pytest.raises(DestinationError, match="both a file and a folder: a"):
        catalog.finish_listing(version)
    assert not catalog.versions()[0].listing.is_complete
    catalog.close()


def test_folder_placeholders_leave(path: Path) -> None:
    """An empty blob that is the folder of others leaves the inventory; other empty blobs stay."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    add(catalog, version, Blob("a", 0), "a/b", Blob("empty", 0), folders=("a",))
    assert catalog.finish_listing(version) == []
    assert names(catalog, version) == ["a/b", "empty"]
    assert catalog.versions()[0].listing.is_complete
    catalog.close()


# --- listing again ---


def test_relisting_keeps_and_drops(path: Path) -> None:
    """A new listing keeps stored files, wants the rest, and returns the names that are gone."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    add(catalog, version, "kept", "changed", "gone", "unseen")
    store_all(catalog, version)
    assert catalog.finish_listing(version) == []
    held = catalog.find_stored(version, ["kept"])["kept"]
    version = relist(catalog, version)
    page = [
        (Blob("kept", 1, "e2"), StoredFile(Blob("kept", 1), SHA, 5)),
        (Blob("changed", 2), None),
        (Blob("new", 1), None),
    ]
    catalog.add_page(version, page, [])
    assert names(catalog, version) == ["changed", "new"]
    assert sorted(catalog.finish_listing(version)) == ["gone", "unseen"]
    assert names(catalog, version) == ["changed", "new"]
    assert catalog.find_stored(version, ["kept", "gone"]) == {"kept": held._replace(blob=Blob("kept", 1, "e2"))}
    assert catalog.compute_totals(version) == Totals(3, 4, 1, 1)
    catalog.close()


def test_relisted_names_come_behind(path: Path) -> None:
    """A reader that pages by id meets every name of the new listing, also known ones."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    add(catalog, version, "a", "b", "c")
    version = relist(catalog, version)
    seen: list[str] = []
    after = 0
    for name in ("c", "b", "a", "d"):
        add(catalog, version, name)
        rows = catalog.list_wanted(version, after, limit=9, empty=False)
        seen += [blob.name for _, blob in rows]
        after = rows[-1][0]
    assert seen == ["c", "b", "a", "d"]
    catalog.close()


@pytest.mark.parametrize("size", [0, 1])
def test_what_was_a_folder_may_become_a_file(path: Path, size: int) -> None:
    """Only the current listing decides which names are files and which are folders."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    add(catalog, version, "a/b", folders=("a",))
    catalog.finish_listing(version)
    version = relist(catalog, version)
    add(catalog, version, Blob("a", size))
    assert catalog.finish_listing(version) == ["a/b"]
    assert names(catalog, version) == ["a"]
    version = relist(catalog, version)
    add(catalog, version, "a/b", folders=("a",))
    assert catalog.finish_listing(version) == ["a"]
    assert names(catalog, version) == ["a/b"]
    catalog.close()


def test_relisting_refuses_doubles_too(path: Path) -> None:
    """A name listed twice is also refused in a second listing, and stored files stay stored."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    add(catalog, version, "a")
    store_all(catalog, version)
    version = relist(catalog, version)
    with pytest.raises(Incomplete):
        add(catalog, version, "a", "a")
    assert list(catalog.find_stored(version, ["a"])) == ["a"]
    catalog.close()


def test_relisting_keeps_what_files_are(path: Path) -> None:
    """A file that a new listing keeps has the same kind and references as before."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    add(catalog, version, "tileset.json", "s.subtree", "changed")
    readings = {
        "tileset_json": tileset_content("s.subtree", implicit=True),
        "s_subtree": tileset_content("x", kind=Kind.SUBTREE),
    }
    store_files(catalog, version, **readings, changed=tileset_content("tileset.json", implicit=True))
    catalog.finish_listing(version)
    version = relist(catalog, version)
    kept = catalog.find_stored(version, ["tileset.json", "s.subtree"])
    catalog.add_page(version, [(Blob("changed", 2), None), *((held.blob, held) for held in kept.values())], [])
    catalog.finish_listing(version)
    assert [key for key, _ in catalog.list_stored(version, limit=9, kinds=DOCUMENTS)] == ["s.subtree", "tileset.json"]
    assert catalog.references.list_implicit_tilesets(version) == ["tileset.json"]
    assert catalog.references.list_targets(version, "s.subtree", Role.CONTENT) == ["x"]
    assert catalog.references.list_tileset_references(version) == []
    catalog.close()


def test_references_of_gone_files_are_dropped(path: Path) -> None:
    """References of files that left the listing are dropped; those of other files are not."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    add(catalog, version, "tileset.json", "gone.json")
    store_files(catalog, version, tileset_json=tileset_content("a"), gone_json=tileset_content("b"))
    catalog.finish_listing(version)
    version = relist(catalog, version)
    (held,) = catalog.find_stored(version, ["tileset.json"]).values()
    catalog.add_page(version, [(held.blob, held)], [])
    assert catalog.finish_listing(version) == ["gone.json"]
    assert catalog.references.list_targets(version, "gone.json", Role.CONTENT) == []
    assert catalog.references.find_referrers(version, ["a", "b"]) == {"a": "tileset.json"}
    catalog.close()


NAMES = st.lists(st.sampled_from(["a", "A", "a/b", "b", "c/d/e", "ä", "z"]), unique=True)


@given(st.lists(NAMES, max_size=4))
@settings(max_examples=40)
def test_the_last_listing_is_the_inventory(listings: list[list[str]]) -> None:
    """After any listings the inventory is the last one, in its order, and each gone name was returned once."""
    catalog = Catalog(Path(":memory:"))
    version, before = catalog.add_version(NEW), set[str]()
    for listed in listings:
        version = relist(catalog, version)
        for name in listed:
            add(catalog, version, name)
        assert set(catalog.finish_listing(version)) == before - set(listed)
        assert names(catalog, version) == listed
        before = set(listed)
    catalog.close()


# --- walking ---


def test_a_walk_wants_the_references_of_arrived_files(path: Path) -> None:
    """References of an arrived file become wanted once, by name only; the number of new ones is returned."""
    catalog = Catalog(path)
    version = catalog.add_version(WALKED)
    catalog.add_wanted(version, "tileset.json")
    assert wanted(catalog, version) == ["tileset.json"]
    assert store_files(catalog, version, tileset_json=tileset_content("b.json", "a", "tileset.json")) == 2
    assert [blob for _, blob in catalog.list_wanted(version, 0, limit=9)] == [
        Blob("a", UNKNOWN_SIZE),
        Blob("b.json", UNKNOWN_SIZE),
    ]
    assert store_files(catalog, version, b_json=tileset_content("a", "tileset.json", "b.json", "c")) == 1
    assert wanted(catalog, version) == ["a", "c"]
    assert catalog.compute_totals(version) == Totals(4, 10, 2, 10)
    catalog.close()


def test_a_walk_reads_on_by_id(path: Path) -> None:
    """New wanted files come after everything that a reader has met."""
    catalog = Catalog(path)
    version = catalog.add_version(WALKED)
    catalog.add_wanted(version, "m")
    seen: list[str] = []
    after, readings = 0, {"m": tileset_content("z", "b"), "z": tileset_content("a", "b"), "a": tileset_content("m")}
    while rows := catalog.list_wanted(version, after, limit=9):
        seen += [blob.name for _, blob in rows]
        after = rows[-1][0]
        store_files(catalog, version, **{blob.name: readings.get(blob.name, ParsedContent()) for _, blob in rows})
    assert seen == ["m", "b", "z", "a"]
    assert catalog.compute_totals(version).stored_files == 4
    catalog.close()


def test_wanting_twice_is_wanting_once(path: Path) -> None:
    """A known name is not added again, whether it is wanted, stored or missing."""
    catalog = Catalog(path)
    version = catalog.add_version(WALKED)
    for name in ("held", "missing", "wanted"):
        catalog.add_wanted(version, name)
    store_files(catalog, version, held=tileset_content("held", "missing", "wanted"))
    catalog.mark_missing(version, [number_of(catalog, version, "missing")])
    for name in ("held", "missing", "wanted"):
        catalog.add_wanted(version, name)
    assert catalog.add_wanted_references(version, "held") == 0
    assert wanted(catalog, version) == ["wanted"]
    catalog.close()


def test_a_listed_version_wants_nothing_by_itself(path: Path) -> None:
    """Where the listing is the inventory, arriving files add nothing to it."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    add(catalog, version, "tileset.json")
    assert store_files(catalog, version, tileset_json=tileset_content("a", "b")) == 0
    assert wanted(catalog, version) == []
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
    assert wanted(catalog, version) == ["a", "b", "c"]
    catalog.close()


def test_missing_files_are_not_in_the_inventory(path: Path) -> None:
    """A missing file is not wanted, counted or stored, until it is wanted again."""
    catalog = Catalog(path)
    version = catalog.add_version(WALKED)
    catalog.add_wanted(version, "tileset.json")
    store_files(catalog, version, tileset_json=tileset_content("a", "b"))
    catalog.mark_missing(version, [number_of(catalog, version, "a")])
    assert wanted(catalog, version) == ["b"]
    assert catalog.compute_totals(version) == Totals(2, 5, 1, 5)
    assert catalog.find_stored(version, ["a"]) == {}
    catalog.close()
    catalog = Catalog(path)
    catalog.mark_missing_wanted(version)
    assert wanted(catalog, version) == ["a", "b"]
    assert catalog.compute_totals(version) == Totals(3, 5, 1, 5)
    catalog.close()


def test_mark_missing_wanted_leaves_other_versions_alone(path: Path) -> None:
    """Missing files of one version stay missing when another version wants its own again."""
    catalog = Catalog(path)
    one, two = catalog.add_version(WALKED), catalog.add_version(replace(WALKED, name="e2"))
    for version in (one, two):
        catalog.add_wanted(version, "a")
        catalog.mark_missing(version, [number_of(catalog, version, "a")])
    catalog.mark_missing_wanted(two)
    assert (wanted(catalog, one), wanted(catalog, two)) == ([], ["a"])
    catalog.close()


def test_a_second_walk_wants_everything_anew(path: Path) -> None:
    """A second walk wants known files again as it reaches them, after all that a reader has met."""
    catalog = Catalog(path)
    version = catalog.add_version(WALKED)
    catalog.add_wanted(version, "tileset.json")
    store_files(catalog, version, tileset_json=tileset_content("gone.json", "a", "lost"))
    store_files(catalog, version, gone_json=tileset_content("g"), a=ParsedContent())
    catalog.mark_missing(version, [number_of(catalog, version, "lost")])
    catalog.finish_listing(version)
    version = relist(catalog, version)
    assert wanted(catalog, version) == []
    catalog.add_wanted(version, "tileset.json")
    first = number_of(catalog, version, "tileset.json")
    assert catalog.find_stored(version, ["tileset.json"]) == {}
    assert store_files(catalog, version, tileset_json=tileset_content("a", "new", "lost")) == 3
    assert min(number for number, _ in catalog.list_wanted(version, 0, limit=9)) > first
    assert wanted(catalog, version) == ["a", "lost", "new"]
    assert (
        store_files(catalog, version, a=tileset_content("tileset.json"), new=ParsedContent(), lost=ParsedContent()) == 0
    )
    assert sorted(catalog.finish_listing(version)) == ["g", "gone.json"]
    assert wanted(catalog, version) == []
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
    catalog.mark_missing(version, [number_of(catalog, version, "a.json")])
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
    arrival = FileResult(number, StoredFile(blob._replace(size=1), SHA, 7), tileset_content("A.glb", "TILESET.json"))
    assert catalog.mark_stored(version, [arrival]) == 1
    assert catalog.add_wanted_references(version, "tileset.JSON") == 0
    catalog.add_wanted(version, "a.GLB")
    assert wanted(catalog, version) == ["A.glb"]
    catalog.close()


@st.composite
def containers(draw: st.DrawFn) -> list[dict[str, list[str]]]:
    """Generate container contents and references of each file, one state after another."""
    names = ["r", "a", "b", "c", "d", "e"]
    several = st.lists(st.sampled_from(names), max_size=4)
    held = st.dictionaries(st.sampled_from(names[1:]), several)
    return [draw(held) | {"r": draw(several)} for _ in range(draw(st.integers(1, 3)))]


@given(containers(), st.integers(1, 3))
@settings(max_examples=80)
def test_walks_find_what_can_be_reached(times: list[dict[str, list[str]]], portion: int) -> None:
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
            readings = [tileset_content(*container[blob.name]) for _, blob in there]
            held = [StoredFile(blob._replace(size=1), SHA, 1) for _, blob in there]
            catalog.mark_stored(
                version,
                [FileResult(n, h, r) for (n, _), h, r in zip(there, held, readings, strict=True)],
            )
        assert sorted(requested) == sorted(reached)
        assert set(catalog.finish_listing(version)) == before - reached
        assert {key for key, _ in catalog.list_stored(version, limit=99)} == reached & container.keys()
        asked_for = {(source, target) for source in reached & container.keys() for target in container[source]}
        assert set(catalog.query("SELECT source, target FROM reference")) == asked_for
        before = reached
    catalog.close()


# --- the file ---


def test_reading_only_writes_nothing(path: Path) -> None:
    """A read-only catalog changes no byte and makes no file, also where a killed run left its journal."""
    code = f"""
import os
from pathlib import Path
from tilesync.catalog.catalog import Catalog
catalog = Catalog(Path({str(path)!r}))
catalog.set_value("fact", "yes")
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert path.with_name(path.name + "-wal").stat().st_size > 0

    def state() -> dict[str, tuple[bytes, int]]:
        return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in path.parent.iterdir()}

    before = state()
    catalog = Catalog(path, read_only=True)
    assert catalog.get_value("fact") == "yes"
    assert not catalog.is_new
    catalog.close()
    assert state() == before


def test_reading_a_missing_catalog(path: Path) -> None:
    """A missing or empty catalog file reads as an empty catalog, and stays so."""
    for _ in range(2):
        catalog = Catalog(path, read_only=True)
        assert catalog.versions() == []
        catalog.close()
        assert not path.exists() or path.stat().st_size == 0
        path.touch()


def test_a_damaged_catalog(path: Path) -> None:
    """A file that is not a database is an error with a hint, for readers too."""
    path.write_bytes(b"this is no database, but long enough to be looked at " * 50)
    for read_only in (False, True):
        with pytest.raises(DestinationError, match="damaged") as error:
            Catalog(path, read_only=read_only)
        assert f"delete {path}" in error.value.hint


def test_a_newer_catalog(path: Path) -> None:
    """A catalog of a later schema is refused with the hint to upgrade."""
    catalog = Catalog(path)
    catalog.set_value("schema", str(SCHEMA_VERSION + 1))
    catalog.close()
    with pytest.raises(DestinationError, match="newer tilesync"):
        Catalog(path)


SCHEMA_OF_0_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE version (
  serial INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, export TEXT NOT NULL, imodel TEXT, changeset TEXT,
  modified TEXT NOT NULL, record TEXT NOT NULL, listing INTEGER NOT NULL,
  listed INTEGER NOT NULL DEFAULT 0, marker TEXT,
  damaged INTEGER NOT NULL DEFAULT 0, published TEXT, files INTEGER NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL DEFAULT 0, manifest_sha256 TEXT);
CREATE TABLE blob (
  id INTEGER PRIMARY KEY, version INTEGER NOT NULL, key TEXT NOT NULL, name TEXT, size INTEGER NOT NULL,
  etag TEXT NOT NULL, md5 BLOB, content_type TEXT, content_encoding TEXT, last_modified INTEGER,
  listing INTEGER NOT NULL, state INTEGER NOT NULL, sha256 BLOB, mtime_ns INTEGER);
CREATE UNIQUE INDEX blob_key ON blob (version, key);
CREATE TABLE folder (version INTEGER NOT NULL, key TEXT NOT NULL, listing INTEGER NOT NULL, PRIMARY KEY (version, key))
  WITHOUT ROWID;
INSERT INTO meta VALUES ('schema', '1'), ('adopted', 'yes'), ('folds', 'yes'), ('boot', 'b');
INSERT INTO version (serial, name, export, modified, record, listing) VALUES (1, 'e1', 'e1', '', '{}', 1);
INSERT INTO blob (version, key, size, etag, listing, state) VALUES (1, 'a', 1, '', 1, 1);
"""
"""A catalog of tilesync 0.1."""


@pytest.mark.parametrize("left", ["whole", "emptied half-way", "without a schema"])
def test_an_older_catalog_is_emptied(path: Path, left: str) -> None:
    """A catalog of an earlier schema is emptied and is new, also after a kill in between; then it works."""
    with sqlite3.connect(path) as db:
        db.executescript(SCHEMA_OF_0_1)
        if left == "emptied half-way":
            db.executescript("DROP TABLE meta; DROP TABLE version")
        if left == "without a schema":
            db.execute("DELETE FROM meta WHERE key = 'schema'")
    db.close()
    catalog = Catalog(path)
    assert catalog.is_new
    assert catalog.versions() == []
    assert [catalog.get_value(key) for key in ("adopted", "boot", "schema")] == [None, None, str(SCHEMA_VERSION)]
    assert not catalog.is_case_insensitive
    version = catalog.add_version(WALKED)
    catalog.add_wanted(version, "tileset.json")
    assert store_files(catalog, version, tileset_json=tileset_content("a")) == 1
    catalog.close()
    catalog = Catalog(path)
    assert not catalog.is_new
    assert catalog.versions() == [version]
    catalog.close()


def test_reading_an_older_catalog_leaves_it(path: Path) -> None:
    """An older catalog that is opened read-only reads as an empty one, and no byte of it changes."""
    with sqlite3.connect(path) as db:
        db.executescript(SCHEMA_OF_0_1)
    db.close()
    before = path.read_bytes()
    catalog = Catalog(path, read_only=True)
    assert (catalog.is_new, catalog.versions(), catalog.get_value("adopted")) == (True, [], None)
    catalog.close()
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_planted_symlink(path: Path, tmp_path: Path) -> None:
    """A symlink in place of the catalog is refused, and nothing is written to its target."""
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DestinationError, match="symlink"):
        Catalog(path)
    assert os.listdir(tmp_path) == [path.name]


WRITE = """
import sys
from dataclasses import replace
from pathlib import Path
from tilesync.model import *
from tilesync.catalog.catalog import Catalog
catalog = Catalog(Path(sys.argv[1]))
version = catalog.add_version(Version(0, "e1", "e1"))
for page in range(10**6):
    blobs = [Blob(f"{page}/{number}", 1) for number in range(50)]
    listed = replace(version, listing=ListingState(marker=str(page)))
    catalog.add_page(listed, [(blob, None) for blob in blobs], [str(page)])
    rows = catalog.list_wanted(version, 0, limit=50, empty=False)
    content = ParsedContent(references=(Reference("x", Role.CONTENT),), diagnostics=(Diagnostic("p", "d"),))
    catalog.mark_stored(version, [FileResult(number, StoredFile(blob, b"s" * 32, 1), content) for number, blob in rows])
    print(page, flush=True)
"""


@pytest.mark.parametrize("pages", [1, 7, 40])
def test_a_kill_leaves_whole_batches(path: Path, pages: int) -> None:
    """A process killed while writing leaves a sound catalog with all batches that it reported, each whole."""
    with subprocess.Popen([sys.executable, "-c", WRITE, path], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(pages):
            reported = int(writer.stdout.readline())
        writer.kill()
    catalog = Catalog(path)
    (version,) = catalog.versions()
    totals = catalog.compute_totals(version)
    assert (totals.files % 50, totals.stored_files % 50) == (0, 0)
    assert totals.files - totals.stored_files in {0, 50}
    assert totals.stored_files >= 50 * (reported + 1)
    assert version.listing.marker == str(totals.files // 50 - 1)
    held = {key for key, _ in catalog.list_stored(version, limit=10**6)}
    for table in ("reference", "remark"):
        assert {row[0] for row in catalog.query(f"SELECT source FROM {table}")} == held
    add(catalog, version, "one more")
    catalog.close()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


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
    held = {key for key, _ in catalog.list_stored(version, limit=10**6)}
    assert len(held) >= reported
    known = {row[0] for row in catalog.query("SELECT key FROM blob")}
    for name in held:
        assert catalog.references.list_targets(version, name, Role.CONTENT) == [name + letter for letter in "abc"]
        assert {name + letter for letter in "abc"} <= known
    catalog.mark_missing_wanted(version)
    assert len(wanted(catalog, version)) == min(100, len(known - held))
    catalog.close()


SCHEMA_3 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE version (
  serial INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, export TEXT NOT NULL, imodel TEXT, changeset TEXT,
  modified TEXT NOT NULL, record TEXT NOT NULL, listing INTEGER NOT NULL, listed INTEGER NOT NULL, marker TEXT,
  damaged INTEGER NOT NULL, published TEXT, files INTEGER NOT NULL, bytes INTEGER NOT NULL, manifest_sha256 TEXT,
  inventory TEXT NOT NULL, home TEXT NOT NULL, include TEXT NOT NULL, exclude TEXT NOT NULL,
  referenced INTEGER NOT NULL, missing INTEGER NOT NULL, orphans INTEGER NOT NULL, unfollowed INTEGER NOT NULL,
  begun TEXT NOT NULL, left_at TEXT, retired TEXT);
CREATE TABLE blob (
  id INTEGER PRIMARY KEY, version INTEGER NOT NULL, key TEXT NOT NULL, name TEXT, size INTEGER,
  etag TEXT NOT NULL, md5 BLOB, content_type TEXT, content_encoding TEXT, last_modified INTEGER,
  listing INTEGER NOT NULL, state INTEGER NOT NULL, sha256 BLOB, mtime_ns INTEGER, inode INTEGER,
  kind TEXT NOT NULL DEFAULT '', implicit INTEGER NOT NULL DEFAULT 0);
CREATE UNIQUE INDEX blob_key ON blob (version, key);
CREATE TABLE folder (version INTEGER NOT NULL, key TEXT NOT NULL, listing INTEGER NOT NULL, PRIMARY KEY (version, key))
  WITHOUT ROWID;
CREATE TABLE reference (version INTEGER NOT NULL, source TEXT NOT NULL, target TEXT NOT NULL, role TEXT NOT NULL,
  name TEXT, grown INTEGER NOT NULL, PRIMARY KEY (version, source, target, role)) WITHOUT ROWID;
INSERT INTO meta VALUES ('schema', '3'), ('adopted', 'yes'), ('boot', 'b');
INSERT INTO version VALUES (5, 'e1', 'e1', 'i', 'c', '2026', '{"id": "e1"}', 2, 1, NULL, 0, 'then', 2, 4, 'm',
  'list', 'https://host/container', '["*.glb"]', '[]', 4, 3, 2, 1, 'begun', 'left', NULL);
INSERT INTO blob VALUES (1, 5, 'a', NULL, 3, 'tag', x'6d', 't', 'gzip', 99, 2, 1, x'73', 7, 8, 'glb', 0),
  (2, 5, 'b', NULL, 1, '', NULL, NULL, NULL, NULL, 2, 0, x'74', NULL, NULL, '', 0);
"""
"""A catalog of schema 3, before files could lie unpacked."""


@pytest.mark.parametrize("read_only", [False, True])
def test_migration_from_schema_3(path: Path, read_only: bool) -> None:
    """Migration keeps every row, all files as stored; the catalog is not new, and works."""
    with sqlite3.connect(path) as db:
        db.executescript(SCHEMA_3)
    db.close()
    for _ in range(2):
        catalog = Catalog(path, read_only=read_only)
        assert not catalog.is_new
        assert [catalog.get_value(key) for key in ("adopted", "boot", "schema")] == ["yes", "b", str(SCHEMA_VERSION)]
        (version,) = catalog.versions()
        assert version == Version(
            5, "e1", "e1", "i", "c", "2026", {"id": "e1"}, ListingState(2, True), False, "then", 2, 4, "m", "list",
            "https://host/container", Globs(("*.glb",)), Completeness(4, 3, 2, 1), "begun", "left", None,
            Content.STORED,
        )  # fmt: skip
        assert catalog.list_stored(version, limit=9) == [
            ("a", StoredFile(Blob("a", 3, "tag", b"m", "t", "gzip", 99), b"s", 7, 8))
        ]
        assert catalog.list_wanted(version, 0, limit=9) == [(2, Blob("b", 1, sha256=b"t"))]
        assert catalog.compute_totals(version) == Totals(2, 4, 1, 3)
        catalog.close()
    catalog = Catalog(path)
    newer = catalog.add_version(replace(NEW, name="e1-2", content=Content.DECODED))
    held = StoredFile(FULL, b"lies" * 8, 7, 8, UnpackedFile(99, b"were" * 8))
    catalog.add_stored_files(newer, [FileResult(0, held)])
    catalog.close()
    catalog = Catalog(path)
    assert [version.content for version in catalog.versions()] == [Content.STORED, Content.DECODED]
    assert catalog.find_stored(newer, [FULL.name]) == {FULL.name: held}


def test_a_failed_migration_is_repeated(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration that fails half-way leaves the old schema; the next try completes it."""
    with sqlite3.connect(path) as db:
        db.executescript(SCHEMA_3)
    db.close()
    steps = {3: (*MIGRATIONS[3][:2], "this is no statement")}
    with monkeypatch.context() as patched:
        patched.setattr("tilesync.catalog.schema.MIGRATIONS", steps)
        with pytest.raises(DestinationError):
            Catalog(path)
    catalog = Catalog(path)
    assert (catalog.is_new, len(catalog.versions()), catalog.get_value("schema")) == (False, 1, str(SCHEMA_VERSION))
