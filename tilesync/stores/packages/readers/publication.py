"""Publication of a package: its manifest, and what follows from it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from tilesync.core.foreign_json import parse_json, read_mapping
from tilesync.core.manifest import encode_line, read_header
from tilesync.core.safe_names import quote_name
from tilesync.errors import DamagedPackage, DestinationError
from tilesync.events import Warned
from tilesync.model import ROOT, Version
from tilesync.protocols import Observer
from tilesync.stores.base import split_lines
from tilesync.stores.packages.formats import MANIFEST_ENTRY
from tilesync.stores.packages.readers.foreign_manifest import ForeignManifest
from tilesync.stores.packages.readers.package import Package, PackageEntry, find_file, find_manifest

MAX_NAMES_IN_WARNING = 3


class PackagePublication:
    """Read access to the one version in a package: it is the current one.

    A package that tilesync did not write has no manifest: one is made from its directory, without SHA-256.
    """

    def __init__(self, package: Package, observe: Observer) -> None:
        self._package = package
        self._observe = observe

    @cached_property
    def _manifest_entry(self) -> PackageEntry | None:
        return find_manifest(self._package)

    @cached_property
    def _foreign(self) -> ForeignManifest | None:
        if self._manifest_entry is not None:
            return None
        self._observe(Warned(_describe_proof(self._package)))
        if ignored := list(islice(self._package.ignored_names(), MAX_NAMES_IN_WARNING)):
            names = ", ".join(map(quote_name, ignored))
            self._observe(Warned(f"links and devices in the package {self._path} are left out: {names}"))
        return ForeignManifest(self._package)

    @property
    def is_foreign(self) -> bool:
        """True if tilesync did not write the package."""
        return self._foreign is not None

    @cached_property
    def _header(self) -> Mapping[str, Any]:
        """First line of the manifest. Raises DamagedPackage if it is not valid."""
        try:
            header = next(self._lines())
            read_header(header, name=str(header["version"]))
        except (StopIteration, KeyError, TypeError, ValueError) as error:
            raise self._damaged_manifest(error) from error
        return header

    def _lines(self) -> Iterator[Mapping[str, Any]]:
        if self._manifest_entry is None:
            assert self._foreign is not None
            yield from self._foreign.lines()
            return
        try:
            for line in split_lines(self._package.chunks(self._manifest_entry)):
                yield read_mapping(parse_json(line))
        except ValueError as error:
            raise self._damaged_manifest(error) from error

    def _damaged_manifest(self, error: Exception) -> DamagedPackage:
        return DamagedPackage(
            f"the manifest {MANIFEST_ENTRY} in the package {self._path} is damaged: {error or 'it is empty'}"
        )

    @property
    def _path(self) -> Path:
        return self._package.file.path

    def manifest(self, version: str) -> Iterator[Mapping[str, Any]]:
        """Yield the lines of the manifest, the header first. Raises DestinationError if it cannot be read."""
        self._check_version(version)
        yield from self._lines()

    def manifest_chunks(self, version: str) -> Iterator[bytes]:
        """Yield the exact bytes of the manifest, piece by piece. Raises DestinationError if it cannot be read."""
        self._check_version(version)
        if self._manifest_entry is not None:
            yield from self._package.chunks(self._manifest_entry)
        else:
            yield from map(encode_line, self._lines())

    def _check_version(self, version: str) -> None:
        if version != self._header["version"]:
            raise DestinationError(f"the package {self._path} has no version {version}")

    def manifest_names(self) -> list[str]:
        """Return the name of the version."""
        return [str(self._header["version"])]

    def retired_names(self) -> set[str]:
        """Return an empty set: a package keeps what it has."""
        return set()

    def read_sidecar(self, version: Version) -> None:
        """Return None: the files can be read again."""

    def latest(self) -> Mapping[str, Any]:
        """Return what `latest.json` would say: the version of the package is the current one."""
        header = self._header
        return {
            "version": header["version"],
            "export": header["export"]["id"],
            "imodel": header["imodel"],
            "owner": self.owner(),
            "changeset": header["changeset"],
            "finished": header["finished"],
            "tileset": ROOT,
            "manifest": MANIFEST_ENTRY,
        }

    def owner(self) -> str | None:
        """Return the iModel of the version, or its container; None for a package that tilesync did not write."""
        return self._header["imodel"] or self._header.get("container") or None

    def is_vacant(self) -> bool:
        """Return False: a package has a version. Raises DamagedPackage if its manifest cannot be read."""
        return not self.manifest_names()

    def last_success(self) -> None:
        """Return None: no run ends in a package."""

    def prefix(self, version: Version) -> str:
        """Return the empty string: the root tileset is at the top of the package."""
        return ""

    def pointer_digest(self) -> str | None:
        """Return the SHA-256 of the root tileset in hexadecimal, or None."""
        entry = find_file(self._package, ROOT)
        if entry is None:
            return None
        digest = hashlib.sha256()
        for chunk in self._package.chunks(entry):
            digest.update(chunk)
        return digest.hexdigest()

    def points_at(self, version: Version, pointer_sha256: str) -> bool:
        """Return whether the root tileset has this digest, and the version is that of the package."""
        return version.name in self.manifest_names() and self.pointer_digest() == pointer_sha256

    def is_complete(self, version: Version) -> bool:
        """Return True: no other document names the version."""
        return True

    def has_staged_files(self, version: Version) -> bool:
        """Return False: a package is complete when it gets its name."""
        return False


def _describe_proof(package: Package) -> str:
    """Say what can be proven of a package without a manifest."""
    first = package.first()
    proof = "the CRC-32 of each file" if first is not None and first.crc32 is not None else "the size of each file"
    return (
        f"tilesync did not write the package {package.file.path}: it has no manifest, so that no SHA-256 proves its"
        f" files; {proof}, the structure of the package and the references of the tileset are checked"
    )
