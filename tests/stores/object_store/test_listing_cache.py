"""Cache of listed objects, and the comparison with stored files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tilesync.model import Blob, StoredFile
from tilesync.model.storage import ObjectInfo
from tilesync.stores.object_store.listing_cache import ListingCache, has_same_md5, hash_etag, is_unchanged

MD5 = b"m" * 16


@pytest.fixture
def cache() -> Iterator[ListingCache]:
    """Make an empty cache, and close it."""
    cache = ListingCache()
    yield cache
    cache.close()


def test_listed_objects_are_found_by_name(cache: ListingCache) -> None:
    """Objects of all pages are found with all properties; other names and versions are left out."""
    pages = [[ObjectInfo(f"{page}/{number}", number, "e", MD5) for number in range(700)] for page in range(2)]
    cache.replace_listing("v1", pages)
    names = [each.name for page in pages for each in page]
    assert cache.find_many("v1", [*names, "none"]) == {each.name: each for page in pages for each in page}
    assert cache.find_many("v2", names) == {}


def test_a_new_listing_replaces_the_old_one(cache: ListingCache) -> None:
    """Only the objects of the last listing of a version are found; other versions stay."""
    for version in ("v1", "v2"):
        cache.replace_listing(version, [[ObjectInfo("a", 1, "e")]])
    cache.replace_listing("v1", [[ObjectInfo("b", 2, "f")], []])
    assert cache.find_many("v1", ["a", "b"]) == {"b": ObjectInfo("b", 2, "f")}
    assert cache.find_many("v2", ["a", "b"]) == {"a": ObjectInfo("a", 1, "e")}


def test_closing_an_unused_cache() -> None:
    """A cache that was never used can be closed."""
    ListingCache().close()


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (None, False),
        (ObjectInfo("a", 3, "e1"), True),
        (ObjectInfo("a", 4, "e1", MD5), False),
        (ObjectInfo("a", 3, "e2", MD5), True),
        (ObjectInfo("a", 3, "e2"), False),
    ],
)
def test_an_object_is_compared_with_its_stored_file(info: ObjectInfo | None, *, expected: bool) -> None:
    """Size and ETag prove that an object is unchanged; with another ETag its MD5 does."""
    stored = StoredFile(Blob("a", 3, "", MD5), b"s" * 32, hash_etag("e1"))
    assert is_unchanged(stored, info) is expected


def test_without_md5_nothing_is_the_same() -> None:
    """Two blobs without an MD5 are not known to be the same, whatever their size."""
    assert not is_unchanged(StoredFile(Blob("a", 3), b"s" * 32, 7), ObjectInfo("a", 3, "e"))
    assert not has_same_md5(Blob("a", 3), ObjectInfo("a", 3, "e"))
    assert has_same_md5(Blob("a", 3, "", MD5), ObjectInfo("b", 3, "e", MD5))


def test_the_stamp_of_an_etag_fits_the_catalog() -> None:
    """Stamps are below 2^63, equal for equal ETags and different for others."""
    stamps = {hash_etag(str(number)) for number in range(1000)}
    assert len(stamps) == 1000
    assert max(stamps) < 1 << 63
