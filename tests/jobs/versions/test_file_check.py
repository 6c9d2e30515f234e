"""A held file read again."""

from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import export, glb, tileset
from tests.support.catalog_fixture import HOME, CatalogFixture
from tilesync.errors import BlobDamaged, DestinationError
from tilesync.jobs.versions import file_check as module
from tilesync.jobs.versions.file_check import check_file
from tilesync.model import UNKNOWN_SIZE, Blob, Diagnostic, Kind, ParsedContent, Reference, Role


@pytest.fixture
def shelf(tmp_path: Path) -> CatalogFixture:
    return CatalogFixture(tmp_path)


def blob_of(name: str, data: bytes, **more: Any) -> Blob:
    return Blob(name, len(data), "0x8D", hashlib.md5(data).digest(), **more)


def test_what_a_file_is(shelf: CatalogFixture) -> None:
    """It is held as it was described, with SHA-256 and mtime of what lies there, its kind and what it asks for."""
    data = tileset("a.glb", "sub/b.glb?q", schemaUri=f"{HOME}/s.json")
    shelf.write("x/tileset.json", data)
    os.utime(shelf.root / "versions/e1/x/tileset.json", ns=(5, 1772353800123456789))
    blob = blob_of("x/tileset.json", data, content_type="t", last_modified=5)
    found = check_file(shelf.files, shelf.catalog.references, shelf.version, blob)
    assert found is not None
    assert (found.stored.blob, found.stored.sha256) == (blob, hashlib.sha256(data).digest())
    assert found.stored.mtime_ns == (shelf.root / "versions/e1/x/tileset.json").stat().st_mtime_ns
    assert not found.has_more_references
    assert found.content.kind is Kind.TILESET
    assert not found.content.has_implicit_tiling
    assert set(found.content.references) == {
        Reference("x/a.glb", Role.CONTENT),
        Reference("x/sub/b.glb", Role.CONTENT),
        Reference("s.json", Role.SCHEMA),
    }
    assert {remark.problem for remark in found.content.diagnostics} == {"query", "absolute URL"}
    assert shelf.all_references() == set()


@pytest.mark.parametrize("name", sorted(export(2)))
def test_every_file_of_an_export(shelf: CatalogFixture, name: str) -> None:
    """Whatever a sound export holds is what it is described as, known size or not."""
    data = export(2)[name]
    shelf.write(name, data)
    for blob in (blob_of(name, data), Blob(name, UNKNOWN_SIZE)):
        found = check_file(shelf.files, shelf.catalog.references, shelf.version, blob)
        assert found is not None
        assert found.stored.sha256 == hashlib.sha256(data).digest()


def test_a_file_that_is_not_there(shelf: CatalogFixture) -> None:
    """A missing file, a folder and a symlink are None: there is nothing to examine."""
    shelf.write("folder/file", b"x")
    (shelf.root / "versions/e1/link").symlink_to("folder/file")
    for name in ("missing", "folder", "link", "folder/missing"):
        assert check_file(shelf.files, shelf.catalog.references, shelf.version, Blob(name, UNKNOWN_SIZE)) is None


def test_a_folder_that_leads_elsewhere(shelf: CatalogFixture, tmp_path: Path) -> None:
    """Through a symlink in place of a folder nothing is read."""
    shelf.write("file", b"x")
    (shelf.root / "versions/e1/away").symlink_to(tmp_path)
    with pytest.raises(DestinationError):
        check_file(shelf.files, shelf.catalog.references, shelf.version, Blob("away/file", UNKNOWN_SIZE))


