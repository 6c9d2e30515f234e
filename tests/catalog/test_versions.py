"""Several versions in one catalog: shared files, stale files, duplicates and retired versions."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tilesync.catalog.catalog import Catalog
from tilesync.model import Blob, FileResult, FileStamp, Kind, ParsedContent, Reference, Role, StoredFile, Version

NEW = Version(0, "e1", "e1", "i", "c", "2026", {"id": "e1"})


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "catalog.sqlite3")


def add_version_with_files(catalog: Catalog, name: str, **contents: tuple[str, int]) -> Version:
    """Add a version with stored files, each with a content and an inode; `_` in a name is a slash."""
    version = catalog.add_version(replace(NEW, name=name, export=name))
    arrivals = []
    for written, (content, inode) in contents.items():
        data = content.encode()
        blob = Blob(written.replace("_", "/"), len(data), "0x8D", hashlib.md5(data).digest())
        reading = ParsedContent(Kind.TILESET, (Reference("a", Role.CONTENT),))
        arrivals.append(FileResult(0, StoredFile(blob, hashlib.sha256(data).digest(), 7, inode), reading))
    catalog.add_stored_files(version, arrivals)
    return version


def list_stale_names(catalog: Catalog, version: Version, other: Version) -> list[str]:
    return [stored.blob.name for _, stored in catalog.stale_files.list_stale(other, version, limit=99)]


def test_shared_bytes(catalog: Catalog) -> None:
    """Bytes count as shared where another live version has the same content in the same inode."""
    add_version_with_files(catalog, "e1", a=("one", 1), b=("twoo", 2), c=("three", 3))
    add_version_with_files(catalog, "e2", a=("one", 1), moved=("twoo", 2), c=("three", 33))
    add_version_with_files(catalog, "e3", other=("one", 9))
    assert catalog.compute_shared_bytes() == {"e1": 7, "e2": 7}
    catalog.update_version(replace(catalog.versions(name="e2")[0], retired_at="t"))
    assert catalog.compute_shared_bytes() == {}


def test_no_inode_is_not_shared(catalog: Catalog) -> None:
    """Files with inode 0 never count as shared."""
    add_version_with_files(catalog, "e1", a=("one", 0))
    add_version_with_files(catalog, "e2", a=("one", 0))
    assert catalog.compute_shared_bytes() == {}


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
    catalog.update_version(replace(one, retired_at="t"))
    catalog.mark_wanted(two, ["a"])
    assert catalog.stale_files.find_stamps("a") == [
        (FileStamp(7, 1), hashlib.sha256(b"1").digest()),
        (FileStamp(7, 2), None),
    ]
    assert catalog.stale_files.find_stamps("b") == []


def test_a_retired_version(catalog: Catalog) -> None:
    """A retired version is listed only on request, has no files once they are dropped, and gives no duplicates."""
    old = add_version_with_files(catalog, "e1", a=("1", 1))
    new = add_version_with_files(catalog, "e2")
    blob = Blob("x", 1, "", hashlib.md5(b"1").digest())
    assert catalog.duplicates.find_by_digest(new, [blob]).keys() == {"x"}
    catalog.update_version(replace(old, retired_at="t"))
    assert [version.name for version in catalog.versions()] == ["e2"]
    assert [version.name for version in catalog.versions(retired=True)] == ["e1", "e2"]
    assert catalog.duplicates.find_by_digest(new, [blob]) == {}
    catalog.drop_files(old)
    assert catalog.list_stored(old, limit=9) == []
    assert catalog.references.list_targets(old, "a", Role.CONTENT) == []


def test_duplicates_of_many_versions(catalog: Catalog) -> None:
    """One duplicate of the newest versions is returned, or all with `all_versions`; older versions are used where the
    newest have none.
    """
    for number in range(6):
        contents = {"same": ("same", 1), **({"old": ("old", 2)} if number < 2 else {})}
        add_version_with_files(catalog, f"e{number}", **contents)
    new = add_version_with_files(catalog, "new")
    blobs = [Blob(name, len(name), "", hashlib.md5(name.encode()).digest()) for name in ("same", "old", "none")]
    found = catalog.duplicates.find_by_digest(new, [*blobs, Blob("bare", 4)])
    assert {name: [twin.version.name for twin in twins] for name, twins in found.items()} == {
        "same": ["e5"],
        "old": ["e1", "e0"],
    }
    every = catalog.duplicates.find_by_digest(new, blobs, all_versions=True)
    assert [twin.version.name for twin in every["same"]] == ["e5", "e4", "e3", "e2"]


def test_mark_all_stored(catalog: Catalog) -> None:
    """After `mark_all_stored` nothing is wanted, and those files are duplicates without bytes."""
    version = add_version_with_files(catalog, "e1", a=("1", 1))
    catalog.add_page(version, [(Blob("b", 5, "e", b"m" * 16), None)], ())
    catalog.mark_all_stored(version)
    assert catalog.list_wanted(version, 0, limit=9) == []
    assert [stored.sha256 for _, stored in catalog.list_stored(version, "a", limit=9)] == [b""]
    assert catalog.compute_totals(version).stored_files == 2


def blob_with_sha256(content: str) -> Blob:
    """Build a blob with a SHA-256 from a manifest and without an MD5."""
    data = content.encode()
    return Blob(content, len(data), "e", sha256=hashlib.sha256(data).digest())


def test_a_claim_is_kept_while_a_file_is_wanted(catalog: Catalog) -> None:
    """A wanted file keeps the SHA-256 of its manifest; a stored one has that of its bytes."""
    version = catalog.add_version(NEW)
    catalog.add_page(version, [(blob_with_sha256("a"), None), (Blob("b", 1, "e"), None)], ())
    (number, first), (_, second) = catalog.list_wanted(version, 0, limit=9)
    assert (first, second.sha256) == (blob_with_sha256("a"), None)
    stored = StoredFile(first, hashlib.sha256(b"a").digest(), 7, 1)
    catalog.mark_stored(version, [FileResult(number, stored, ParsedContent())])
    ((_, found),) = catalog.list_stored(version, limit=9)
    assert found == stored._replace(blob=first._replace(sha256=None))


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({}, True),
        ({"published_at": "t"}, True),
        ({"inventory": "walk"}, False),
        ({"inventory": "walk", "published_at": "t"}, True),
    ],
)
def test_a_released_file_keeps_its_sha256(catalog: Catalog, changes: dict[str, Any], known: bool) -> None:
    """A released file is wanted with its old SHA-256, hard links included; an unfinished walk accepts any bytes."""
    one, two = add_version_with_files(catalog, "e1", a=("1", 1)), add_version_with_files(catalog, "e2", b=("1", 1))
    for version in (one, two):
        catalog.update_version(replace(version, **changes))
    catalog.mark_wanted(one, ["a"], include_linked=True)
    for version in (one, two):
        ((_, wanted),) = catalog.list_wanted(version, 0, limit=9)
        assert wanted.sha256 == (hashlib.sha256(b"1").digest() if known else None)


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
        found = catalog.duplicates.find_by_digest(new, blobs, all_versions=every)
        assert {name: twins[0].stored.blob.name for name, twins in found.items()} == {"one": "a", "x": "a", "y": "b"}
    catalog.add_page(new, [(blob, None) for blob in blobs], ())
    assert catalog.duplicates.count_reusable_bytes(new) == 9
    assert catalog.duplicates.find_by_digest(new, [blob_with_sha256("one")._replace(size=4)]) == {}


def test_files_marked_stored_keep_their_sha256(catalog: Catalog) -> None:
    """A file that a dry run marks stored is the duplicate of files with the same SHA-256."""
    version, new = catalog.add_version(NEW), add_version_with_files(catalog, "new")
    catalog.add_page(version, [(blob_with_sha256("a"), None)], ())
    catalog.mark_all_stored(version)
    assert catalog.duplicates.find_by_digest(new, [blob_with_sha256("a")]).keys() == {"a"}


@pytest.mark.parametrize("column", ["modified", "home"])
def test_bytes_in_the_place_of_a_text_are_damage(tmp_path: Path, column: str) -> None:
    """Foreign bytes in the file are reported as damage with a hint."""
    import sqlite3

    from tilesync.errors import DestinationError

    path = tmp_path / "c.sqlite3"
    catalog = Catalog(path)
    catalog.add_version(Version(0, "e1", "e1", "i", "c", "2026", {"id": "e1"}))
    catalog.close()
    database = sqlite3.connect(path)
    database.execute(f"UPDATE version SET {column} = x'ffee'")
    database.commit()
    database.close()
    catalog = Catalog(path)
    with pytest.raises(DestinationError, match="damaged"):
        catalog.versions()
    catalog.close()
