"""Upload a large blob in blocks: nothing is visible before the block list is put.

Source: Azure Blob Storage REST: "Put Blob", "Put Block", "Put Block List".
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Mapping
from typing import Final, Protocol
from urllib.parse import quote

from tilesync.errors import DestinationError
from tilesync.model.storage import ObjectHeaders, ObjectInfo
from tilesync.runtime.threads import run_in_thread

BLOCK_BYTES: Final = 1 << 22
"""Minimum bytes of a block. Source: "Scalability and performance targets for Blob storage"."""

MAX_BLOCKS: Final = 50_000
"""Maximum blocks of a blob. Source: same page."""


class PutBody(Protocol):
    """Send one PUT request with a body, and return the blob that the response describes."""

    def __call__(self, name: str, headers: Mapping[str, str], body: bytes, *, query: str = "") -> Awaitable[ObjectInfo]:
        """Make one attempt. Raises Transient if another one may succeed."""


class BlockUpload:
    """A large blob that is uploaded block by block."""

    def __init__(self, put_body: PutBody, name: str, size: int, object_headers: ObjectHeaders) -> None:
        self._put_body = put_body
        self._name = name
        self._object_headers = object_headers
        self._block_bytes = max(BLOCK_BYTES, -(-max(size, 0) // (MAX_BLOCKS - 1)))
        self._buffer = b""
        self._blocks_sent = 0

    async def append(self, data: bytes) -> None:
        """Add bytes, and send each full block. A repeated call sends the same blocks under the same ids."""
        buffer, sent = self._buffer + data, self._blocks_sent
        while len(buffer) > self._block_bytes:
            await self._put_block(sent, buffer[: self._block_bytes])
            buffer, sent = buffer[self._block_bytes :], sent + 1
        self._buffer, self._blocks_sent = buffer, sent

    async def _put_block(self, number: int, data: bytes) -> None:
        if number >= MAX_BLOCKS:
            raise DestinationError(f"{self._name} has more than {MAX_BLOCKS:,} blocks of {self._block_bytes:,} bytes")
        await self._put_body(self._name, await run_in_thread(block_headers, data), data, query=block_query(number))

    async def finish(self, md5: bytes | None) -> ObjectInfo:
        """Send the rest and publish the blob: in one PUT if it fits into a block, else with the block list."""
        if not self._blocks_sent:
            return await self._put_body(self._name, put_blob_headers(self._object_headers, md5), self._buffer)
        await self._put_block(self._blocks_sent, self._buffer)
        body = block_list_body(self._blocks_sent + 1)
        info = await self._put_body(
            self._name, content_headers(self._object_headers, md5), body, query="comp=blocklist"
        )
        return info._replace(md5=md5)

    async def abort(self) -> None:
        """Forget the upload: the service deletes uncommitted blocks within a week."""
        self._buffer, self._blocks_sent = b"", 0


def encode_base64(digest: bytes) -> str:
    """Return a digest in Base64, as headers carry it."""
    return base64.b64encode(digest).decode()


def block_headers(data: bytes) -> dict[str, str]:
    """Return the headers of a block: its MD5, which the service checks."""
    return {"Content-MD5": encode_base64(hashlib.md5(data, usedforsecurity=False).digest())}


def block_query(number: int) -> str:
    """Return the query string that names a block."""
    return f"comp=block&blockid={quote(_block_id(number), safe='')}"


def _block_id(number: int) -> str:
    return base64.b64encode(f"{number:05}".encode()).decode()


def block_list_body(count: int) -> bytes:
    """Return the XML body that lists `count` blocks in order."""
    blocks = "".join(f"<Latest>{_block_id(number)}</Latest>" for number in range(count))
    return f'<?xml version="1.0" encoding="utf-8"?><BlockList>{blocks}</BlockList>'.encode()


def content_headers(object_headers: ObjectHeaders, md5: bytes | None) -> dict[str, str]:
    """Return the headers that state how a blob is served, and its MD5."""
    headers = {"x-ms-blob-content-type": object_headers.content_type}
    if object_headers.content_encoding:
        headers["x-ms-blob-content-encoding"] = object_headers.content_encoding
    if object_headers.cache_control:
        headers["x-ms-blob-cache-control"] = object_headers.cache_control
    if md5 is not None:
        headers["x-ms-blob-content-md5"] = encode_base64(md5)
    return headers


def condition_headers(expected_etag: str | None) -> dict[str, str]:
    """Return the condition that a blob has this ETag; with "", that there is none; with None, no condition."""
    if expected_etag is None:
        return {}
    return {"If-Match": f'"{expected_etag}"'} if expected_etag else {"If-None-Match": "*"}


def put_blob_headers(object_headers: ObjectHeaders, md5: bytes | None) -> dict[str, str]:
    """Return the headers of Put Blob; the service checks the MD5."""
    checksum = {"Content-MD5": encode_base64(md5)} if md5 is not None else {}
    return {"x-ms-blob-type": "BlockBlob", **content_headers(object_headers, md5), **checksum}
