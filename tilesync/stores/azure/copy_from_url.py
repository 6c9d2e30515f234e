"""Copies that Azure Blob Storage makes by itself, from any URL that it can read.

Source: Azure Blob Storage REST: "Put Blob From URL", "Put Block From URL", "Put Block List".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, Protocol

from tilesync.azure.responses import classify_storage_response, parse_md5, parse_storage_error_code
from tilesync.core.http_status import Verdict
from tilesync.core.manifest import MAX_SINGLE_COPY_BYTES as AT_ONCE
from tilesync.errors import BlobDamaged, Transient
from tilesync.model.storage import CopySource, ObjectHeaders, ObjectInfo
from tilesync.stores.azure.block_upload import block_list_body, block_query, content_headers, encode_base64
from tilesync.stores.azure.errors import is_copy_source_error, parse_object_info

if TYPE_CHECKING:
    from tilesync.transport.blob_client import PutResponse

COPY_BLOCK_BYTES: Final = 100 << 20
"""Bytes of a block that is copied: the service copies several at once."""

PARALLEL_BLOCK_COPIES: Final = 8


class PutRequest(Protocol):
    """Puts something, and gives the answer."""

    def __call__(
        self,
        name: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        query: str = "",
        tolerates: Callable[[PutResponse], bool],
    ) -> Awaitable[PutResponse]:
        """One attempt."""


class _CopyRefused(Exception):
    """The service does not make this copy; why."""


async def copy_blob_from_url(send: PutRequest, source: CopySource, name: str, label: ObjectHeaders) -> ObjectInfo | str:
    """The copy, with its MD5; why the service does not make it, where it does not. One that is made at once has that
    MD5 by the service's own reckoning; of a larger one, made in pieces, it is what the source says of that very ETag.

    Raises Transient for what another attempt may cure, BlobDamaged where the copy is not what was to be copied.
    """
    try:
        if source.size <= AT_ONCE:
            told = await _put_copy(
                send,
                name,
                {**_source_headers(source), **_source_md5_header(source), **content_headers(label, source.md5)},
            )
        else:
            await _copy_blocks(send, source, name)
            count = -(-source.size // COPY_BLOCK_BYTES)
            listed = {"Content-Type": "application/xml", **content_headers(label, source.md5)}
            told = await _put_copy(send, name, listed, block_list_body(count), query="comp=blocklist")
    except _CopyRefused as error:
        return str(error)
    except Transient as error:
        if error.is_throttled:
            raise
        return str(error)
    md5 = parse_md5(told.headers.get("content-md5")) if source.size <= AT_ONCE else source.md5
    if source.md5 is not None and md5 not in {source.md5, None}:
        raise BlobDamaged(f"{name}: the copy that the storage made has another MD5 than the blob")
    md5 = source.md5 or md5
    if md5 is None:
        return "it tells no MD5 of what it copies"
    return parse_object_info(name, told.headers.get)._replace(size=source.size, md5=md5)


async def _copy_blocks(send: PutRequest, source: CopySource, name: str) -> None:
    several = asyncio.Semaphore(PARALLEL_BLOCK_COPIES)

    async def piece(number: int, start: int) -> None:
        last = min(start + COPY_BLOCK_BYTES, source.size) - 1
        async with several:
            headers = {**_source_headers(source), "x-ms-source-range": f"bytes={start}-{last}"}
            del headers["x-ms-blob-type"]
            await _put_copy(send, name, headers, query=block_query(number))

    pieces = [piece(number, start) for number, start in enumerate(range(0, source.size, COPY_BLOCK_BYTES))]
    for ended in await asyncio.gather(*pieces, return_exceptions=True):
        if isinstance(ended, BaseException):
            raise ended


async def _put_copy(
    send: PutRequest, name: str, headers: Mapping[str, str], body: bytes = b"", *, query: str = ""
) -> PutResponse:
    told = await send(name, headers, body, query=query, tolerates=_is_refusal)
    if not _is_refusal(told):
        return told
    code = parse_storage_error_code(told.headers.get("x-ms-error-code"), told.body)
    raise _CopyRefused(f"{told.status} {code}".strip() if told.status != 202 else "it copies at its leisure")


def _is_refusal(told: PutResponse) -> bool:
    """Whether the answer says that this copy is not made so, and no other attempt would change that.

    A source that cannot be read is among it: whether its link has ended is found out on the usual way. 202 begins
    another kind of copy, which would keep the link of the source where all can read it.
    """
    if told.status in {201, 429, 503}:
        return False
    code = parse_storage_error_code(told.headers.get("x-ms-error-code"), told.body)
    is_ours = classify_storage_response(told.status, code) is Verdict.DENIED and not is_copy_source_error(
        code, told.headers.get
    )
    return not is_ours and code not in {"ContainerNotFound", "LeaseIdMissing"}


def _source_headers(source: CopySource) -> dict[str, str]:
    condition = {"x-ms-source-if-match": f'"{source.etag}"'} if source.etag else {}
    own = {"x-ms-copy-source-blob-properties": "false"}
    return {"x-ms-blob-type": "BlockBlob", "x-ms-copy-source": source.url, **own, **condition}


def _source_md5_header(source: CopySource) -> dict[str, str]:
    return {"x-ms-source-content-md5": encode_base64(source.md5)} if source.md5 is not None else {}
