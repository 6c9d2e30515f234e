"""Upload small files of a version to a bucket, and read them, from worker processes."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import ClassVar

from tilesync.azure.responses import parse_etag
from tilesync.core.http_headers import CachePolicy
from tilesync.core.safe_names import find_universal_problem
from tilesync.model import Blob, Digests, FileStamp, StoredFile
from tilesync.model.storage import HEAD_BYTES, ObjectHeaders
from tilesync.stores.object_store.draft import to_stored_file
from tilesync.stores.object_store.listing_cache import hash_etag
from tilesync.stores.object_store.object_names import object_key
from tilesync.stores.s3.errors import make_object_info
from tilesync.stores.s3.signing import RequestSigner, SignedAccess
from tilesync.stores.worker_target import PendingUpload
from tilesync.transport.http1_connection import PoolResponse
from tilesync.transport.http1_pool import PoolRequest
from tilesync.values import dataclass


class WorkerAccess:
    """Access of worker processes to a bucket. `load_signer` returns a signer whose key is valid now."""

    def __init__(self, access: SignedAccess, prefix: str, load_signer: Callable[[], Awaitable[RequestSigner]]) -> None:
        self._access = access
        self._prefix = prefix
        self._load_signer = load_signer

    async def make_put_target(self, cache_policy: CachePolicy) -> S3PutTarget:
        """Return the target to which workers upload small objects. Raises RunErrors."""
        has_checksums, ca_certificates = self._access.has_checksums, self._access.ca_certificates
        return S3PutTarget(await self._load_signer(), self._prefix, cache_policy, has_checksums, ca_certificates)

    async def make_worker_store(self) -> S3WorkerStore:
        """Return the store from which workers read small objects. Raises RunErrors."""
        return S3WorkerStore(await self._load_signer(), self._prefix, self._access.ca_certificates)


@dataclass(frozen=True, slots=True)
class S3PutTarget:
    """Prefix of a bucket, and a key that is valid now. Picklable.

    `has_checksums`: the service also stores the SHA-256, as objects that obstore writes have it.
    """

    signer: RequestSigner
    prefix: str
    cache_policy: CachePolicy
    has_checksums: bool
    ca_certificates: bytes | None

    requires_md5: ClassVar[bool] = True

    def open_batch(self) -> S3PutTarget:
        """Return the target for files of one batch."""
        return self

    def put_verified(self, version: str, blob: Blob, data: bytes, digests: Digests) -> PendingUpload:
        """Return the upload of a file with verified bytes; the service checks its SHA-256."""
        name = self.prefix + object_key(version, blob.name)
        headers = _make_headers(self.cache_policy.file_headers(blob, data[:HEAD_BYTES]))
        if self.has_checksums:
            headers["x-amz-checksum-sha256"] = b64encode(digests.sha256).decode()
        signed = self.signer.sign("PUT", name, headers, datetime.now(UTC), body_sha256=digests.sha256.hex())
        request = PoolRequest(signed.url, signed.headers, body=data, expects_document=True)
        return PendingUpload(request, partial(_make_stored_file, blob, digests))


@dataclass(frozen=True, slots=True)
class S3WorkerStore:
    """Prefix of a bucket, and a key that is valid now, to read with. Picklable."""

    signer: RequestSigner
    prefix: str
    ca_certificates: bytes | None

    def make_read_request(self, version: str, stored: StoredFile) -> PoolRequest | None:
        """Return the request for a file; None for an unsafe name, which is never sent."""
        if find_universal_problem(stored.blob.name):
            return None
        name = self.prefix + object_key(version, stored.blob.name)
        signed = self.signer.sign("GET", name, {}, datetime.now(UTC))
        return PoolRequest(signed.url, signed.headers, stored.size)

    def read_stamp(self, response: PoolResponse) -> FileStamp:
        """Return the stamp that stands for the ETag of a response."""
        return FileStamp(hash_etag(parse_etag(response.etag)))


def _make_headers(headers: ObjectHeaders) -> dict[str, str]:
    """Return the headers of an object as the request states them."""
    found = {
        "content-type": headers.content_type,
        "content-encoding": headers.content_encoding,
        "cache-control": headers.cache_control,
    }
    return {name: value for name, value in found.items() if value}


def _make_stored_file(blob: Blob, digests: Digests, response: PoolResponse) -> StoredFile:
    """Make the stored file from the response to its upload. With KMS or customer keys the ETag is not the MD5."""
    info = make_object_info(blob.name, blob.size, response.etag)
    return to_stored_file(blob, digests, info if info.md5 == digests.md5 else info._replace(md5=None))
