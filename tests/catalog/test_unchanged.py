"""Unchanged files: which wanted files an earlier version stores, and what is copied from it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.catalog_rows import NEW, SHA, reference_to
from tilesync.catalog.catalog import Catalog
from tilesync.catalog.unchanged import _find_ranges
from tilesync.model import (
    Blob,
    Content,
    Diagnostic,
    FileResult,
    Kind,
    ParsedContent,
    RecordedFile,
    StoredFile,
    UnpackedFile,
    Version,
    VersionSummary,
)

EARLIER = replace(NEW, name="old", export="old", summary=VersionSummary(published_at="2026-03-01T08:30:00Z"))
BLOB = Blob("tiles/a", 5, "0x1", b"m" * 16)


def add_stored(catalog: Catalog, version: Version, *results: FileResult) -> Version:
    """Add a version that has stored these files."""
    added = catalog.add_version(version)
    catalog.add_stored_files(added, results)
    return added


def stored(blob: Blob = BLOB, content: ParsedContent | None = None) -> FileResult:
    return FileResult(0, StoredFile(blob, SHA, 7, 3), content or ParsedContent())


def list_names(catalog: Catalog, version: Version, earlier: Version, *, after: int = 0, limit: int = 100) -> list[str]:
    until = catalog.unchanged.last_wanted(version)
    return [each.name for each in catalog.unchanged.list_unchanged(version, earlier, after, until, limit=limit)]


@pytest.mark.parametrize(
    ("wanted", "is_unchanged"),
    [
        (BLOB, True),
        (BLOB._replace(etag="0x2", content_type="a/b", last_modified=1), True),
        (BLOB._replace(sha256=SHA, md5=b"n" * 16), True),
        (BLOB._replace(sha256=b""), True),
        (BLOB._replace(name="tiles/b"), False),
        (BLOB._replace(name="Tiles/a"), False),
        (BLOB._replace(size=6), False),
        (BLOB._replace(md5=b"n" * 16), False),
        (BLOB._replace(md5=None), False),
        (BLOB._replace(sha256=b"t" * 32), False),
    ],
)
def test_a_file_is_unchanged_if_name_size_and_digest_are_equal(
    catalog: Catalog, wanted: Blob, *, is_unchanged: bool
) -> None:
    """The SHA-256 that a file must have has priority over its MD5; without any of them nothing is proven."""
    catalog.set_case_insensitive(is_case_insensitive=True)
    earlier, version = add_stored(catalog, EARLIER, stored()), catalog.add_version(NEW)
    catalog.add_page(version, [(wanted, None)], ())
    assert list_names(catalog, version, earlier) == [wanted.name] * is_unchanged


def test_files_that_are_left_out(catalog: Catalog) -> None:
    """Empty files, files with diagnostics, and files that the earlier version wants again take the default path."""
    empty, damaged, lost = BLOB._replace(name="e", size=0), BLOB._replace(name="d"), BLOB._replace(name="l")
    content = ParsedContent(Kind.GLB, diagnostics=(Diagnostic("padding", "4 bytes"),))
    earlier = add_stored(catalog, EARLIER, stored(), stored(empty), stored(damaged, content), stored(lost))
    catalog.mark_wanted(earlier, ["l"])
    version = catalog.add_version(NEW)
    catalog.add_page(version, [(blob, None) for blob in (BLOB, empty, damaged, lost)], ())
    assert list_names(catalog, version, earlier) == [BLOB.name]


def test_unchanged_files_come_in_batches_up_to_a_row(catalog: Catalog) -> None:
    """A file that is listed later belongs to a later call, and stored files are not listed again."""
    names = [f"t/{number}" for number in range(5)]
    blobs = [BLOB._replace(name=name) for name in names]
    earlier = add_stored(catalog, EARLIER, *(stored(blob) for blob in blobs))
    version = catalog.add_version(NEW)
    assert catalog.unchanged.last_wanted(version) == 0
    catalog.add_page(version, [(blob, None) for blob in blobs[:4]], ())
    until = catalog.unchanged.last_wanted(version)
    catalog.add_page(version, [(blobs[4], None)], ())
    first = catalog.unchanged.list_unchanged(version, earlier, 0, until, limit=3)
    assert [each.name for each in first] == names[:3]
    rest = catalog.unchanged.list_unchanged(version, earlier, first[-1].file_id, until, limit=3)
    assert [each.name for each in rest] == names[3:4]
    catalog.unchanged.mark_stored(version, earlier, first)
    assert list_names(catalog, version, earlier) == names[3:]


def test_what_the_earlier_version_knows_is_copied(catalog: Catalog) -> None:
    """The version gets stamp, digests and references, but not derived ones, and keeps what its listing states."""
    kept, other = BLOB._replace(name="tiles/tileset.json"), BLOB._replace(name="z")
    content = ParsedContent(Kind.TILESET, (reference_to("x"), reference_to("y")), has_implicit_tiling=True)
    unpacked = StoredFile(kept, b"u" * 32, 7, 3, UnpackedFile(9, SHA))
    earlier = add_stored(
        catalog, replace(EARLIER, content=Content.DECODED), FileResult(0, unpacked, content), stored(other)
    )
    catalog.references.add(earlier, kept.name, ParsedContent(references=(reference_to("grown"),)), derived=True)
    version = catalog.add_version(replace(NEW, content=Content.DECODED))
    listed = kept._replace(etag="0x2", content_type="a/b", last_modified=5)
    catalog.add_page(version, [(listed, None), (BLOB, None), (other, None)], ())
    catalog.references.add(version, kept.name, ParsedContent(references=(reference_to("before"),)))
    catalog.references.add(version, BLOB.name, ParsedContent(references=(reference_to("untouched"),)))
    files = catalog.unchanged.list_unchanged(version, earlier, 0, catalog.unchanged.last_wanted(version), limit=9)
    assert [(each.name, each.listed_size, each.size, each.mtime_ns, each.inode) for each in files] == [
        (kept.name, 5, 9, 7, 3),
        ("z", 5, 5, 7, 3),
    ]
    catalog.unchanged.mark_stored(version, earlier, files)
    assert catalog.find_stored(version, [kept.name, BLOB.name, "z"]) == {
        kept.name: unpacked._replace(blob=listed),
        "z": StoredFile(other, SHA, 7, 3),
    }
    assert list(catalog.references.read_contents(version, [kept.name, BLOB.name], references_per_part=9)) == [
        (kept.name, content),
        (BLOB.name, ParsedContent(references=(reference_to("untouched"),))),
    ]


def test_the_earlier_version_is_the_newest_finished_one_of_the_same_form(catalog: Catalog) -> None:
    """Unfinished and retired versions, those that store files in another form, and the version itself are left out."""
    assert catalog.unchanged.find_earlier(catalog.add_version(NEW)) is None
    first = catalog.add_version(EARLIER)
    catalog.add_version(replace(EARLIER, name="decoded", content=Content.DECODED))
    catalog.add_version(replace(NEW, name="unfinished"))
    retired = replace(EARLIER, name="retired").with_times(retired_at="2026-03-02T08:30:00Z")
    catalog.update_version(replace(retired, serial=catalog.add_version(retired).serial))
    own = catalog.add_version(replace(EARLIER, name="own"))
    assert catalog.unchanged.find_earlier(own) == first


@pytest.mark.parametrize(
    ("numbers", "ranges"),
    [([], []), ([0], [(0, 0)]), ([4, 5, 6], [(4, 6)]), ([1, 3, 4, 9], [(1, 1), (3, 4), (9, 9)])],
)
def test_ranges_of_consecutive_numbers(numbers: list[int], ranges: list[tuple[int, int]]) -> None:
    """A gap begins a new range."""
    assert list(_find_ranges(numbers)) == ranges


def test_the_stamps_of_stored_files(catalog: Catalog) -> None:
    """Size and mtime are those of the file on disk, for the stored files of one version, in the order of their keys."""
    packed, plain = BLOB._replace(name="b"), BLOB._replace(name="a")
    unpacked = FileResult(0, StoredFile(packed, SHA, 9, 4, UnpackedFile(50, b"p" * 32)))
    version = add_stored(catalog, EARLIER, unpacked, stored(plain))
    add_stored(catalog, NEW, stored(BLOB._replace(name="c")))
    catalog.add_wanted(version, "wanted")
    both = [("a", RecordedFile("a", 5, 7)), ("b", RecordedFile("b", 50, 9))]
    assert catalog.unchanged.list_stamps(version, "", limit=9) == both
    assert catalog.unchanged.list_stamps(version, "", limit=1) == both[:1]
    assert catalog.unchanged.list_stamps(version, "a", limit=9) == both[1:]
