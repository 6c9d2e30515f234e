"""Fill a catalog with listings and stored files."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from tilesync.catalog.catalog import Catalog
from tilesync.catalog.schema import EMPTY, NOT_EMPTY
from tilesync.model import (
    Blob,
    ExportFacts,
    FileResult,
    Inventory,
    Kind,
    ParsedContent,
    Reference,
    Role,
    StoredFile,
    Version,
)

SHA = b"s" * 32
NEW = Version(
    0,
    "e1",
    "e1",
    facts=ExportFacts(imodel="i", changeset="c", modified="2026", record={"id": "e1", "deep": {"n": [1]}}),
)
WALKED = replace(NEW, inventory=Inventory.WALK, container_url="https://host/container")


def names_in_listing_order(catalog: Catalog, version: Version) -> list[str]:
    """List the wanted names, in listing order."""
    rows = [
        *catalog.list_wanted(version, 0, limit=100, sizes=NOT_EMPTY),
        *catalog.list_wanted(version, 0, limit=100, sizes=EMPTY),
    ]
    return [blob.name for _, blob in sorted(rows)]


def add_blobs(catalog: Catalog, version: Version, *blobs: Blob | str, folders: tuple[str, ...] = ()) -> None:
    catalog.add_page(version, [(b if isinstance(b, Blob) else Blob(b, 1), None) for b in blobs], folders)


def relist(catalog: Catalog, version: Version) -> Version:
    """Start a new listing of the same version."""
    version = replace(version, listing=version.listing.restart())
    catalog.update_version(version)
    return version


def reference_to(name: str, role: Role = Role.CONTENT) -> Reference:
    return Reference(name, role)


def tileset_content(*names: str, kind: Kind = Kind.TILESET, implicit: bool = False) -> ParsedContent:
    """Build the content of a tileset that references these."""
    return ParsedContent(kind, tuple(reference_to(name) for name in names), has_implicit_tiling=implicit)


def store_files(catalog: Catalog, version: Version, **contents: ParsedContent) -> int:
    """Mark wanted files as stored; dots in a name are written `_`."""
    named = {name.replace("_", "."): content for name, content in contents.items()}
    rows = [(number, blob) for number, blob in catalog.list_wanted(version, 0, limit=100) if blob.name in named]
    assert len(rows) == len(named)
    results = [
        FileResult(number, StoredFile(blob._replace(size=5, etag="0x1"), SHA, 7), named[blob.name])
        for number, blob in rows
    ]
    return catalog.mark_stored(version, results)


def wanted_names(catalog: Catalog, version: Version) -> list[str]:
    """List the wanted names in the order in which readers get them."""
    return [blob.name for _, blob in catalog.list_wanted(version, 0, limit=100)]


def find_file_id(catalog: Catalog, version: Version, name: str) -> int:
    return next(number for number, blob in catalog.list_wanted(version, 0, limit=100) if blob.name == name)


def add_version_with_files(catalog: Catalog, name: str, **contents: tuple[str, int]) -> Version:
    """Add a version with stored files, each with a content and an inode; `_` in a name is a slash."""
    version = catalog.add_version(replace(NEW, name=name, export=name))
    results = []
    for written, (content, inode) in contents.items():
        data = content.encode()
        blob = Blob(written.replace("_", "/"), len(data), "0x8D", hashlib.md5(data).digest())
        parsed = ParsedContent(Kind.TILESET, (Reference("a", Role.CONTENT),))
        results.append(FileResult(0, StoredFile(blob, hashlib.sha256(data).digest(), 7, inode), parsed))
    catalog.add_stored_files(version, results)
    return version


def blob_with_sha256(content: str) -> Blob:
    """Build a blob with a SHA-256 from a manifest and without an MD5."""
    data = content.encode()
    return Blob(content, len(data), "e", sha256=hashlib.sha256(data).digest())


FULL = Blob("a/ä", 3, "0x8D", b"m" * 16, "t", "gzip", 1772353800)
