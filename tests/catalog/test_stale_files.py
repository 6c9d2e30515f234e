"""Stale files: files that a version no longer has, and the versions that left them."""

from __future__ import annotations

import hashlib

from tests.support.catalog_rows import add_version_with_files
from tilesync.catalog.catalog import Catalog
from tilesync.model import FileStamp, Role, Version


def list_stale_names(catalog: Catalog, version: Version, other: Version) -> list[str]:
    return [stored.blob.name for _, stored in catalog.stale_files.list_stale(other, version, limit=99)]


def test_list_stale(catalog: Catalog) -> None:
    """Stale files come by key, in portions, from the version that left them; a name stored in this version, with any
    content, is not stale.
    """
    old = add_version_with_files(catalog, "e1", a=("1", 1), b=("2", 2), d_x=("3", 3), d_y=("4", 4))
    new = add_version_with_files(catalog, "e2", b=("other", 5), c=("6", 6))
    assert list_stale_names(catalog, new, old) == ["a", "d/x", "d/y"]
    assert list_stale_names(catalog, old, new) == ["c"]
    assert [stored.blob.name for _, stored in catalog.stale_files.list_stale(old, new, "a", limit=1)] == ["d/x"]
    catalog.mark_wanted(new, ["b"])
    assert list_stale_names(catalog, new, old) == ["a", "b", "d/x", "d/y"]


def test_drop_superseded(catalog: Catalog) -> None:
    """Other versions keep only the rows of stale files and no references; this version is untouched."""
    old = add_version_with_files(catalog, "e1", a=("1", 1), b=("2", 2))
    new = add_version_with_files(catalog, "e2", b=("2", 2), c=("3", 3))
    catalog.stale_files.drop_superseded(new)
    assert list_stale_names(catalog, new, old) == ["a"]
    assert catalog.find_stored(old, ["a", "b"]).keys() == {"a"}
    assert catalog.find_stored(new, ["b", "c"]).keys() == {"b", "c"}
    assert catalog.references.list_targets(old, "a", Role.CONTENT) == []
    assert catalog.references.list_targets(new, "b", Role.CONTENT) == ["a"]
    catalog.stale_files.drop(number for number, _ in catalog.stale_files.list_stale(old, new, limit=9))
    assert list_stale_names(catalog, new, old) == []


def test_files_below_a_name(catalog: Catalog) -> None:
    """A folder has files below it: a name with the same prefix, or the file itself, does not count."""
    version = add_version_with_files(catalog, "e1", a_b=("1", 1), ab=("2", 2), c=("3", 3))
    assert catalog.stale_files.has_files_below(version, "a")
    assert not catalog.stale_files.has_files_below(version, "c")
    assert not catalog.stale_files.has_files_below(version, "a/b")


def test_find_stamps(catalog: Catalog) -> None:
    """Every version, retired or not, gives its stamp of a file; a file no longer stored has no SHA-256."""
    one, two = add_version_with_files(catalog, "e1", a=("1", 1)), add_version_with_files(catalog, "e2", a=("2", 2))
    catalog.update_version(one.with_times(retired_at="t"))
    catalog.mark_wanted(two, ["a"])
    assert catalog.stale_files.find_stamps("a") == [
        (FileStamp(7, 1), hashlib.sha256(b"1").digest()),
        (FileStamp(7, 2), None),
    ]
    assert catalog.stale_files.find_stamps("b") == []
