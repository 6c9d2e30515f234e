"""Worker target: where worker processes put small files of a version, and the store from which they read them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from tilesync.core.http_headers import CachePolicy
from tilesync.model import Blob, Digests, FileStamp, StoredFile, Version

if TYPE_CHECKING:
    from tilesync.transport.http1_connection import PoolResponse
    from tilesync.transport.http1_pool import PoolRequest


class PendingUpload(NamedTuple):
    """Upload of one file: the request to send, and the function that makes the stored file from its response."""

    request: PoolRequest
    make_stored_file: Callable[[PoolResponse], StoredFile]


class WorkerTarget(Protocol):
    """Target for small files. Picklable and hashable; equal targets of one process share their open folders.

    `requires_md5`: files need the MD5 of their bytes.
    """

    @property
    def requires_md5(self) -> bool:
        """True if files need the MD5 of their bytes."""

    @property
    def ca_certificates(self) -> bytes | None:
        """Certificates (PEM) that its server may have, besides those that are trusted anyway."""

    def open_batch(self) -> WorkerTarget:
        """Return the target for files that are stored within seconds: what holds for all of them is checked once."""

    def put_verified(self, version: str, blob: Blob, data: bytes, digests: Digests) -> StoredFile | PendingUpload:
        """Store a file whose bytes are verified, or return its upload. Raises RunErrors."""


class WorkerStore(Protocol):
    """Object store from which worker processes read small files. Picklable, and usable now."""

    @property
    def ca_certificates(self) -> bytes | None:
        """Certificates (PEM) that its server may have, besides those that are trusted anyway."""

    def make_read_request(self, version: str, stored: StoredFile) -> PoolRequest | None:
        """Return the request for a file of a version; None for a name that no store holds."""

    def read_stamp(self, response: PoolResponse) -> FileStamp:
        """Return the stamp of the file in a response."""


MakeWorkerStore = Callable[[], Awaitable[WorkerStore]]
"""Return the store for workers, usable now. Raises RunErrors."""

FindWorkerTarget = Callable[[Version], Awaitable[WorkerTarget]]
"""Return the target for the files of a version, usable now. Raises RunErrors."""

MakeWorkerTarget = Callable[[CachePolicy], Awaitable[WorkerTarget]]
"""Return the target for files that are served with these headers, usable now. Raises RunErrors."""
