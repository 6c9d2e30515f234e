"""Manifest of a package that tilesync did not write: made from its directory, without SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from tilesync.core.manifest import UNPROVEN, format_timestamp
from tilesync.core.safe_names import make_version_name
from tilesync.errors import DamagedPackage
from tilesync.model import ROOT, Inventory
from tilesync.stores.packages.readers.package import OWN_ENTRIES, Package, PackageEntry

MAX_STEM_CHARS = 60
"""Characters of the file name that the name of the version begins with."""

DIGEST_CHARS = 16


class ForeignManifest:
    """Manifest of the files in a package.

    The version is named after the package and its content: names, sizes and CRC-32 of all files. In a format without
    CRC-32, size and mtime of the package stand for the content.
    """

    def __init__(self, package: Package) -> None:
        self._package = package

    def _entries(self) -> Iterator[PackageEntry]:
        return (entry for entry in self._package.entries() if entry.name not in OWN_ENTRIES)

    @cached_property
    def header(self) -> Mapping[str, Any]:
        """First line. Raises DamagedPackage for a package whose entries contradict each other, or without a root."""
        self._package.refuse_bad_structure()
        digest, files, size, has_root, has_checksums = hashlib.sha256(), 0, 0, False, True
        for entry in self._entries():
            digest.update(f"{entry.name}\0{entry.size}\0{entry.crc32}\n".encode())
            files, size = files + 1, size + entry.size
            has_root = has_root or entry.name == ROOT
            has_checksums = has_checksums and entry.crc32 is not None
        if not has_root:
            raise self._no_root()
        file = self._package.file
        if not has_checksums:
            digest.update(f"{file.stamp.size} {file.stamp.mtime_ns}".encode())
        modified = format_timestamp(datetime.fromtimestamp(max(0, file.stamp.mtime_ns) // 10**9, UTC))
        name = make_version_name(f"{file.path.stem[:MAX_STEM_CHARS]}-{digest.hexdigest()[:DIGEST_CHARS]}")
        return {
            "version": name,
            "export": {"id": name, "displayName": file.path.name},
            "imodel": None,
            "changeset": None,
            "modified": modified,
            "files": files,
            "bytes": size,
            "finished": modified,
            "inventory": Inventory.LIST.value,
            "container": "",
            "include": [],
            "exclude": [],
            "proof": UNPROVEN,
        }

    def _no_root(self) -> DamagedPackage:
        found = next((entry.name for entry in self._entries() if entry.name.endswith(f"/{ROOT}")), None)
        hint = f"{found} is in it: pack the content of that folder, without the folder" if found else None
        return DamagedPackage(f"the package {self._package.file.path} has no {ROOT} at its top", hint=hint)

    def lines(self) -> Iterator[Mapping[str, Any]]:
        """Yield the header, then a line for each file."""
        yield self.header
        stamp = self._package.file.stamp
        for entry in self._entries():
            crc = f"{entry.crc32:08x}" if entry.crc32 is not None else f"{stamp.mtime_ns:x}-{entry.offset:x}"
            yield {
                "name": entry.name,
                "size": entry.size,
                "sha256": None,
                "proof": UNPROVEN,
                "md5": None,
                "etag": f"{crc}-{entry.size:x}",
                "content_type": None,
                "content_encoding": None,
                "last_modified": None,
            }
