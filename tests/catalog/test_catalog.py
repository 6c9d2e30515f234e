"""Catalog: listings, stored files, and the catalog file."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.catalog_rows import (
    FULL,
    NEW,
    SHA,
    add_blobs,
    names_in_listing_order,
    relist,
    store_files,
    tileset_content,
)
from tests.support.examples import examples
from tilesync.catalog.catalog import Catalog
from tilesync.catalog.schema import EMPTY, NOT_EMPTY
from tilesync.errors import DestinationError, Incomplete
from tilesync.model import (
    Blob,
    FileResult,
    Kind,
    ListingState,
    ParsedContent,
    Role,
    StoredFile,
    Totals,
    Version,
)

DOCUMENTS = (Kind.TILESET, Kind.SUBTREE)


def store_all(catalog: Catalog, version: Version) -> None:
    rows = catalog.list_wanted(version, 0, limit=100, sizes=NOT_EMPTY)
    catalog.mark_stored(version, [FileResult(number, StoredFile(blob, SHA, 5)) for number, blob in rows])


# --- inventory ---


def test_listed_blobs_are_read_back(path: Path) -> None:
    """Blobs come back with every listed property, in listing order, with the marker of the page."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    catalog.add_page(replace(version, listing=ListingState(marker="next")), [(FULL, None), (Blob("0", 1), None)], ["a"])
    catalog.close()
    catalog = Catalog(path)
    assert [blob for _, blob in catalog.list_wanted(version, 0, limit=9, sizes=NOT_EMPTY)] == [FULL, Blob("0", 1)]
    assert catalog.versions()[0].listing.marker == "next"
    catalog.close()


def test_wanted_is_read_in_portions(path: Path) -> None:
    """Wanted files are read from an id on, up to a limit; empty blobs can be read separately."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    add_blobs(catalog, version, "c", "b", Blob("empty", 0), "a")
    seen, after = [], 0
    while rows := catalog.list_wanted(version, after, limit=2, sizes=NOT_EMPTY):
        assert len(rows) <= 2
        seen += [blob.name for _, blob in rows]
        after = rows[-1][0]
    assert seen == ["c", "b", "a"]
    assert [blob.name for _, blob in catalog.list_wanted(version, 0, limit=9, sizes=EMPTY)] == ["empty"]
    catalog.close()


def test_stored_files(path: Path) -> None:
    """A stored file is no longer wanted, is found by name and in key order, and survives reopening."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    add_blobs(catalog, version, "c", FULL, "b")
    (number, blob), *_ = catalog.list_wanted(version, 1, limit=1, sizes=NOT_EMPTY)
    catalog.mark_stored(version, [FileResult(number, StoredFile(blob, SHA, 7))])
    catalog.close()
    catalog = Catalog(path)
    assert names_in_listing_order(catalog, version) == ["c", "b"]
    assert catalog.find_stored(version, ["b", FULL.name, "nothing"]) == {FULL.name: StoredFile(FULL, SHA, 7)}
    assert catalog.list_stored(version, limit=9) == [(FULL.name, StoredFile(FULL, SHA, 7))]
    assert catalog.compute_totals(version) == Totals(3, 5, 1, 3)
    catalog.close()


