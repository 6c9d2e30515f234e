"""Catalog: versions, values, and files of several versions."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.catalog_rows import (
    NEW,
    add_blobs,
    add_version_with_files,
    blob_with_sha256,
    names_in_listing_order,
    reference_to,
)
from tilesync.catalog.catalog import Catalog
from tilesync.model import (
    Blob,
    Completeness,
    Diagnostic,
    FileResult,
    ListingState,
    ParsedContent,
    Role,
    StoredFile,
)


def test_versions_are_read_back(path: Path) -> None:
    """Versions come back in the order in which they were started, with all fields, also after reopening."""
    catalog = Catalog(path)
    one = catalog.add_version(NEW)
    two = catalog.add_version(replace(NEW, name="e2", export="e2").with_facts(imodel=None, changeset=None))
    three = catalog.add_version(
        replace(NEW, name="e1-2", listing=ListingState(is_complete=True)).with_summary(
            published_at="t", files=3, bytes=4, manifest_sha256="00"
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


def test_updates_are_read_back(path: Path) -> None:
    """Every field of a version that may change is saved."""
    catalog = Catalog(path)
    version = catalog.add_version(NEW)
    changed = (
        replace(
            version, listing=ListingState(2, True, "m"), damaged=True, inventory="walk", container_url="https://h/c"
        )
        .with_facts(modified="2027", record={"id": "e1", "x": None})
        .with_summary(published_at="t", files=1, bytes=2, manifest_sha256="ff", completeness=Completeness(4, 3, 2, 1))
    )
    catalog.update_version(changed)
    assert catalog.versions() == [changed]
    catalog.close()


def test_delete_version(path: Path) -> None:
    """A deleted version leaves nothing behind, and its name is free again."""
    catalog = Catalog(path)
    other = catalog.add_version(replace(NEW, name="other"))
    add_blobs(catalog, other, "x")
    version = catalog.add_version(NEW)
    add_blobs(catalog, version, "a/b", folders=("a",))
    catalog.references.add(
        version, "a/b", ParsedContent(references=(reference_to("x"),), diagnostics=(Diagnostic("problem", "detail"),))
    )
    catalog.delete_version(version)
    for table in ("blob", "folder", "reference", "remark"):
        assert catalog.query(f"SELECT count(*) FROM {table} WHERE version=?", version.serial) == [(0,)]
    assert catalog.versions() == [other]
    fresh = catalog.add_version(NEW)
    add_blobs(catalog, fresh, "a")
    assert catalog.finish_listing(fresh) == []
    assert (names_in_listing_order(catalog, fresh), names_in_listing_order(catalog, other)) == (["a"], ["x"])
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


def test_shared_bytes(catalog: Catalog) -> None:
    """Bytes count as shared where another live version has the same content in the same inode."""
    add_version_with_files(catalog, "e1", a=("one", 1), b=("twoo", 2), c=("three", 3))
    add_version_with_files(catalog, "e2", a=("one", 1), moved=("twoo", 2), c=("three", 33))
    add_version_with_files(catalog, "e3", other=("one", 9))
    assert catalog.compute_shared_bytes() == {"e1": 7, "e2": 7}
    catalog.update_version(catalog.versions(name="e2")[0].with_times(retired_at="t"))
    assert catalog.compute_shared_bytes() == {}


def test_no_inode_is_not_shared(catalog: Catalog) -> None:
    """Files with inode 0 never count as shared."""
    add_version_with_files(catalog, "e1", a=("one", 0))
    add_version_with_files(catalog, "e2", a=("one", 0))
    assert catalog.compute_shared_bytes() == {}


def test_a_retired_version(catalog: Catalog) -> None:
    """A retired version is listed only on request, has no files once they are dropped, and gives no duplicates."""
    old = add_version_with_files(catalog, "e1", a=("1", 1))
    new = add_version_with_files(catalog, "e2")
    blob = Blob("x", 1, "", hashlib.md5(b"1").digest())
    assert catalog.duplicates.find_by_digest(new, [blob]).keys() == {"x"}
    catalog.update_version(old.with_times(retired_at="t"))
    assert [version.name for version in catalog.versions()] == ["e2"]
    assert [version.name for version in catalog.versions(retired=True)] == ["e1", "e2"]
    assert catalog.duplicates.find_by_digest(new, [blob]) == {}
    catalog.drop_files(old)
    assert catalog.list_stored(old, limit=9) == []
    assert catalog.references.list_targets(old, "a", Role.CONTENT) == []


def test_mark_all_stored(catalog: Catalog) -> None:
    """After `mark_all_stored` nothing is wanted, and those files are duplicates without bytes."""
    version = add_version_with_files(catalog, "e1", a=("1", 1))
    catalog.add_page(version, [(Blob("b", 5, "e", b"m" * 16), None)], ())
    catalog.mark_all_stored(version)
    assert catalog.list_wanted(version, 0, limit=9) == []
    assert [stored.sha256 for _, stored in catalog.list_stored(version, "a", limit=9)] == [b""]
    assert catalog.compute_totals(version).stored_files == 2


def test_a_claim_is_kept_while_a_file_is_wanted(catalog: Catalog) -> None:
    """A wanted file keeps the SHA-256 of its manifest; a stored one has that of its bytes."""
    version = catalog.add_version(NEW)
    catalog.add_page(version, [(blob_with_sha256("a"), None), (Blob("b", 1, "e"), None)], ())
    (number, first), (_, second) = catalog.list_wanted(version, 0, limit=9)
    assert (first, second.sha256) == (blob_with_sha256("a"), None)
    stored = StoredFile(first, hashlib.sha256(b"a").digest(), 7, 1)
    catalog.mark_stored(version, [FileResult(number, stored, ParsedContent())])
    ((_, result),) = catalog.list_stored(version, limit=9)
    assert result == stored._replace(blob=first._replace(sha256=None))


@pytest.mark.parametrize(
    ("inventory", "published_at", "known"),
    [("list", None, True), ("list", "t", True), ("walk", None, False), ("walk", "t", True)],
)
def test_a_released_file_keeps_its_sha256(
    catalog: Catalog, inventory: str, published_at: str | None, known: bool
) -> None:
    """A released file is wanted with its old SHA-256, hard links included; an unfinished walk accepts any bytes."""
    one, two = add_version_with_files(catalog, "e1", a=("1", 1)), add_version_with_files(catalog, "e2", b=("1", 1))
    for version in (one, two):
        catalog.update_version(replace(version, inventory=inventory).with_summary(published_at=published_at))
    catalog.mark_wanted(one, ["a"], include_linked=True)
    for version in (one, two):
        ((_, wanted),) = catalog.list_wanted(version, 0, limit=9)
        assert wanted.sha256 == (hashlib.sha256(b"1").digest() if known else None)
