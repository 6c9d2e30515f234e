"""Copy blobs from another account by the service alone, from any URL that it can read.

Source: Azure Blob Storage REST: "Put Blob From URL", "Put Block From URL", "Put Block List".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, Protocol

from tilesync.azure.responses import classify_storage_response, parse_md5, parse_storage_error_code
from tilesync.core.http_status import Verdict
from tilesync.core.manifest import MAX_SINGLE_COPY_BYTES
from tilesync.errors import BlobDamaged, Transient
from tilesync.model.storage import CopySource, ObjectHeaders, ObjectInfo
from tilesync.stores.azure.block_upload import block_list_body, block_query, content_headers, encode_base64
from tilesync.stores.azure.errors import is_copy_source_error, parse_object_info

if TYPE_CHECKING:
    from tilesync.transport.blob_client import PutResponse

COPY_BLOCK_BYTES: Final = 100 << 20
"""Bytes of one copied block: the service copies several in parallel."""

PARALLEL_BLOCK_COPIES: Final = 8


class PutRequest(Protocol):
    """Send one PUT request, and return the response."""

    def __call__(
        self,
        name: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        query: str = "",
        tolerates: Callable[[PutResponse], bool],
    ) -> Awaitable[PutResponse]:
        """Make one attempt. A response that `tolerates` accepts is returned whatever its status."""


class _CopyRefused(Exception):
    """The service refused this copy; the text says why."""


async def copy_blob_from_url(
    send: PutRequest, source: CopySource, name: str, object_headers: ObjectHeaders
) -> ObjectInfo | str:
    """Copy a blob, and return the copy with its MD5, or the reason why the service refused.

    For a blob that is copied in one request the service computes the MD5. For a larger one, copied in blocks, the MD5
    is the one that the source states for the same ETag. Raises Transient if another attempt may succeed, BlobDamaged
    if the copy has another MD5.
    """
    try:
        if source.size <= MAX_SINGLE_COPY_BYTES:
            response = await _put_copy(
                send,
                name,
                {
                    **_source_headers(source),
                    **_source_md5_header(source),
                    **content_headers(object_headers, source.md5),
                },
            )
        else:
            await _copy_blocks(send, source, name)
            count = -(-source.size // COPY_BLOCK_BYTES)
            list_headers = {"Content-Type": "application/xml", **content_headers(object_headers, source.md5)}
            response = await _put_copy(send, name, list_headers, block_list_body(count), query="comp=blocklist")
    except _CopyRefused as error:
        return str(error)
    except Transient as error:
        if error.is_throttled:
            raise
        return str(error)
    md5 = parse_md5(response.headers.get("content-md5")) if source.size <= MAX_SINGLE_COPY_BYTES else source.md5
    if source.md5 is not None and md5 not in {source.md5, None}:
        raise BlobDamaged(f"{name}: the copy that the storage made has another MD5 than the blob")
    md5 = source.md5 or md5
    if md5 is None:
        return "the service states no MD5 of the copy"
    return parse_object_info(name, response.headers.get)._replace(size=source.size, md5=md5)


async def _copy_blocks(send: PutRequest, source: CopySource, name: str) -> None:
    slots = asyncio.Semaphore(PARALLEL_BLOCK_COPIES)

    async def copy_block(number: int, start: int) -> None:
        last = min(start + COPY_BLOCK_BYTES, source.size) - 1
        async with slots:
            headers = {**_source_headers(source), "x-ms-source-range": f"bytes={start}-{last}"}
            del headers["x-ms-blob-type"]  # Put Block From URL does not take it
            await _put_copy(send, name, headers, query=block_query(number))

    copies = [copy_block(number, start) for number, start in enumerate(range(0, source.size, COPY_BLOCK_BYTES))]
    # All copies end before the first error is raised: a group would wrap it and cancel requests under way.
    for result in await asyncio.gather(*copies, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


async def _put_copy(
    send: PutRequest, name: str, headers: Mapping[str, str], body: bytes = b"", *, query: str = ""
) -> PutResponse:
    response = await send(name, headers, body, query=query, tolerates=_is_refusal)
    if not _is_refusal(response):
        return response
    code = parse_storage_error_code(response.headers.get("x-ms-error-code"), response.body)
    raise _CopyRefused(
        f"{response.status} {code}".strip() if response.status != 202 else "it offers an asynchronous copy only"
    )


def _is_refusal(response: PutResponse) -> bool:
    """Return whether the service refuses this copy for good.

    A source that cannot be read counts as refused: the default path, a download, finds out whether its link has
    expired. So does 202, the start of an asynchronous copy: that would store the link of the source in a property that
    all readers of the copy can see.
    """
    if response.status in {201, 429, 503}:
        return False
    code = parse_storage_error_code(response.headers.get("x-ms-error-code"), response.body)
    denied_at_destination = classify_storage_response(
        response.status, code
    ) is Verdict.DENIED and not is_copy_source_error(code, response.headers.get)
    return not denied_at_destination and code not in {"ContainerNotFound", "LeaseIdMissing"}


def _source_headers(source: CopySource) -> dict[str, str]:
    condition = {"x-ms-source-if-match": f'"{source.etag}"'} if source.etag else {}
    properties = {"x-ms-copy-source-blob-properties": "false"}
    return {"x-ms-blob-type": "BlockBlob", "x-ms-copy-source": source.url, **properties, **condition}


def _source_md5_header(source: CopySource) -> dict[str, str]:
    return {"x-ms-source-content-md5": encode_base64(source.md5)} if source.md5 is not None else {}
