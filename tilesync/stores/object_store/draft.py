"""Draft of a large file: sent to an object store chunk by chunk, and published when it is whole."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from tilesync.model import Blob, Chunk, Digests, StoredFile
from tilesync.model.storage import ObjectInfo
from tilesync.protocols import Upload
from tilesync.runtime.threads import run_in_thread
from tilesync.stores.object_store.listing_cache import hash_etag

if TYPE_CHECKING:
    from tilesync.stores.object_store.lock import LeaseRenewer

WaitForBandwidth = Callable[[int], Awaitable[None]]
"""Wait until this many bytes may be sent."""


def to_stored_file(blob: Blob, digests: Digests, info: ObjectInfo) -> StoredFile:
    """Return the stored file for an object, with the MD5 of its bytes in place of the one its source stated."""
    return StoredFile(blob._replace(md5=digests.md5), digests.sha256, hash_etag(info.etag))


class ObjectDraft:
    """A blob that is uploaded chunk by chunk. `begin_upload` gets the first bytes, which decide the headers."""

    def __init__(
        self,
        blob: Blob,
        begin_upload: Callable[[bytes], Upload],
        guard: LeaseRenewer,
        wait_for_bandwidth: WaitForBandwidth | None,
    ) -> None:
        self._blob = blob
        self._begin_upload = begin_upload
        self._guard = guard
        self._wait_for_bandwidth = wait_for_bandwidth
        self._upload: Upload | None = None
        self.received_bytes = 0

    async def received_chunks(self) -> AsyncIterator[bytes]:
        """Yield nothing: an unfinished upload cannot be read back."""
        for chunk in tuple[bytes, ...]():
            yield chunk

    async def append(self, chunk: Chunk, check: Callable[[], None] | None = None) -> None:
        """Add `chunk` after the received bytes."""
        if check is not None:
            await run_in_thread(check)
        if self._wait_for_bandwidth is not None:
            await self._wait_for_bandwidth(len(chunk))
        self._guard.require_held()
        self._upload = self._upload or self._begin_upload(bytes(chunk))
        await self._upload.append(bytes(chunk))
        self.received_bytes += len(chunk)

    async def restart(self) -> None:
        """Discard the received bytes."""
        upload, self._upload, self.received_bytes = self._upload, None, 0
        if upload is not None:
            await upload.abort()

    async def commit(self, digests: Digests) -> StoredFile:
        """Publish the whole file under its final name."""
        self._guard.require_held()
        self._upload = self._upload or self._begin_upload(b"")
        found = await self._upload.finish(digests.md5)
        self._upload, self.received_bytes = None, 0
        return to_stored_file(self._blob, digests, found)

    async def suspend(self) -> None:
        """Abort the upload: a later run reads the blob again."""
        await self.restart()
