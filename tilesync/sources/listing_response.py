"""Checks on the response to a listing request, and its body.

A page has some megabytes, which the blob client reads outside the interpreter lock: through the API client a page took
38 ms of the event loop's time instead of 3. The wait for a response ends after BLOB_READ_TIMEOUT, when Azure gives up,
too. Source: "Setting timeouts for Blob service operations" (REST).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

from tilesync.azure.blob_headers import is_permanent_denial, parse_server_time
from tilesync.azure.error_hints import LIST_PERMISSION_HINT, storage_hint
from tilesync.azure.list_blobs import MAX_LISTING_PAGE_BYTES
from tilesync.azure.responses import classify_storage_response, parse_storage_error_code
from tilesync.core.http_status import Verdict, format_status, raise_for_status
from tilesync.errors import ExportReplaced, LinkRefused, Transient
from tilesync.sources.blob_response import Provenance
from tilesync.transport.content_decoding import ContentDecoder
from tilesync.transport.retry import retry_after_seconds

if TYPE_CHECKING:
    from tilesync.transport.blob_client import BlobResponse

_NO_CONTAINER_STATUSES: Final = {400, 405}
"""Statuses of a listing whose path is not a container. Source: "Blob service error codes"."""


async def read_page_body(response: BlobResponse) -> bytes:
    """Read a whole page, with transfer and content codings removed; Azure may send it without a length.

    The pieces are joined once, at the end: a buffer that grows with each of them would be copied again and again.
    Raises Transient for a body that is cut off, stalls, or has more than MAX_LISTING_PAGE_BYTES.
    """
    decoder, pieces, count = ContentDecoder(response.header("content-encoding")), list[bytes](), 0
    async for chunk in response.chunks():
        for piece in decoder.feed(bytes(chunk)):
            pieces.append(piece)
            count += len(piece)
            if count > MAX_LISTING_PAGE_BYTES:
                raise Transient(f"a listing page of more than {MAX_LISTING_PAGE_BYTES:,} bytes")
    decoder.finish()
    return b"".join(pieces)


async def raise_listing_refusal(response: BlobResponse, provenance: Provenance, *, is_probe: bool) -> NoReturn:
    """Raise the error that a response without a page means. `is_probe`: its path may not be a container."""
    body = await response.read_error_body()
    code = parse_storage_error_code(response.header("x-ms-error-code"), body)
    verdict = classify_storage_response(response.status, code)
    provenance.check_refusal(response.status, verdict, response.header)
    if verdict in {Verdict.GONE, Verdict.MISSING} or (is_probe and response.status in _NO_CONTAINER_STATUSES):
        raise ExportReplaced(f"the container is gone {format_status(response.status, code)}")
    if verdict is Verdict.DENIED:
        raise LinkRefused(
            f"the container refused to be listed {format_status(response.status, code)}",
            hint=storage_hint(code) or LIST_PERMISSION_HINT,
            server_time=parse_server_time(response.header),
            is_permanent=is_permanent_denial(code, body),
        )
    wait_s = retry_after_seconds(response.header)
    raise_for_status(
        verdict, response.status, wait_s, f"the container's listing ({code or 'no code'})", storage_hint(code)
    )
    raise Transient(f"the container's listing answered {response.status}")
