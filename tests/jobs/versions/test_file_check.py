"""File check: read a stored file again."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import export, glb, tileset
from tests.support.catalog_fixture import HOME, CatalogFixture
from tilesync.errors import BlobDamaged, DestinationError
from tilesync.events import Finding
from tilesync.jobs.versions import file_check as module
from tilesync.jobs.versions.file_check import FileVerifier, check_file, verify_file, verify_files
from tilesync.model import (
    UNKNOWN_SIZE,
    Blob,
    Diagnostic,
    FileResult,
    Kind,
    ParsedContent,
    Reference,
    Role,
    StoredFile,
    UnpackedFile,
    Version,
)
from tilesync.protocols import MAX_WHOLE_FILE_BYTES


def blob_of(name: str, data: bytes, **more: Any) -> Blob:
    return Blob(name, len(data), "0x8D", hashlib.md5(data).digest(), **more)


def test_check_returns_digest_stamp_and_content(fixture: CatalogFixture) -> None:
    """The result has blob, SHA-256, mtime, kind and references of the file."""
    data = tileset("a.glb", "sub/b.glb?q", schemaUri=f"{HOME}/s.json")
    fixture.write("x/tileset.json", data)
    os.utime(fixture.root / "versions/e1/x/tileset.json", ns=(5, 1772353800123456789))
    blob = blob_of("x/tileset.json", data, content_type="t", last_modified=5)
    result = check_file(fixture.files, fixture.catalog.references, fixture.version, blob)
    assert result is not None
    assert (result.stored.blob, result.stored.sha256) == (blob, hashlib.sha256(data).digest())
    assert result.stored.mtime_ns == (fixture.root / "versions/e1/x/tileset.json").stat().st_mtime_ns
    assert not result.has_more_references
    assert result.content.kind is Kind.TILESET
    assert not result.content.has_implicit_tiling
    assert set(result.content.references) == {
        Reference("x/a.glb", Role.CONTENT),
        Reference("x/sub/b.glb", Role.CONTENT),
        Reference("s.json", Role.SCHEMA),
    }
    assert {diagnostic.problem for diagnostic in result.content.diagnostics} == {"query", "absolute URL"}
    assert fixture.all_references() == set()


@pytest.mark.parametrize("name", sorted(export(2)))
def test_every_file_of_an_export_passes(fixture: CatalogFixture, name: str) -> None:
    """Every file of a good export passes, with known size or without."""
    data = export(2)[name]
    fixture.write(name, data)
    for blob in (blob_of(name, data), Blob(name, UNKNOWN_SIZE)):
        result = check_file(fixture.files, fixture.catalog.references, fixture.version, blob)
        assert result is not None
        assert result.stored.sha256 == hashlib.sha256(data).digest()


def test_missing_file_is_none(fixture: CatalogFixture) -> None:
    """A missing file, a folder and a symlink give None."""
    fixture.write("folder/file", b"x")
    (fixture.root / "versions/e1/link").symlink_to("folder/file")
    for name in ("missing", "folder", "link", "folder/missing"):
        assert check_file(fixture.files, fixture.catalog.references, fixture.version, Blob(name, UNKNOWN_SIZE)) is None


def test_symlinked_folder_is_not_followed(fixture: CatalogFixture, tmp_path: Path) -> None:
    """Nothing is read through a symlink in place of a folder."""
    fixture.write("file", b"x")
    (fixture.root / "versions/e1/away").symlink_to(tmp_path)
    with pytest.raises(DestinationError):
        check_file(fixture.files, fixture.catalog.references, fixture.version, Blob("away/file", UNKNOWN_SIZE))


@pytest.mark.parametrize(
    ("name", "data", "blob", "reason"),
    [
        ("a", b"1234", Blob("a", 5), "it has 4 bytes, but the listing says 5"),
        ("a", b"1234", Blob("a", 4, md5=b"m" * 16), "MD5"),
        ("a.glb", b"1234", Blob("a.glb", 4), "glTF"),
        ("a.glb", glb(b"x")[:-4], Blob("a.glb", UNKNOWN_SIZE), "a.glb: "),
        ("t.json", tileset("x")[:-1], Blob("t.json", UNKNOWN_SIZE), "JSON"),
        ("t.json", gzip.compress(tileset("x"), mtime=0)[:-3], Blob("t.json", UNKNOWN_SIZE), "gzip"),
    ],
)
def test_mismatch_is_damage(fixture: CatalogFixture, name: str, data: bytes, blob: Blob, reason: str) -> None:
    """Another size or MD5, and a broken structure, are damage; the message names the file."""
    fixture.write(name, data)
    with pytest.raises(BlobDamaged, match=f"^{name}: .*{reason}" if reason[-1] != " " else reason):
        check_file(fixture.files, fixture.catalog.references, fixture.version, blob)


def test_md5_comparison_can_be_skipped(fixture: CatalogFixture) -> None:
    """On request the MD5 is not compared, and the blob is kept as described."""
    fixture.write("a", b"1234")
    blob = Blob("a", 4, md5=b"m" * 16)
    result = check_file(fixture.files, fixture.catalog.references, fixture.version, blob, compare_md5=False)
    assert result is not None
    assert result.stored.blob == blob


@pytest.mark.parametrize("read", [50, 1 << 20])
def test_many_references_go_to_the_catalog_in_parts(
    fixture: CatalogFixture, monkeypatch: pytest.MonkeyPatch, read: int
) -> None:
    """A file with many references writes them to the catalog in parts; old ones are replaced, none is lost."""
    monkeypatch.setattr(module, "MAX_REFERENCES_IN_MEMORY", 10)
    monkeypatch.setattr("tilesync.stores.local.reader.READ_CHUNK_BYTES", read)
    asked_for = {f"{number:03d}.glb" for number in range(95)}
    data = tileset(*sorted(asked_for), "000.glb?x", "https://elsewhere.org/x")
    fixture.write("tileset.json", data)
    stale = ParsedContent(references=(Reference("stale", Role.CONTENT),), diagnostics=(Diagnostic("query", "stale"),))
    fixture.catalog.references.add(fixture.version, "tileset.json", stale)
    result = check_file(fixture.files, fixture.catalog.references, fixture.version, Blob("tileset.json", UNKNOWN_SIZE))
    assert result is not None
    assert result.has_more_references
    assert len(result.content.references) <= 11
    assert {target for _, target, _ in fixture.all_references()} | {
        r.target for r in result.content.references
    } == asked_for
    fixture.put("tileset.json", data)
    assert fixture.references_from("tileset.json") == asked_for
    assert fixture.count_completeness().unfollowed == 1
    assert all(diagnostic.detail != "stale" for _, diagnostic in fixture.diagnostics())


def test_small_file_replaces_references_of_a_large_one(
    fixture: CatalogFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small file that replaces a large one keeps only its own references."""
    monkeypatch.setattr(module, "MAX_REFERENCES_IN_MEMORY", 3)
    monkeypatch.setattr("tilesync.stores.local.reader.READ_CHUNK_BYTES", 20)
    fixture.put("tileset.json", tileset(*map(str, range(50))))
    assert len(fixture.references_from("tileset.json")) == 50
    fixture.put("tileset.json", tileset("x", "y"))
    assert fixture.references_from("tileset.json") == {"x", "y"}