def test_stored_files_are_read_in_portions(path: Path) -> None:
    """Stored files are read in key order, after the last key."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    add_blobs(catalog, version, "b", "a/b", "a", "ä")
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
    add_blobs(catalog, version, "a", "b")
    store_all(catalog, version)
    catalog.mark_wanted(version, ["a", "nothing"])
    assert names_in_listing_order(catalog, version) == ["a"]
    assert catalog.compute_totals(version) == Totals(2, 2, 1, 1)
    catalog.close()


def test_versions_do_not_mix(path: Path) -> None:
    """The same name in two versions is two files."""
    catalog = Catalog(path)
    one, two = catalog.add_version(NEW), catalog.add_version(replace(NEW, name="e2"))
    add_blobs(catalog, one, "a")
    add_blobs(catalog, two, "a")
    store_all(catalog, one)
    assert (names_in_listing_order(catalog, one), names_in_listing_order(catalog, two)) == ([], ["a"])
    assert catalog.finish_listing(two) == []
    assert catalog.compute_totals(one) == Totals(1, 1, 1, 1)
    catalog.close()


def test_any_spelling_is_found_at_once(path: Path) -> None:
    """On a case-insensitive disk, two spellings of one name are both found in one lookup."""
    catalog = Catalog(path)
    catalog.set_case_insensitive(is_case_insensitive=True)
    version = catalog.add_version(NEW)
    add_blobs(catalog, version, "Tile.glb")
    store_all(catalog, version)
    result = catalog.find_stored(version, ["tile.glb", "TILE.GLB", "other"])
    assert {name: stored.blob.name for name, stored in result.items()} == {
        "tile.glb": "Tile.glb",
        "TILE.GLB": "Tile.glb",
    }
    catalog.close()


def test_files_added_as_stored(path: Path) -> None:
    """Files added as stored have their kind and references; their `file_id` is ignored."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    results = [
        FileResult(77, StoredFile(FULL, SHA, 5), tileset_content("b", implicit=True)),
        FileResult(77, StoredFile(Blob("b", 2), SHA, 6), tileset_content(kind=Kind.SUBTREE)),
        FileResult(77, StoredFile(Blob("c", 2), SHA, 6), ParsedContent(Kind.GLB)),
    ]
    catalog.add_stored_files(version, results)
    assert catalog.list_stored(version, limit=9) == [(a.stored.blob.name, a.stored) for a in results]
    assert catalog.list_stored(version, limit=9, kinds=DOCUMENTS) == [
        (a.stored.blob.name, a.stored) for a in results[:2]
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
    add_blobs(catalog, version, *first)
    with pytest.raises(Incomplete, match="twice"):
        add_blobs(
            catalog,
            replace(version, listing=replace(version.listing, marker="m")),
            "new",
            "a",
            "more",
            *([] if first else ["a"]),
            folders=("f",),
        )
    assert names_in_listing_order(catalog, version) == first
    assert catalog.versions()[0].listing.marker is None
    add_blobs(catalog, version, Blob("f", 5))
    assert catalog.finish_listing(version) == []
    catalog.close()


@pytest.mark.parametrize(("one", "other"), [("Tile.glb", "tile.GLB"), ("straße", "STRASSE"), ("e\u0301", "é")])
def test_names_that_differ_only_in_case(path: Path, one: str, other: str) -> None:
    """On a case-insensitive disk, names that differ only in case are refused, both named; elsewhere they are two."""
    catalog = Catalog(path)
    plain = catalog.add_version(NEW)
    add_blobs(catalog, plain, one, other)
    assert names_in_listing_order(catalog, plain) == [one, other]
    catalog.set_case_insensitive(is_case_insensitive=True)
    version = catalog.add_version(replace(NEW, name="folded"))
    with pytest.raises(Incomplete) as error:
        add_blobs(catalog, version, one, other)
    assert one in str(error.value)
    assert other in str(error.value)
    assert names_in_listing_order(catalog, version) == []
    add_blobs(catalog, version, one)
    with pytest.raises(Incomplete):
        add_blobs(catalog, version, other)
    catalog.close()


def test_case_folding_keeps_names(path: Path) -> None:
    """On a case-insensitive disk a name keeps the spelling of the container and is found by any spelling."""
    catalog = Catalog(path)
    catalog.set_case_insensitive(is_case_insensitive=True)
    version = catalog.add_version(NEW)
    add_blobs(catalog, version, "Tile.GLB")
    store_all(catalog, version)
    assert [stored.blob.name for stored in catalog.find_stored(version, ["Tile.GLB"]).values()] == ["Tile.GLB"]
    catalog.mark_wanted(version, ["Tile.GLB"])
    assert names_in_listing_order(catalog, version) == ["Tile.GLB"]
    catalog.close()
    assert Catalog(path).is_case_insensitive


def test_folded_folders_clash(path: Path) -> None:
    """On a case-insensitive disk a file clashes with a folder that differs only in case."""
    catalog = Catalog(path)
    catalog.set_case_insensitive(is_case_insensitive=True)
    version = catalog.add_version(NEW)
    add_blobs(catalog, version, "Data", "data/a", folders=("data",))
    with pytest.raises(DestinationError, match="both a file and a folder: Data"):
        catalog.finish_listing(version)
    catalog.close()


def test_a_file_that_is_a_folder_is_refused(path: Path) -> None:
    """A blob with bytes that is also the folder of another stops the listing."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    add_blobs(catalog, version, "a", "a/b", folders=("a",))
    with pytest.raises(DestinationError, match="both a file and a folder: a"):
        catalog.finish_listing(version)
    assert not catalog.versions()[0].listing.is_complete
    catalog.close()


def test_folder_placeholders_are_not_in_the_inventory(path: Path) -> None:
    """An empty blob that is the folder of others leaves the inventory; other empty blobs stay."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    add_blobs(catalog, version, Blob("a", 0), "a/b", Blob("empty", 0), folders=("a",))
    assert catalog.finish_listing(version) == []
    assert names_in_listing_order(catalog, version) == ["a/b", "empty"]
    assert catalog.versions()[0].listing.is_complete
    catalog.close()


# --- listing again ---


def test_relisting_keeps_and_drops(path: Path) -> None:
    """A new listing keeps stored files, wants the rest, and returns the names that are gone."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    add_blobs(catalog, version, "kept", "changed", "gone", "unseen")
    store_all(catalog, version)
    assert catalog.finish_listing(version) == []
    stored = catalog.find_stored(version, ["kept"])["kept"]
    version = relist(catalog, version)
    page = [
        (Blob("kept", 1, "e2"), StoredFile(Blob("kept", 1), SHA, 5)),
        (Blob("changed", 2), None),
        (Blob("new", 1), None),
    ]
    catalog.add_page(version, page, [])
    assert names_in_listing_order(catalog, version) == ["changed", "new"]
    assert sorted(catalog.finish_listing(version)) == ["gone", "unseen"]
    assert names_in_listing_order(catalog, version) == ["changed", "new"]
    assert catalog.find_stored(version, ["kept", "gone"]) == {"kept": stored._replace(blob=Blob("kept", 1, "e2"))}
    assert catalog.compute_totals(version) == Totals(3, 4, 1, 1)
    catalog.close()


def test_paging_by_id_covers_names_that_were_listed_before(path: Path) -> None:
    """A reader that pages by id gets every name of the new listing, even names that were listed before."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    add_blobs(catalog, version, "a", "b", "c")
    version = relist(catalog, version)
    seen: list[str] = []
    after = 0
    for name in ("c", "b", "a", "d"):
        add_blobs(catalog, version, name)
        rows = catalog.list_wanted(version, after, limit=9, sizes=NOT_EMPTY)
        seen += [blob.name for _, blob in rows]
        after = rows[-1][0]
    assert seen == ["c", "b", "a", "d"]
    catalog.close()


@pytest.mark.parametrize("size", [0, 1])
def test_a_new_listing_may_turn_a_folder_into_a_file(path: Path, size: int) -> None:
    """Only the current listing decides which names are files and which are folders."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    add_blobs(catalog, version, "a/b", folders=("a",))
    catalog.finish_listing(version)
    version = relist(catalog, version)
    add_blobs(catalog, version, Blob("a", size))
    assert catalog.finish_listing(version) == ["a/b"]
    assert names_in_listing_order(catalog, version) == ["a"]
    version = relist(catalog, version)
    add_blobs(catalog, version, "a/b", folders=("a",))
    assert catalog.finish_listing(version) == ["a"]
    assert names_in_listing_order(catalog, version) == ["a/b"]
    catalog.close()


def test_relisting_refuses_doubles_too(path: Path) -> None:
    """A name listed twice is also refused in a second listing, and stored files stay stored."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    add_blobs(catalog, version, "a")
    store_all(catalog, version)
    version = relist(catalog, version)
    with pytest.raises(Incomplete):
        add_blobs(catalog, version, "a", "a")
    assert list(catalog.find_stored(version, ["a"])) == ["a"]
    catalog.close()


def test_relisting_keeps_kinds_and_references(path: Path) -> None:
    """A file that a new listing keeps has the same kind and references as before."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    add_blobs(catalog, version, "tileset.json", "s.subtree", "changed")
    contents = {
        "tileset_json": tileset_content("s.subtree", implicit=True),
        "s_subtree": tileset_content("x", kind=Kind.SUBTREE),
    }
    store_files(catalog, version, **contents, changed=tileset_content("tileset.json", implicit=True))
    catalog.finish_listing(version)
    version = relist(catalog, version)
    before = catalog.find_stored(version, ["tileset.json", "s.subtree"])
    catalog.add_page(version, [(Blob("changed", 2), None), *((stored.blob, stored) for stored in before.values())], [])
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
    add_blobs(catalog, version, "tileset.json", "gone.json")
    store_files(catalog, version, tileset_json=tileset_content("a"), gone_json=tileset_content("b"))
    catalog.finish_listing(version)
    version = relist(catalog, version)
    (stored,) = catalog.find_stored(version, ["tileset.json"]).values()
    catalog.add_page(version, [(stored.blob, stored)], [])
    assert catalog.finish_listing(version) == ["gone.json"]
    assert catalog.references.list_targets(version, "gone.json", Role.CONTENT) == []
    assert catalog.references.find_referrers(version, ["a", "b"]) == {"a": "tileset.json"}
    catalog.close()


NAMES = st.lists(st.sampled_from(["a", "A", "a/b", "b", "c/d/e", "ä", "z"]), unique=True)


@given(st.lists(NAMES, max_size=4))
@examples(40)
def test_the_last_listing_is_the_inventory(listings: list[list[str]]) -> None:
    """After any listings the inventory is the last one, in its order, and each gone name was returned once."""
    catalog = Catalog(Path(":memory:"))
    version, before = catalog.add_version(NEW), set[str]()
    for listed in listings:
        version = relist(catalog, version)
        for name in listed:
            add_blobs(catalog, version, name)
        assert set(catalog.finish_listing(version)) == before - set(listed)
        assert names_in_listing_order(catalog, version) == listed
        before = set(listed)
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
    rows = catalog.list_wanted(version, 0, limit=50)
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
    stored = {key for key, _ in catalog.list_stored(version, limit=10**6)}
    for table in ("reference", "remark"):
        assert {row[0] for row in catalog.query(f"SELECT source FROM {table}")} == stored
    add_blobs(catalog, version, "one more")
    catalog.close()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()
