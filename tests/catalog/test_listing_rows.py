"""Rows of a listing page: all values, any number of rows, states by globs, and names that come twice."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.catalog_rows import NEW, SHA, relist
from tilesync.catalog.catalog import Catalog
from tilesync.catalog.listing_rows import MAX_ROWS_PER_STATEMENT, choose_states
from tilesync.catalog.schema import EXCLUDED, WANTED
from tilesync.errors import DiskFull, Incomplete
from tilesync.model import ROOT, Blob, BlobColumns, Globs, ListingState, StoredFile, Version

FULL = Blob("a/full", 5, "0x8D", b"m" * 16, "model/gltf-binary", "gzip", 0, SHA)
BARE = Blob("bare", 0)


def read_rows(catalog: Catalog) -> list[tuple[object, ...]]:
    return catalog.query("SELECT * FROM blob ORDER BY id")


def make_blobs(count: int) -> list[Blob]:
    return [Blob(f"{number:05}", number, f"e{number}", bytes([number % 256] * 16)) for number in range(count)]


@pytest.fixture
def version(catalog: Catalog) -> Version:
    return catalog.add_version(NEW)


@pytest.mark.parametrize(
    "count", [0, 1, MAX_ROWS_PER_STATEMENT - 1, MAX_ROWS_PER_STATEMENT, 2 * MAX_ROWS_PER_STATEMENT + 3]
)
def test_the_rows_are_those_of_single_statements(tmp_path: Path, count: int) -> None:
    """Any number of blobs, with and without each value, gives the rows that one statement for each blob gives."""
    blobs, rows = [FULL, BARE, *make_blobs(count)], list[list[tuple[object, ...]]]()
    for name in ("many", "one"):
        catalog = Catalog(tmp_path / name)
        version = catalog.add_version(replace(NEW, globs=Globs((), ("0000*",)), listing=ListingState(marker="next")))
        if name == "many":
            catalog.add_new_page(version, BlobColumns.from_blobs(blobs), ["a"])
        else:
            catalog.add_page(version, [(blob, None) for blob in blobs], ["a"])
        rows.append(
            [*read_rows(catalog), *catalog.query("SELECT * FROM folder"), *catalog.query("SELECT * FROM version")]
        )
        catalog.close()
    assert rows[0] == rows[1]


def test_a_database_that_allows_few_values(catalog: Catalog, version: Version) -> None:
    """An SQLite that allows 999 values in a statement gets statements of fewer rows."""
    with catalog.transaction() as db:
        db.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)
    blobs = make_blobs(700)
    catalog.add_new_page(version, BlobColumns.from_blobs(blobs), [])
    assert [blob for _, blob in catalog.list_wanted(version, 0, limit=1000)] == blobs


def test_names_that_a_disk_treats_as_equal(catalog: Catalog, version: Version) -> None:
    """On such a disk a blob keeps its name beside its key, and two names with one key are an error."""
    catalog.set_case_insensitive(is_case_insensitive=True)
    catalog.add_new_page(version, BlobColumns.from_blobs([Blob("A/B", 1), Blob("c", 1)]), ["A"])
    assert catalog.list_names(version, limit=9) == [("a/b", "A/B"), ("c", "c")]
    with pytest.raises(Incomplete, match="D and d, which are the same name"):
        catalog.add_new_page(version, BlobColumns.from_blobs([Blob("D", 1), Blob("d", 1)]), [])


@pytest.mark.parametrize(("names", "message"), [(["b", "c", "b"], ": b$"), (["b", "a"], "earlier page")])
def test_a_name_that_comes_twice(catalog: Catalog, version: Version, names: list[str], message: str) -> None:
    """A name twice in a page, or on two pages, is an error that inserts nothing."""
    catalog.add_new_page(version, BlobColumns.from_blobs([Blob("a", 1)]), [])
    before = read_rows(catalog)
    with pytest.raises(Incomplete, match=message):
        catalog.add_new_page(version, BlobColumns.from_blobs([Blob(name, 1) for name in names]), ["folder"])
    assert read_rows(catalog) == before
    assert catalog.query("SELECT * FROM folder") == []


def test_a_name_from_an_earlier_listing_gets_a_new_row(catalog: Catalog, version: Version) -> None:
    """In a repeated listing, a name comes after all rows that readers may have passed."""
    catalog.add_new_page(version, BlobColumns.from_blobs([Blob("a", 1), Blob("b", 1)]), [])
    again = relist(catalog, version)
    catalog.add_new_page(again, BlobColumns.from_blobs([Blob("a", 2)]), [])
    ((number, blob),) = catalog.list_wanted(again, 2, limit=9)
    assert (number > 2, blob) == (True, Blob("a", 2))
    assert catalog.finish_listing(again) == ["b"]


def test_the_check_gets_the_bytes_that_no_other_version_has(catalog: Catalog) -> None:
    """Excluded blobs, and those that another version has stored, need none; if the check raises, nothing is kept."""
    other = catalog.add_version(replace(NEW, name="other", export="other"))
    stored = Blob("x", 7, "e", b"m" * 16)
    catalog.add_page(other, [(stored, StoredFile(stored, SHA, 1, 2))], [])
    version = catalog.add_version(replace(NEW, globs=Globs((), ("no",))))
    seen = list[int]()
    for name, blobs in (
        ("1", [Blob("1", 10), Blob("2", 7, "e", b"m" * 16), Blob("no", 100)]),
        ("2", [Blob("3", 4), Blob("4", 7, "", None, sha256=SHA), Blob("5", 8, "e", b"m" * 16)]),
    ):
        page = replace(version, listing=ListingState(marker=name))
        catalog.add_new_page(page, BlobColumns.from_blobs(blobs), [], check=seen.append)
    assert seen == [10, 12]

    def refuse(_: int) -> None:
        raise DiskFull("full")

    before = read_rows(catalog), catalog.versions()
    with pytest.raises(DiskFull):
        catalog.add_new_page(
            replace(version, listing=ListingState(marker="3")), BlobColumns.from_blobs([Blob("6", 1)]), [], check=refuse
        )
    assert (read_rows(catalog), catalog.versions()) == before


def test_states() -> None:
    """Names that the globs leave out are excluded; the root tileset never is."""
    assert choose_states(replace(NEW, globs=Globs((), ("*",))), ["a", ROOT]) == [EXCLUDED, WANTED]
    assert choose_states(NEW, ["a", ROOT]) == [WANTED, WANTED]
