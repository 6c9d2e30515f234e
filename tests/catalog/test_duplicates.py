"""Duplicates: files that another version already has, found by MD5 or SHA-256."""

from __future__ import annotations

import hashlib

import pytest

from tests.support.catalog_rows import NEW, add_version_with_files, blob_with_sha256
from tilesync.catalog.catalog import Catalog
from tilesync.model import Blob


def test_duplicates_of_many_versions(catalog: Catalog) -> None:
    """One duplicate of the newest versions is returned, or all with `all_versions`; older versions are used where the
    newest have none.
    """
    for number in range(6):
        contents = {"same": ("same", 1), **({"old": ("old", 2)} if number < 2 else {})}
        add_version_with_files(catalog, f"e{number}", **contents)
    new = add_version_with_files(catalog, "new")
    blobs = [Blob(name, len(name), "", hashlib.md5(name.encode()).digest()) for name in ("same", "old", "none")]
    result = catalog.duplicates.find_by_digest(new, [*blobs, Blob("bare", 4)])
    assert {name: [each.version.name for each in duplicates] for name, duplicates in result.items()} == {
        "same": ["e5"],
        "old": ["e1", "e0"],
    }
    every = catalog.duplicates.find_by_digest(new, blobs, all_versions=True)
    assert [each.version.name for each in every["same"]] == ["e5", "e4", "e3", "e2"]


def test_duplicates_by_sha256(catalog: Catalog) -> None:
    """A blob with a SHA-256 has duplicates by that alone, whatever its MD5; reusable bytes are counted too."""
    add_version_with_files(catalog, "e1", a=("one", 1), b=("two", 2))
    new = add_version_with_files(catalog, "new")
    md5 = hashlib.md5(b"two").digest()
    blobs = [
        blob_with_sha256("one"),
        blob_with_sha256("none"),
        blob_with_sha256("one")._replace(name="x", md5=md5),
        Blob("y", 3, "", md5),
    ]
    for every in (False, True):
        result = catalog.duplicates.find_by_digest(new, blobs, all_versions=every)
        assert {name: first.stored.blob.name for name, (first, *_) in result.items()} == {
            "one": "a",
            "x": "a",
            "y": "b",
        }
    catalog.add_page(new, [(blob, None) for blob in blobs], ())
    assert catalog.duplicates.count_reusable_bytes(new) == 9
    assert catalog.duplicates.find_by_digest(new, [blob_with_sha256("one")._replace(size=4)]) == {}


def test_files_marked_stored_keep_their_sha256(catalog: Catalog) -> None:
    """A file that a dry run marks stored is the duplicate of files with the same SHA-256."""
    version, new = catalog.add_version(NEW), add_version_with_files(catalog, "new")
    catalog.add_page(version, [(blob_with_sha256("a"), None)], ())
    catalog.mark_all_stored(version)
    assert catalog.duplicates.find_by_digest(new, [blob_with_sha256("a")]).keys() == {"a"}


def test_equal_files_are_one_row_per_digest(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version with many equal files is asked for one of them, not for all."""
    add_version_with_files(catalog, "e1", **{f"f{number}": ("same", 1) for number in range(50)}, other=("else", 2))
    new = add_version_with_files(catalog, "new")
    read_rows, query = list[int](), catalog.query

    def count_rows(sql: str, *values: object) -> list[tuple[object, ...]]:
        rows = query(sql, *values)
        read_rows.append(len(rows) if "FROM blob" in sql else 0)
        return rows

    monkeypatch.setattr(catalog, "query", count_rows)
    by_md5 = [Blob(f"f{number}", 4, "", hashlib.md5(b"same").digest()) for number in range(50)]
    by_sha256 = [blob_with_sha256("same")._replace(name=f"g{number}") for number in range(50)]
    result = catalog.duplicates.find_by_digest(new, [*by_md5, *by_sha256])
    assert len(result) == 100
    assert sum(read_rows) == 2  # one by MD5, one by SHA-256
