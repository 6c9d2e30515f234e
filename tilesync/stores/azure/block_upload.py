"""A blob that is put in place in blocks: nothing of it is visible before the list of them is.

Source: Azure Blob Storage REST: "Put Blob", "Put Block", "Put Block List".
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from tilesync.errors import DestinationError
from tilesync.model.storage import ObjectHeaders, ObjectInfo
from tilesync.runtime.threads import run_in_thread

if TYPE_CHECKING:
    from tilesync.stores.azure.client import AzureObjects

BLOCK_BYTES: Final = 1 << 22
"""Bytes of a block. Source: "Scalability and performance targets for Blob storage"."""

MAX_BLOCKS: Final = 50_000
"""Blocks of a blob. Source: there."""


class BlockUpload:
    """A large blob on its way in."""

    def __init__(self, objects: AzureObjects, name: str, size: int, label: ObjectHeaders) -> None:
        self._objects = objects
        self._name = name
        self._label = label
        self._block_bytes = max(BLOCK_BYTES, -(-max(size, 0) // (MAX_BLOCKS - 1)))
        self._buffer = b""
        self._blocks_sent = 0

    async def append(self, data: bytes) -> None:
        """Take in the next bytes; whole blocks leave. Done again it sends the same blocks under the same names."""
        buffer, sent = self._buffer + data, self._blocks_sent
        while len(buffer) > self._block_bytes:
            await self._put_block(sent, buffer[: self._block_bytes])
            buffer, sent = buffer[self._block_bytes :], sent + 1
        self._buffer, self._blocks_sent = buffer, sent

    async def _put_block(self, number: int, data: bytes) -> None:
        if number >= MAX_BLOCKS:
            raise DestinationError(f"{self._name} has more than {MAX_BLOCKS:,} blocks of {self._block_bytes:,} bytes")
        await self._objects.put_body(
            self._name, await run_in_thread(block_headers, data), data, query=block_query(number)
        )

    async def finish(self, md5: bytes | None) -> ObjectInfo:
        """Put it in place."""
        if not self._blocks_sent:
            return await self._objects.put_body(self._name, put_blob_headers(self._label, md5), self._buffer)
        await self._put_block(self._blocks_sent, self._buffer)
        body = block_list_body(self._blocks_sent + 1)
        found = await self._objects.put_body(
            self._name, content_headers(self._label, md5), body, query="comp=blocklist"
        )
        return found._replace(md5=md5)

    async def abort(self) -> None:
        """Give it up: the service forgets blocks that no list names, within a week."""
        self._buffer, self._blocks_sent = b"", 0


def encode_base64(digest: bytes) -> str:
    """A digest as headers have it."""
    return base64.b64encode(digest).decode()


def block_headers(data: bytes) -> dict[str, str]:
    """The headers that a block is put with: its MD5, which the service checks."""
    return {"Content-MD5": encode_base64(hashlib.md5(data, usedforsecurity=False).digest())}


def block_query(number: int) -> str:
    """The query that says which block it is."""
    return f"comp=block&blockid={quote(_block_id(number), safe='')}"


def _block_id(number: int) -> str:
    return base64.b64encode(f"{number:05}".encode()).decode()


def block_list_body(count: int) -> bytes:
    """The body that lists so many blocks, in order."""
    blocks = "".join(f"<Latest>{_block_id(number)}</Latest>" for number in range(count))
    return f'<?xml version="1.0" encoding="utf-8"?><BlockList>{blocks}</BlockList>'.encode()


def content_headers(label: ObjectHeaders, md5: bytes | None) -> dict[str, str]:
    """The headers that say how a blob is served, and what its MD5 is."""
    headers = {"x-ms-blob-content-type": label.content_type}
    if label.content_encoding:
        headers["x-ms-blob-content-encoding"] = label.content_encoding
    if label.cache_control:
        headers["x-ms-blob-cache-control"] = label.cache_control
    if md5 is not None:
        headers["x-ms-blob-content-md5"] = encode_base64(md5)
    return headers


def put_blob_headers(label: ObjectHeaders, md5: bytes | None) -> dict[str, str]:
    """The headers that a blob is put with at once; the service checks its MD5."""
    proof = {"Content-MD5": encode_base64(md5)} if md5 is not None else {}
    return {"x-ms-blob-type": "BlockBlob", **content_headers(label, md5), **proof}
