"""Schema: catalogs of other versions are migrated, emptied or refused."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.catalog_rows import (
    FULL,
    NEW,
    WALKED,
    store_files,
    tileset_content,
)
from tilesync.catalog.catalog import Catalog
from tilesync.catalog.schema import MIGRATIONS, SCHEMA_VERSION
from tilesync.errors import DestinationError
from tilesync.model import (
    Blob,
    Completeness,
    Content,
    ExportFacts,
    FileResult,
    Globs,
    ListingState,
    StoredFile,
    Totals,
    UnpackedFile,
    Version,
    VersionSummary,
    VersionTimes,
)


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
"""A catalog of schema 3, before files could be stored unpacked."""


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
            5,
            "e1",
            "e1",
            facts=ExportFacts(imodel="i", changeset="c", modified="2026", record={"id": "e1"}),
            listing=ListingState(2, True),
            damaged=False,
            inventory="list",
            container_url="https://host/container",
            globs=Globs(("*.glb",)),
            content=Content.STORED,
            summary=VersionSummary(
                published_at="then", files=2, bytes=4, manifest_sha256="m", completeness=Completeness(4, 3, 2, 1)
            ),
            times=VersionTimes(started_at="begun", replaced_at="left", retired_at=None),
        )
        assert catalog.list_stored(version, limit=9) == [
            ("a", StoredFile(Blob("a", 3, "tag", b"m", "t", "gzip", 99), b"s", 7, 8))
        ]
        assert catalog.list_wanted(version, 0, limit=9) == [(2, Blob("b", 1, sha256=b"t"))]
        assert catalog.compute_totals(version) == Totals(2, 4, 1, 3)
        catalog.close()
    catalog = Catalog(path)
    newer = catalog.add_version(replace(NEW, name="e1-2", content=Content.DECODED))
    stored = StoredFile(FULL, b"lies" * 8, 7, 8, UnpackedFile(99, b"were" * 8))
    catalog.add_stored_files(newer, [FileResult(0, stored)])
    catalog.close()
    catalog = Catalog(path)
    assert [version.content for version in catalog.versions()] == [Content.STORED, Content.DECODED]
    assert catalog.find_stored(newer, [FULL.name]) == {FULL.name: stored}


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


@pytest.mark.parametrize("column", ["modified", "home"])
def test_bytes_in_the_place_of_a_text_are_damage(tmp_path: Path, column: str) -> None:
    """Foreign bytes in the file are reported as damage with a hint."""
    import sqlite3

    from tilesync.errors import DestinationError

    path = tmp_path / "c.sqlite3"
    catalog = Catalog(path)
    catalog.add_version(
        Version(0, "e1", "e1", facts=ExportFacts(imodel="i", changeset="c", modified="2026", record={"id": "e1"}))
    )
    catalog.close()
    database = sqlite3.connect(path)
    database.execute(f"UPDATE version SET {column} = x'ffee'")
    database.commit()
    database.close()
    catalog = Catalog(path)
    with pytest.raises(DestinationError, match="damaged"):
        catalog.versions()
    catalog.close()
