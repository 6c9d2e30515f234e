"""Copies that Azure Blob Storage makes by itself, from any URL that it can read.

Source: Azure Blob Storage REST: "Put Blob From URL", "Put Block From URL", "Put Block List".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, Protocol

from tilesync.azure.responses import judge_storage, parse_md5, storage_code
from tilesync.core.http_status import Verdict
from tilesync.core.manifest import COPIED_AT_ONCE as AT_ONCE
from tilesync.errors import BlobDamaged, Transient
from tilesync.model.storage import Elsewhere, Found, Label
from tilesync.stores.azure.block_upload import block_list, block_query, in_base64, said
from tilesync.stores.azure.errors import about_source, found_in

if TYPE_CHECKING:
    from tilesync.transport.blob_client import Told

PIECE: Final = 100 << 20
"""Bytes of a block that is copied: the service copies several at once."""

SEVERAL: Final = 8


class Send(Protocol):
    """Puts something, and gives the answer."""

    def __call__(
        self, name: str, headers: Mapping[str, str], body: bytes, *, query: str = "", bears: Callable[[Told], bool]
    ) -> Awaitable[Told]:
        """One attempt."""


class _Not(Exception):
    """The service does not make this copy; why."""


async def taken(send: Send, source: Elsewhere, name: str, label: Label) -> Found | str:
    """The copy, with its MD5; why the service does not make it, where it does not. One that is made at once has that
    MD5 by the service's own reckoning; of a larger one, made in pieces, it is what the source says of that very ETag.

    Raises Transient for what another attempt may cure, BlobDamaged where the copy is not what was to be copied.
    """
    try:
        if source.size <= AT_ONCE:
            told = await _sent(send, name, {**_from(source), **_proof(source), **said(label, source.md5)})
        else:
            await _in_pieces(send, source, name)
            count = -(-source.size // PIECE)
            listed = {"Content-Type": "application/xml", **said(label, source.md5)}
            told = await _sent(send, name, listed, block_list(count), query="comp=blocklist")
    except _Not as error:
        return str(error)
    except Transient as error:
        if error.pressure:
            raise
        return str(error)
    md5 = parse_md5(told.headers.get("content-md5")) if source.size <= AT_ONCE else source.md5
    if source.md5 is not None and md5 not in {source.md5, None}:
        raise BlobDamaged(f"{name}: the copy that the storage made has another MD5 than the blob")
    md5 = source.md5 or md5
    if md5 is None:
        return "it tells no MD5 of what it copies"
    return found_in(name, told.headers.get)._replace(size=source.size, md5=md5)


async def _in_pieces(send: Send, source: Elsewhere, name: str) -> None:
    several = asyncio.Semaphore(SEVERAL)

    async def piece(number: int, start: int) -> None:
        last = min(start + PIECE, source.size) - 1
        async with several:
            headers = {**_from(source), "x-ms-source-range": f"bytes={start}-{last}"}
            del headers["x-ms-blob-type"]
            await _sent(send, name, headers, query=block_query(number))

    pieces = [piece(number, start) for number, start in enumerate(range(0, source.size, PIECE))]
    for ended in await asyncio.gather(*pieces, return_exceptions=True):
        if isinstance(ended, BaseException):
            raise ended


async def _sent(send: Send, name: str, headers: Mapping[str, str], body: bytes = b"", *, query: str = "") -> Told:
    told = await send(name, headers, body, query=query, bears=_is_a_no)
    if not _is_a_no(told):
        return told
    code = storage_code(told.headers.get("x-ms-error-code"), told.body)
    raise _Not(f"{told.status} {code}".strip() if told.status != 202 else "it copies at its leisure")


def _is_a_no(told: Told) -> bool:
    """Whether the answer says that this copy is not made so, and no other attempt would change that.

    A source that cannot be read is among it: whether its link has ended is found out on the usual way. 202 begins
    another kind of copy, which would keep the link of the source where all can read it.
    """
    if told.status in {201, 429, 503}:
        return False
    code = storage_code(told.headers.get("x-ms-error-code"), told.body)
    is_ours = judge_storage(told.status, code) is Verdict.DENIED and not about_source(code, told.headers.get)
    return not is_ours and code not in {"ContainerNotFound", "LeaseIdMissing"}


def _from(source: Elsewhere) -> dict[str, str]:
    condition = {"x-ms-source-if-match": f'"{source.etag}"'} if source.etag else {}
    own = {"x-ms-copy-source-blob-properties": "false"}
    return {"x-ms-blob-type": "BlockBlob", "x-ms-copy-source": source.url, **own, **condition}


def _proof(source: Elsewhere) -> dict[str, str]:
    return {"x-ms-source-content-md5": in_base64(source.md5)} if source.md5 is not None else {}
