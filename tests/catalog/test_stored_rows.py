"""Rows of files that were read in place: all values, any number of rows, and names that come twice."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.support.catalog_rows import NEW, SHA, tileset_content
from tilesync.catalog.catalog import Catalog
from tilesync.catalog.listing_rows import MAX_ROWS_PER_STATEMENT
from tilesync.catalog.schema import INSERT_BLOB, blob_row
from tilesync.errors import Incomplete
from tilesync.model import Blob, FileResult, Kind, ParsedContent, StoredFile, UnpackedFile

FULL = StoredFile(Blob("a/full", 5, "0x8D", b"m" * 16, "model/gltf-binary", "gzip", 0), SHA, 7, 8)
UNPACKED = StoredFile(Blob("unpacked", 5, "0x8D"), b"u" * 32, 9, 10, UnpackedFile(50, SHA))
WITHOUT_SHA256 = StoredFile(Blob("unproven", 3, "e"), b"", 1)
RESULTS = [
    FileResult(1, FULL, ParsedContent(Kind.GLB)),
    FileResult(2, UNPACKED, tileset_content("a/full", implicit=True)),
    FileResult(3, WITHOUT_SHA256),
]


def make_results(count: int) -> list[FileResult]:
    return [
        FileResult(0, StoredFile(Blob(f"{number:05}", number, f"e{number}"), bytes([number % 256] * 32), number))
        for number in range(count)
    ]


@pytest.mark.parametrize("count", [0, MAX_ROWS_PER_STATEMENT - 3, MAX_ROWS_PER_STATEMENT + 1])
def test_the_rows_are_those_of_single_statements(tmp_path: Path, count: int) -> None:
    """Any number of files, with and without each value, gives the rows that one statement for each file gives."""
    results, rows = [*RESULTS, *make_results(count)], list[list[tuple[object, ...]]]()
    for name in ("many", "one"):
        catalog = Catalog(tmp_path / name)
        version = catalog.add_version(NEW)
        if name == "many":
            catalog.add_stored_files(version, results)
        else:
            with catalog.transaction() as db:
                for result in results:
                    blob, content = result.stored.blob, result.content
                    db.execute(INSERT_BLOB, blob_row(version, blob.name, blob, result.stored))
                    kinds = (content.kind, content.has_implicit_tiling, blob.name)
                    db.execute("UPDATE blob SET kind=?, implicit=? WHERE key=?", kinds)
        rows.append(catalog.query("SELECT * FROM blob ORDER BY id"))
        assert dict(catalog.list_stored(version, limit=2000))[UNPACKED.blob.name] == UNPACKED
        catalog.close()
    assert rows[0] == rows[1]


def test_a_database_that_allows_few_values(catalog: Catalog) -> None:
    """An SQLite that allows 999 values in a statement gets statements of fewer rows."""
    version = catalog.add_version(NEW)
    with catalog.transaction() as db:
        db.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)
    catalog.add_stored_files(version, make_results(200))
    assert catalog.compute_totals(version).stored_files == 200


@pytest.mark.parametrize("repeated", ["00001", "00600"])
def test_a_name_that_comes_twice_is_named(catalog: Catalog, repeated: str) -> None:
    """A name of the same call and one of an earlier call are both refused, and nothing is inserted."""
    version = catalog.add_version(NEW)
    earlier, results = make_results(601), make_results(550)
    catalog.add_stored_files(version, earlier[600:])
    again = FileResult(0, StoredFile(Blob(repeated, 1), SHA, 1))
    with pytest.raises(Incomplete, match=f"twice: {repeated}"):
        catalog.add_stored_files(version, [*results, again])
    assert catalog.compute_totals(version).stored_files == 1