@pytest.mark.parametrize(
    ("name", "data", "blob", "reason"),
    [
        ("a", b"1234", Blob("a", 5), "4 bytes came, the listing says 5"),
        ("a", b"1234", Blob("a", 4, md5=b"m" * 16), "MD5"),
        ("a.glb", b"1234", Blob("a.glb", 4), "glTF"),
        ("a.glb", glb(b"x")[:-4], Blob("a.glb", UNKNOWN_SIZE), "a.glb: "),
        ("t.json", tileset("x")[:-1], Blob("t.json", UNKNOWN_SIZE), "JSON"),
        ("t.json", gzip.compress(tileset("x"), mtime=0)[:-3], Blob("t.json", UNKNOWN_SIZE), "gzip"),
    ],
)
def test_what_is_not_as_described_is_damaged(
    shelf: CatalogFixture, name: str, data: bytes, blob: Blob, reason: str
) -> None:
    """Another size or MD5 than described, and a broken structure, are damage, said with the file's name."""
    shelf.write(name, data)
    with pytest.raises(BlobDamaged, match=f"^{name}: .*{reason}" if reason[-1] != " " else reason):
        check_file(shelf.files, shelf.catalog.references, shelf.version, blob)


def test_md5_may_be_left_out(shelf: CatalogFixture) -> None:
    """On request the MD5 is not compared; the file is held as described all the same."""
    shelf.write("a", b"1234")
    blob = Blob("a", 4, md5=b"m" * 16)
    found = check_file(shelf.files, shelf.catalog.references, shelf.version, blob, compare_md5=False)
    assert found is not None
    assert found.stored.blob == blob


@pytest.mark.parametrize("read", [50, 1 << 20])
def test_large_documents_go_to_the_catalog_in_parts(
    shelf: CatalogFixture, monkeypatch: pytest.MonkeyPatch, read: int
) -> None:
    """A file with many references gives them to the catalog on the way; nothing of before is left, nothing is lost."""
    monkeypatch.setattr(module, "MAX_REFERENCES_IN_MEMORY", 10)
    monkeypatch.setattr("tilesync.stores.local.reader.READ_CHUNK_BYTES", read)
    asked_for = {f"{number:03d}.glb" for number in range(95)}
    data = tileset(*sorted(asked_for), "000.glb?x", "https://elsewhere.org/x")
    shelf.write("tileset.json", data)
    stale = ParsedContent(references=(Reference("stale", Role.CONTENT),), diagnostics=(Diagnostic("query", "stale"),))
    shelf.catalog.references.add(shelf.version, "tileset.json", stale)
    found = check_file(shelf.files, shelf.catalog.references, shelf.version, Blob("tileset.json", UNKNOWN_SIZE))
    assert found is not None
    assert found.has_more_references
    assert len(found.content.references) <= 11
    assert {target for _, target, _ in shelf.all_references()} | {
        r.target for r in found.content.references
    } == asked_for
    shelf.put("tileset.json", data)
    assert shelf.references_from("tileset.json") == asked_for
    assert shelf.count_completeness().unfollowed == 1
    assert all(remark.detail != "stale" for _, remark in shelf.remarks())


def test_a_short_file_after_a_long_one(shelf: CatalogFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was told in parts and is replaced by a small one asks for what the small one does, and no more."""
    monkeypatch.setattr(module, "MAX_REFERENCES_IN_MEMORY", 3)
    monkeypatch.setattr("tilesync.stores.local.reader.READ_CHUNK_BYTES", 20)
    shelf.put("tileset.json", tileset(*map(str, range(50))))
    assert len(shelf.references_from("tileset.json")) == 50
    shelf.put("tileset.json", tileset("x", "y"))
    assert shelf.references_from("tileset.json") == {"x", "y"}


def test_an_implicit_tileset_is_known_by_its_last_part(shelf: CatalogFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a file is counts as it is known at its end, also when it was told in parts."""
    monkeypatch.setattr(module, "MAX_REFERENCES_IN_MEMORY", 3)
    monkeypatch.setattr("tilesync.stores.local.reader.READ_CHUNK_BYTES", 20)
    said = {"subdivisionScheme": "QUADTREE", "subtreeLevels": 2, "availableLevels": 2, "subtrees": {"uri": "{x}"}}
    data = tileset(*map(str, range(20))).replace(
        b'"children": [',
        b'"children": [{"geometricError": 1, "implicitTiling": %s}, ' % str(said).replace("'", '"').encode(),
    )
    shelf.put("tileset.json", data)
    assert shelf.catalog.references.list_implicit_tilesets(shelf.version) == ["tileset.json"]
