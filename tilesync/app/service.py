"""The service and who asks it: engines, identity, and the Mesh Export API put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tilesync.core.urls import check_scheme
from tilesync.errors import NotAuthorised
from tilesync.model import Secret
from tilesync.protocols import Observer
from tilesync.runtime.clock import WallClock

if TYPE_CHECKING:
    from tilesync.itwin.auth import ShareKey, Token
    from tilesync.itwin.mesh_export import MeshExports
    from tilesync.sources.resolvers import Wires
    from tilesync.transport.blob_client import Bulk
    from tilesync.transport.rate_limit import Bandwidth

API = "https://api.bentley.com"
ISSUER = "https://ims.bentley.com"

_ENDED = "has ended, or is for another service or scope than itwin-platform"
_OTHER_ISSUER = "do --api-url and ITP_ISSUER_URL belong together, and may the application ask for itwin-platform?"


@dataclass(frozen=True)
class Identity:
    """Who asks. The first that is given counts: file, command, token, share key, client credentials."""

    token: Secret | None = None
    token_file: Path | None = None
    token_command: str | None = None
    share_key: Secret | None = None
    client_id: str | None = None
    client_secret: Secret | None = None
    issuer: str = ISSUER


@dataclass(frozen=True)
class Service:
    """The Mesh Export API, and how long a failing answer of it, or of the storage, is borne with."""

    api_url: str = API
    identity: Identity = field(default_factory=Identity)
    retry_for: timedelta = timedelta(seconds=60)


@asynccontextmanager
async def wired(service: Service, observe: Observer, *, bwlimit: float | None = None) -> AsyncIterator[Wires]:
    """The engines; the bulk one starts when the first container is opened, after the first answer of the API."""
    from tilesync.sources.resolvers import Wires
    from tilesync.transport.api_client import conversations
    from tilesync.transport.rate_limit import Bandwidth

    clock = WallClock()
    bandwidth = Bandwidth(bwlimit, clock) if bwlimit else None
    async with AsyncExitStack() as closing:
        talk = conversations(clock, observe, budget=service.retry_for, bandwidth=bandwidth)
        talking = await closing.enter_async_context(talk)
        engines = partial(_engine, closing, bandwidth), partial(_engine, closing, None, sends=True)
        yield Wires(talking, *engines, clock, observe, closing, bandwidth)


async def _engine(closing: AsyncExitStack, bandwidth: Bandwidth | None, *, sends: bool = False) -> Bulk:
    from tilesync.transport.blob_client import engine

    return await closing.enter_async_context(engine(bandwidth=bandwidth, sends=sends))


def exports_of(service: Service, wires: Wires) -> MeshExports:
    """The API, as this identity sees it."""
    from tilesync.itwin.mesh_export import MeshExports

    check_scheme(service.api_url)
    return MeshExports(service.api_url, token_of(service.identity, wires), wires.talk, wires.clock, wires.observe)


def token_of(identity: Identity, wires: Wires) -> Token | ShareKey:
    """The identity that counts. Raises NotAuthorised when none is given."""
    from tilesync.itwin import auth

    clock = wires.clock
    if identity.token_file is not None:
        return auth.Token(
            partial(auth.from_file, identity.token_file),
            clock,
            remedy=f"the token {_ENDED}: put a fresh one in --token-file",
        )
    if identity.token_command is not None:
        return auth.Token(
            partial(auth.from_command, identity.token_command),
            clock,
            remedy=f"the token of --token-command {_ENDED}",
        )
    if identity.token is not None:
        return auth.Token(
            partial(auth.from_environment, identity.token),
            clock,
            remedy=f"the token {_ENDED}: put a fresh one in TILESYNC_TOKEN",
        )
    if identity.share_key is not None:
        return auth.ShareKey(identity.share_key)
    if identity.client_id and identity.client_secret is not None:
        check_scheme(identity.issuer)
        client = auth.ClientCredentials(wires.talk, identity.issuer, identity.client_id, identity.client_secret)
        return auth.Token(client.fetch, clock, remedy=_OTHER_ISSUER)
    raise NotAuthorised(
        "no identity is given",
        hint="set TILESYNC_TOKEN, or --token-file, --token-command, TILESYNC_SHARE_KEY, or ITP_SERVICE_CLIENT_ID with"
        " ITP_SERVICE_CLIENT_SECRET",
    )
