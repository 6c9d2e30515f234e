"""Read the stored files of a version, and prove each one by its digest in the manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from tilesync.errors import BlobDamaged, DestinationError
from tilesync.events import Finding
from tilesync.jobs.versions.file_check import check_size
from tilesync.model import StoredFile, Version
from tilesync.protocols import StoredFiles
from tilesync.protocols.package import MAX_WHOLE_BYTES


class UnprovenFile(Exception):
    """A file is not there, not readable, or not as the manifest says; `finding` says which."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


class ProvenFiles:
    """Reader of the files of one version. Each file is compared with its SHA-256, or its MD5 if it has none."""

    def __init__(self, files: StoredFiles, version: Version) -> None:
        self._files = files
        self._version = version

    def read(self, stored: StoredFile) -> bytes | UnprovenFile | None:
        """Read a small file, or return why it is not proven. None for a large file, which `chunks` reads."""
        if stored.size > MAX_WHOLE_BYTES:
            return None
        try:
            return b"".join(self.chunks(stored))
        except UnprovenFile as error:
            return error

    def chunks(self, stored: StoredFile) -> Iterator[bytes]:
        """Yield the bytes of a file, never more than its size; at the end they are proven. Raises UnprovenFile."""
        digest = hashlib.sha256() if stored.sha256 else hashlib.md5(usedforsecurity=False)
        received_bytes = 0
        try:
            for chunk in self._files.chunks(self._version, stored.blob.name):
                received_bytes += len(chunk)
                if received_bytes > stored.size:
                    break
                digest.update(chunk)
                yield chunk
        except DestinationError as error:
            raise self._explain(stored, str(error), "unreadable") from error
        except BlobDamaged as error:  # an entry of a package whose own checksum is wrong
            raise self._explain(stored, f"is damaged: {error}", "content") from error
        if received_bytes != stored.size or digest.digest() != (stored.sha256 or stored.blob.md5):
            kind = "SHA-256" if stored.sha256 else "MD5"
            raise self._explain(stored, f"its {kind} differs from the manifest", "content")

    def _explain(self, stored: StoredFile, message: str, problem: str) -> UnprovenFile:
        """Return the finding of a file: a missing file, or a wrong size, comes first."""
        found = check_size(self._files, self._version, stored) or Finding(stored.blob.name, problem, message)
        return UnprovenFile(Finding(found.name, found.problem, found.message, version=self._version.name))
