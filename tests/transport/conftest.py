"""Fixtures of the tests of transport: an authority, and a server with its certificate."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import trustme

from tests.support.http1_pools import SOON, Got, Run, fetch_all
from tests.support.http_server import RecordingServer, answer, serving
from tilesync.runtime.event_loop import loop_factory
from tilesync.transport.http1_pool import HttpPool, PoolRequest, http_pool


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def bundle(authority: trustme.CA, tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


@pytest.fixture
def secure(tls: ssl.SSLContext) -> Iterator[RecordingServer]:
    with serving(answer(), tls) as server:
        yield server


T = TypeVar("T")


LOOPS = [pytest.param(None, id="asyncio"), pytest.param(loop_factory(), id="uvloop")]
"""Workers run on uvloop if it is installed."""


@pytest.fixture(params=LOOPS)
def with_pool(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine with a new pool, on each kind of event loop."""

    def run(work: Callable[[HttpPool], Awaitable[T]]) -> T:
        async def main() -> T:
            async with http_pool() as pool:
                return await work(pool)

        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(main())

    return run


@pytest.fixture
def got(with_pool: Run) -> Got:
    """Fetch bodies with a new pool."""

    def get(*wanted: PoolRequest, at_once: int = 4, within: float = SOON) -> list[bytes | None]:
        result = with_pool(lambda pool: fetch_all(pool, wanted, at_once=at_once, within=within))
        return [None if response is None else response.body for response in result]

    return get
