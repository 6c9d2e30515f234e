"""Mesh Export service: its URL and identity, the HTTP clients, and the API client made of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilesync.core.urls import check_scheme
from tilesync.errors import NotAuthorised
from tilesync.model import Secret
from tilesync.protocols import Clock, Observer, TokenProvider
from tilesync.runtime.clock import WallClock
from tilesync.values import dataclass

if TYPE_CHECKING:
    from tilesync.app.shared import SharedResources
    from tilesync.itwin.auth import BearerTokenProvider, ShareKeyProvider
    from tilesync.itwin.imodels import IModels
    from tilesync.itwin.mesh_export import MeshExports
    from tilesync.itwin.responses import IModelRow, ITwinRow
    from tilesync.sources.resolvers import SourceClients
    from tilesync.transport.api_client import ApiClient
    from tilesync.transport.blob_client import BlobClient
    from tilesync.transport.rate_limit import RateLimiter

API_URL = "https://api.bentley.com"
ISSUER_URL = "https://ims.bentley.com"

_ENDED_HINT = "has expired, or is for another service or scope than itwin-platform"
_ISSUER_HINT = (
    "check that the addresses of service and issuer belong together (--api-url and ITP_ISSUER_URL, or api-url and"
    " issuer-url of the fleet file), and that the application may use the scope itwin-platform"
)


@dataclass(frozen=True)
class Identity:
    """Credentials for the service. The first set one counts: file, command, token, share key, client credentials."""

    token: Secret | None = None
    token_file: Path | None = None
    token_command: str | None = None
    share_key: Secret | None = None
    client_id: str | None = None
    client_secret: Secret | None = None
    issuer: str = ISSUER_URL


@dataclass(frozen=True)
class Service:
    """Options of the Mesh Export API. `retry_for`: how long failing requests are retried, to the storage too."""

    api_url: str = API_URL
    identity: Identity = field(default_factory=Identity)
    retry_for: timedelta = timedelta(seconds=60)


@asynccontextmanager
async def open_clients(
    service: Service, observe: Observer, *, bwlimit: float | None = None, shared: SharedResources | None = None
) -> AsyncIterator[SourceClients]:
    """Open the HTTP clients of a run; `bwlimit`: bytes per second. `shared`: resources that other runs use too.

    The blob clients start when first needed, after the first response of the API.
    """
    from tilesync.sources.resolvers import SourceClients
    from tilesync.transport.api_client import ApiClient, open_api_transports

    clock = WallClock()
    bandwidth = make_rate_limiter(bwlimit, clock, shared.bandwidth if shared is not None else None)
    async with AsyncExitStack() as closing:
        transports = (
            shared.api_transports if shared is not None else await closing.enter_async_context(open_api_transports())
        )
        yield SourceClients(
            ApiClient(transports, clock, observe, budget=service.retry_for),
            partial(_open_blob_client, closing, bandwidth),
            partial(_open_blob_client, closing, None, uploads=True),
            clock,
            observe,
            closing,
            bandwidth,
            shared.pace if shared is not None else None,
        )


def make_rate_limiter(bwlimit: float | None, clock: Clock, shared: RateLimiter | None) -> RateLimiter | None:
    """Create the bandwidth limit of a run; without one of its own it has that of all runs, if any."""
    from tilesync.transport.rate_limit import RateLimiter

    return RateLimiter(bwlimit, clock, shared=shared) if bwlimit else shared


async def _open_blob_client(
    closing: AsyncExitStack, bandwidth: RateLimiter | None, *, uploads: bool = False
) -> BlobClient:
    from tilesync.transport.blob_client import open_blob_client

    return await closing.enter_async_context(open_blob_client(bandwidth=bandwidth, for_uploads=uploads))


OpenBlobClient = Callable[[], Awaitable[Any]]
"""Function that opens a BlobClient, at its first use."""


async def refuse_client() -> Any:
    """Raise an error: takes the place of `open_client` in commands that upload nothing."""
    raise AssertionError("this command uploads no files")


def make_mesh_exports(service: Service, clients: SourceClients, shared: SharedResources | None = None) -> MeshExports:
    """Create the client of the Mesh Export API with the identity of `service`."""
    from tilesync.itwin.mesh_export import MeshExports

    check_scheme(service.api_url)
    return MeshExports(
        service.api_url,
        _get_token_provider(service, clients, shared),
        clients.api_client,
        clients.clock,
        clients.observe,
        pace=clients.pace,
    )


def make_imodels(service: Service, clients: SourceClients, shared: SharedResources | None = None) -> IModels:
    """Create the client of the iModels and iTwins APIs with the identity of `service`."""
    from tilesync.itwin.imodels import IModels

    check_scheme(service.api_url)
    token = _get_token_provider(service, clients, shared)
    return IModels(service.api_url, token, clients.api_client, pace=clients.pace)


async def list_imodels(
    service: Service, itwin: str, observe: Observer, shared: SharedResources | None = None
) -> list[IModelRow]:
    """Return the iModels of an iTwin that the identity can see, in the service's order. Raises the RunErrors."""
    async with open_clients(service, observe, shared=shared) as clients:
        return [row async for row in make_imodels(service, clients, shared).list(itwin)]


async def list_itwins(service: Service, observe: Observer, shared: SharedResources | None = None) -> list[ITwinRow]:
    """Return the iTwins whose member the identity is. Raises the RunErrors."""
    async with open_clients(service, observe, shared=shared) as clients:
        return [row async for row in make_imodels(service, clients, shared).list_itwins()]


def _get_token_provider(service: Service, clients: SourceClients, shared: SharedResources | None) -> TokenProvider:
    if shared is None:
        return make_token_provider(service.identity, clients.api_client, clients.clock)
    return shared.token_provider(service.identity, partial(make_token_provider, service.identity))


def make_token_provider(
    identity: Identity, api_client: ApiClient, clock: Clock
) -> BearerTokenProvider | ShareKeyProvider:
    """Create the token provider of the first credential that is set. Raises NotAuthorised if none is."""
    from tilesync.itwin import auth

    if identity.token_file is not None:
        return auth.BearerTokenProvider(
            partial(auth.read_token_file, identity.token_file, sleep=clock.sleep),
            clock,
            remedy=f"the token {_ENDED_HINT}: put a fresh one in the file of --token-file",
        )
    if identity.token_command is not None:
        return auth.BearerTokenProvider(
            partial(auth.run_token_command, identity.token_command),
            clock,
            remedy=f"the token of --token-command {_ENDED_HINT}: the command must print a fresh one",
        )
    if identity.token is not None:
        return auth.BearerTokenProvider(
            partial(auth.read_environment_token, identity.token),
            clock,
            remedy=f"the token {_ENDED_HINT}: put a fresh one in TILESYNC_TOKEN",
        )
    if identity.share_key is not None:
        return auth.ShareKeyProvider(identity.share_key)
    if identity.client_id and identity.client_secret is not None:
        check_scheme(identity.issuer)
        client = auth.ClientCredentialsGrant(api_client, identity.issuer, identity.client_id, identity.client_secret)
        return auth.BearerTokenProvider(client.fetch, clock, remedy=_ISSUER_HINT)
    raise NotAuthorised(
        "no credentials are set for the service",
        hint="set TILESYNC_TOKEN, TILESYNC_SHARE_KEY, or ITP_SERVICE_CLIENT_ID with ITP_SERVICE_CLIENT_SECRET (or"
        " ITP_SERVICE_CLIENT_SECRET_FILE); or use --token-file or --token-command",
    )
