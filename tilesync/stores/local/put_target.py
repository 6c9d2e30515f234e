"""Put target of small files: written whole, also by worker processes.

Nobody reads a version before it is published, so its files are created at their place: a rename would change two
folders more for each file, one of them shared by all processes. A file that a kill cut off is fetched again: it is not
in the catalog, nor are its size and MD5 those of the listing. An existing file is never opened, since it may be a hard
link of another version: then, and in a published version, a temporary file is renamed over it.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable
from dataclasses import replace
from threading import get_ident
from typing import ClassVar

from tilesync.errors import BlobDamaged
from tilesync.model import Blob, Digests, StoredFile, UnpackedFile
from tilesync.runtime.gzip import GZIP_DEFLATE_MAGIC
from tilesync.runtime.os_errors import to_destination_error
from tilesync.stores.local.directory_handles import DirectoryTree, Entry
from tilesync.stores.local.fs import write_new, write_whole
from tilesync.stores.local.gunzip import gunzip_to_file
from tilesync.stores.local.reader import BatchPathResolver, SafePathResolver
from tilesync.values import dataclass

_HOST = re.sub(r"[^A-Za-z0-9-]+", "-", platform.node())[:64]
"""Name of this machine: several may share the folder of temporary files."""


@dataclass(frozen=True, slots=True)
class LocalPutTarget:
    """Target for small files. Picklable, for worker processes.

    `unpacks`: gzip payloads are stored unpacked. `is_published`: a file appears only when it is whole.
    """

    resolver: SafePathResolver
    parts: DirectoryTree
    unpacks: bool = False
    is_published: bool = False

    requires_md5: ClassVar[bool] = False
    ca_certificates: ClassVar[bytes | None] = None

    def open_batch(self) -> LocalPutTarget:
        """Return the target for files that are written within seconds. Each of their folders is checked once."""
        return replace(self, resolver=BatchPathResolver(self.resolver))

    def put(self, version: str, blob: Blob, data: bytes, verify: Callable[[bytes], Digests]) -> StoredFile:
        """Verify the bytes and write the file. Raises what `verify` raises, UnsafeName, DestinationError."""
        return self.put_verified(version, blob, data, verify(data))

    def put_verified(self, version: str, blob: Blob, data: bytes, digests: Digests) -> StoredFile:
        """Write a file whose bytes are verified. Raises UnsafeName, DestinationError."""
        step = "write"
        try:  # `translate_os_errors` would take a tenth of the time of a small file
            is_packed = self.unpacks and data.startswith(GZIP_DEFLATE_MAGIC)
            entry = self.resolver.entry(version, blob.name, make=True)
            if not is_packed and not self.is_published:
                stamp = write_new(entry, data, blob.last_modified)
                if stamp is not None:
                    return StoredFile(blob, digests.sha256, *stamp)
            temporary = self.parts.folder().entry(f"whole-{_HOST}-{os.getpid()}-{get_ident()}")
            stored = self._write_unpacked(temporary, blob, data, digests) if is_packed else None
            stored = stored or StoredFile(blob, digests.sha256, *write_whole(temporary, data, blob.last_modified))
            step = "move"
            temporary.move(entry)
        except OSError as error:
            raise to_destination_error(error, f"cannot {step} {blob.name} into version {version}") from error
        return stored

    def _write_unpacked(self, temporary: Entry, blob: Blob, data: bytes, digests: Digests) -> StoredFile | None:
        """Write the file unpacked; None if the verified payload is broken: the container has it broken too."""
        try:
            stamp, size, sha256 = gunzip_to_file([data], temporary, blob.last_modified)
        except BlobDamaged:
            return None
        return StoredFile(blob, sha256, *stamp, UnpackedFile(size, digests.sha256))
