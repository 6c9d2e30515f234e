"""Upload small files of a version to an Azure container, and read them, from worker processes."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from tilesync.azure.responses import parse_etag
from tilesync.core.http_headers import CachePolicy
from tilesync.core.safe_names import find_universal_problem
from tilesync.model import Blob, Digests, FileStamp, SasUrl, StoredFile
from tilesync.model.storage import HEAD_BYTES, ObjectInfo
from tilesync.stores.azure.block_upload import put_blob_headers
from tilesync.stores.azure.errors import API_VERSION
from tilesync.stores.object_store.draft import to_stored_file
from tilesync.stores.object_store.listing_cache import hash_etag
from tilesync.stores.object_store.object_names import object_key
from tilesync.stores.worker_target import PendingUpload
from tilesync.transport.http1_connection import PoolResponse
from tilesync.transport.http1_pool import PoolRequest
from tilesync.values import dataclass


@dataclass(frozen=True, slots=True)
class AzurePutTarget:
    """A container and a SAS link that is valid now. Picklable."""

    link: SasUrl
    prefix: str
    cache_policy: CachePolicy

    requires_md5: ClassVar[bool] = True
    ca_certificates: ClassVar[bytes | None] = None

    def open_batch(self) -> AzurePutTarget:
        """Return the target for files of one batch."""
        return self

    def put_verified(self, version: str, blob: Blob, data: bytes, digests: Digests) -> PendingUpload:
        """Return the upload of a file with verified bytes; the service checks its MD5."""
        headers = self.cache_policy.file_headers(blob, data[:HEAD_BYTES])
        url = self.link.blob_url(self.prefix + object_key(version, blob.name))
        request = PoolRequest(url, {"x-ms-version": API_VERSION, **put_blob_headers(headers, digests.md5)}, body=data)
        return PendingUpload(request, partial(_make_stored_file, blob, digests))


@dataclass(frozen=True, slots=True)
class AzureWorkerStore:
    """A container and a SAS link that is valid now, to read from. Picklable."""

    link: SasUrl
    prefix: str

    ca_certificates: ClassVar[bytes | None] = None

    def make_read_request(self, version: str, stored: StoredFile) -> PoolRequest | None:
        """Return the request for a file; None for an unsafe name, which is never sent."""
        if find_universal_problem(stored.blob.name):
            return None
        url = self.link.blob_url(self.prefix + object_key(version, stored.blob.name))
        return PoolRequest(url, {"x-ms-version": API_VERSION}, stored.size)

    def read_stamp(self, response: PoolResponse) -> FileStamp:
        """Return the stamp that stands for the ETag of a response."""
        return FileStamp(hash_etag(parse_etag(response.etag)))


def _make_stored_file(blob: Blob, digests: Digests, response: PoolResponse) -> StoredFile:
    return to_stored_file(blob, digests, ObjectInfo(blob.name, blob.size, parse_etag(response.etag), digests.md5))
