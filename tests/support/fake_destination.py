"""Fake destination in memory, with versions, files and a pointer that tests can edit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tilesync.catalog.catalog import Catalog
from tilesync.core.manifest import encode_line, make_header, make_line
from tilesync.errors import DestinationError
from tilesync.model import (
    EVERYTHING,
    Blob,
    ExportFacts,
    FileStamp,
    Globs,
    ListingState,
    StoredFile,
    Version,
    VersionSummary,
)
from tilesync.protocols import PresencePage, WholeFile


class UnusedFileMethods:
    """Methods of stored files that tests of readers never call."""

    def prepare_listing(self, version: Version) -> None:
        """Not used by these tests."""
        raise NotImplementedError

    def changed_pages(self, version: Version, catalog: Catalog) -> Iterator[list[StoredFile]]:
        """Not used by these tests."""
        raise NotImplementedError

    def presence_pages(self, version: Version, catalog: Catalog, cursor: str) -> Iterator[PresencePage]:
        """Not used by these tests."""
        raise NotImplementedError

    def stamp(self, version: Version, name: str) -> FileStamp | None:
        """Not used by these tests."""
        raise NotImplementedError

    def unchanged(self, version: Version, stored: Sequence[StoredFile]) -> list[bool]:
        """Not used by these tests."""
        raise NotImplementedError


class FakeDestination(UnusedFileMethods):
    """Implements the parts of the destination protocols that a source uses. `broken`: the error of reading a file, by
    name; `step`: bytes per read.
    """

    parallel_reads = 1

    def __init__(self, *, chunk_bytes: int = 1 << 20) -> None:
        self.chunk_bytes = chunk_bytes
        self.manifests: dict[str, list[Any]] = {}
        self.files: dict[tuple[str, str], bytes] = {}
        self.read_errors: dict[str, Exception] = {}
        self.latest_document: dict[str, Any] | None = None
        self.opened_names: list[str] = []

    def add_version(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        export: str = "",
        modified: str = "",
        changeset: str = "c",
        globs: Globs = EVERYTHING,
        published_at: str = "",
        missing: Sequence[str] = (),
    ) -> Version:
        """Add a version with these files."""
        export = export or name
        version = Version(
            0,
            name,
            export,
            facts=ExportFacts("i", changeset, modified, {"id": export, "displayName": "City"}),
            listing=ListingState(is_complete=True),
            container_url="https://a/c",
            globs=globs,
            summary=VersionSummary(
                published_at=published_at or f"2026-04-{len(self.manifests) + 1:02d}T00:00:00Z",
                files=len(files),
                bytes=sum(map(len, files.values())),
            ),
        )
        rows = [
            make_line(StoredFile(Blob(each, len(data), "e"), hashlib.sha256(data).digest(), 0))
            for each, data in files.items()
        ]
        self.manifests[name] = [make_header(version, missing), *rows]
        self.files.update(((name, each), data) for each, data in files.items())
        return version

    def set_latest(self, name: str, **more: Any) -> None:
        """Point at a version."""
        self.latest_document = {"version": name, "manifest": f"manifests/{name}.jsonl", **more}

    # --- Published ---

    def owner(self) -> str | None:
        """Return None: no owner is recorded."""
        return None

    def is_vacant(self) -> bool:
        """Do nothing: the content is given by the test."""
        return False

    def last_success(self) -> Mapping[str, Any] | None:
        """Return None: no run ended here."""
        return None

    def manifest(self, version: str) -> Iterator[Mapping[str, Any]]:
        """Return the lines of a manifest."""
        if version not in self.manifests:
            raise DestinationError(f"cannot read the manifest of {version}")
        yield from self.manifests[version]

    def manifest_chunks(self, version: str) -> Iterator[bytes]:
        """Return the bytes of a manifest, `chunk_bytes` at a time."""
        data = b"".join(map(encode_line, self.manifest(version)))
        yield from (data[start : start + self.chunk_bytes] for start in range(0, len(data), self.chunk_bytes))

    def manifest_names(self) -> list[str]:
        """Return the versions."""
        return sorted(self.manifests)

    def latest(self) -> Mapping[str, Any] | None:
        """Return the version that the pointer names."""
        return self.latest_document

    # --- HeldFiles ---

    def worker_reader(self) -> None:
        """Return None: workers cannot read these files."""

    def size(self, version: Version, name: str) -> int | None:
        """Return the size of a file."""
        data = self.files.get((version.name, name))
        return None if data is None else len(data)

    def chunks(self, version: Version, name: str, *, offset: int = 0) -> Iterator[bytes]:
        """Return the bytes of a file."""
        self.opened_names.append(name)
        data = self._read(version, name)
        for start in range(offset, len(data), self.chunk_bytes):
            yield data[start : start + self.chunk_bytes]

    def digest(self, version: Version, name: str) -> bytes | None:
        """Return the SHA-256 of a file."""
        return None if self.size(version, name) is None else hashlib.sha256(self._read(version, name)).digest()

    def _read(self, version: Version, name: str) -> bytes:
        if name in self.read_errors:
            raise DestinationError(f"cannot read {name}") from self.read_errors[name]
        if (version.name, name) not in self.files:
            raise DestinationError(f"cannot read {name}")
        return self.files[version.name, name]

    # --- not asked for ---

    def retired_names(self) -> set[str]:
        """Not used by these tests."""
        raise NotImplementedError

    def read_sidecar(self, version: Version) -> Iterator[Mapping[str, Any]] | None:
        """Not used by these tests."""
        raise NotImplementedError

    def prefix(self, version: Version) -> str:
        """Return the folder of the version."""
        return f"versions/{version.name}/"

    def pointer_digest(self) -> str | None:
        """Not used by these tests."""
        raise NotImplementedError

    def points_at(self, version: Version, pointer_sha256: str) -> bool:
        """Not used by these tests."""
        raise NotImplementedError

    def has_staged_files(self, version: Version) -> bool:
        """Not used by these tests."""
        raise NotImplementedError

    def is_complete(self, version: Version) -> bool:
        """Not used by these tests."""
        raise NotImplementedError

    def read_into(self, version: Version, name: str, consume: Callable[[bytes], object]) -> FileStamp | None:
        """Not used by these tests."""
        raise NotImplementedError

    def read_whole(self, version: Version, stored: Sequence[StoredFile]) -> Iterator[WholeFile | None]:
        """Not used by these tests."""
        raise NotImplementedError

    def read(self, version: Version, name: str) -> bytes:
        """Not used by these tests."""
        raise NotImplementedError
