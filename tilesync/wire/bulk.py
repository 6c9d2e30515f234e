"""Bodies: the engine that streams them, with its work per chunk outside the interpreter lock.

The engine is pyreqwest (Rust, hyper, rustls); this file is the seam at which another can take its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import (
    BuilderError,
    ConnectError,
    PyreqwestError,
    ReadTimeoutError,
    RequestError,
    RequestTimeoutError,
)
from pyreqwest.request import StreamRequest
from pyreqwest.response import Response

from tilesync.errors import Transient, UsageError
from tilesync.wire.trust import fallback_bundle, user_agent

SILENCE: Final = timedelta(seconds=30)
"""A body that stays silent for this long is broken."""

_ERROR_BODY: Final = 4096


class Answer:
    """An answer whose body is still on the wire. Errors met while reading are Transient and name no URL."""

    def __init__(self, request: StreamRequest, response: Response) -> None:
        self._request: StreamRequest | None = request
        self._response = response
        self.status: Final = response.status

    def header(self, name: str) -> str | None:
        """The first value of a header, None when it is absent."""
        return self._response.get_header(name)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, undecoded; what came before a break is given out first."""
        read = self._response.body_reader.read_chunk
        try:
            while (chunk := await read()) is not None:
                _obey_cancellation()
                yield bytes(chunk)
        except PyreqwestError as error:
            raise Transient(_explain(error)) from None

    async def text(self) -> bytes:
        """The beginning of the body, for the message of an error."""
        body = b""
        async for chunk in self.chunks():
            body += chunk
            if len(body) >= _ERROR_BODY:
                break
        return body

    async def aclose(self) -> None:
        """Release the connection; one whose body was read to its end is used again. May be called twice."""
        request, self._request = self._request, None
        if request is not None:
            await request.__aexit__(None, None, None)


class Bulk:
    """A pool of connections that GETs bodies: no redirects, no decoding, no retries."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def get(self, url: str, headers: Mapping[str, str]) -> Answer:
        """Ask and return as soon as the headers are in. Raises Transient when no answer came."""
        try:
            request = self._client.get(url).headers(headers).streamed_read_buffer_limit(1).build_streamed()
            answer = Answer(request, await request.__aenter__())
        except (BuilderError, ValueError):
            raise UsageError("not a URL, or not a header, that can be sent") from None
        except PyreqwestError as error:
            raise Transient(_explain(error)) from None
        try:
            _obey_cancellation()
        except asyncio.CancelledError:
            await answer.aclose()
            raise
        return answer


def _obey_cancellation() -> None:
    """Raise the CancelledError that the engine swallows when a result comes in the same moment (pyreqwest 0.15.1)."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _explain(error: PyreqwestError) -> str:
    """A sentence about `error` without what its details hold: the whole URL, signature and all."""
    if isinstance(error, ReadTimeoutError | RequestTimeoutError):
        return f"no bytes within {SILENCE.total_seconds():.0f} s"
    if isinstance(error, ConnectError):
        return f"no connection ({_last_cause(error)})"
    return "the body broke off" if isinstance(error, RequestError) else "the connection broke"


def _last_cause(error: ConnectError) -> str:
    causes = (error.details or {}).get("causes") or []
    message = causes[-1]["message"] if causes else "unknown reason"
    return message if "://" not in message else "unknown reason"


@asynccontextmanager
async def engine(*, connections: int) -> AsyncIterator[Bulk]:
    """An engine that honours HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE and the system's authorities."""
    builder = _builder(connections)
    try:
        client = builder.build()
    except BuilderError:
        client = _builder(connections).add_root_certificate_pem(fallback_bundle()).build()
    async with client:
        yield Bulk(client)


def _builder(connections: int) -> ClientBuilder:
    """Everything that decodes or follows is off: length, MD5 and Range refer to the stored bytes."""
    return (
        ClientBuilder()
        .gzip(False)
        .brotli(False)
        .zstd(False)
        .deflate(False)
        .follow_redirects(False)
        .referer(False)
        .user_agent(user_agent())
        .default_headers({"Accept-Encoding": "identity"})
        .connect_timeout(timedelta(seconds=20))
        .read_timeout(SILENCE)
        .pool_max_idle_per_host(connections)
    )