def test_implicit_tileset_is_known_by_its_last_part(fixture: CatalogFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content of the last part counts, also if references were written in parts."""
    monkeypatch.setattr(module, "MAX_REFERENCES_IN_MEMORY", 3)
    monkeypatch.setattr("tilesync.stores.local.reader.READ_CHUNK_BYTES", 20)
    tiling = {"subdivisionScheme": "QUADTREE", "subtreeLevels": 2, "availableLevels": 2, "subtrees": {"uri": "{x}"}}
    data = tileset(*map(str, range(20))).replace(
        b'"children": [',
        b'"children": [{"geometricError": 1, "implicitTiling": %s}, ' % str(tiling).replace("'", '"').encode(),
    )
    fixture.put("tileset.json", data)
    assert fixture.catalog.references.list_implicit_tilesets(fixture.version) == ["tileset.json"]


def broken_files() -> dict[str, bytes]:
    """Return files as stored, some of them broken in the container too."""
    return export(2) | {
        "page.glb": b"<html>",
        "cut.glb": glb(b"x")[:-4],
        "empty.glb": b"",
        "zipped.json": b"\x1f\x8b\x08",
    }


@pytest.mark.parametrize("change", ["none", "byte", "size", "missing", "folder", "unproven"])
@pytest.mark.parametrize("name", sorted(broken_files()))
def test_files_read_whole_have_the_same_result(fixture: CatalogFixture, name: str, change: str) -> None:
    """`verify_files` returns exactly what `verify_file` does, also for damaged, missing and unproven files."""
    data = broken_files()[name]
    sha256 = b"" if change == "unproven" else hashlib.sha256(data).digest()
    stored = StoredFile(blob_of(name, data), sha256, 0)
    if change == "folder":
        (fixture.root / "versions/e1" / name).mkdir(parents=True)
    elif change != "missing":
        changed = {"byte": data[:-1] + b"\xff" if data else b"\xff", "size": data + b"\0"}
        fixture.write(name, changed.get(change, data))
    (found,) = verify_files(fixture.files, None, fixture.version, [stored])
    assert found == verify_file(fixture.files, None, fixture.version, stored)
    assert isinstance(found, Finding) == (change in {"byte", "size", "missing", "folder"}) or change == "unproven"


def test_unpacked_file_is_checked_in_its_form_on_disk(fixture: CatalogFixture) -> None:
    """The digest of an unpacked file is that of the file; the result describes its blob."""
    data = glb(b"content")
    packed = gzip.compress(data)
    fixture.write("a.glb", data)
    blob = blob_of("a.glb", packed, content_encoding="gzip")
    unpacked = UnpackedFile(len(data), hashlib.sha256(packed).digest())
    stored = StoredFile(blob, hashlib.sha256(data).digest(), 0, 0, unpacked)
    (found,) = verify_files(fixture.files, None, fixture.version, [stored])
    assert isinstance(found, FileResult)
    assert found.stored[:2] == stored[:2]
    assert found == verify_file(fixture.files, None, fixture.version, stored)


class RefusingWorkers:
    """Workers that verify every nth file of a batch."""

    start_requested = True
    blobs_per_batch, has_own_limits = 32, False
    max_verified_bytes = MAX_WHOLE_FILE_BYTES

    def __init__(self, fixture: CatalogFixture, nth: int) -> None:
        self._fixture = fixture
        self._nth = nth
        self.batches = 0

    def request_start(self) -> None:
        """Do nothing."""

    async def start(self) -> None:
        """Do nothing."""

    async def fetch_batch(self, *_: Any, **__: Any) -> Any:
        """Not used by these tests."""
        raise NotImplementedError

    async def verify_batch(self, version: Version, files: Sequence[StoredFile]) -> list[Finding | FileResult | None]:
        """Verify every nth file."""
        self.batches += 1
        results = verify_files(self._fixture.files, None, version, files)
        return [None if number % self._nth else result for number, result in enumerate(results)]


@pytest.mark.parametrize(("nth", "batches"), [(1, 3), (2, 3), (3, 1)])
def test_files_that_workers_leave_are_verified_here(fixture: CatalogFixture, nth: int, batches: int) -> None:
    """Every file has a result, whoever verified it; workers that leave most files get no more of them."""
    files = {name: data for name, data in export(8).items() if name.endswith(".glb")}
    for name, data in files.items():
        fixture.write(name, data)
    stored = [StoredFile(blob_of(name, data), hashlib.sha256(data).digest(), 0) for name, data in files.items()]
    workers = RefusingWorkers(fixture, nth)

    async def verify_all() -> None:
        verifier = FileVerifier(fixture.files, fixture.catalog.references, workers)
        verifier.request_start()
        await asyncio.sleep(0.01)
        for _ in range(3):
            results = await verifier.verify_files(fixture.version, stored)
            assert {name: isinstance(result, FileResult) for name, result in results.items()} == dict.fromkeys(
                files, True
            )
        await verifier.aclose()

    asyncio.run(verify_all())
    assert workers.batches == batches
