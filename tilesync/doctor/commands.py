"""Assembly of what `doctor` looks at, and of viewer URLs for what is held."""

from __future__ import annotations

from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from tilesync.app.destinations import account_at, audited, no_bodies
from tilesync.app.requests import Reach, Where, by_token, endpoint_of
from tilesync.app.service import Identity, Service, token_of
from tilesync.doctor.public_url import public_url
from tilesync.doctor.remedies import AzureMending, BucketMending, Mending
from tilesync.doctor.response_rules import Wanted
from tilesync.doctor.web_servers import ServerMending
from tilesync.errors import Transient, Unavailable, UsageError
from tilesync.model import SasUrl, Selector
from tilesync.model.storage import AzurePlace, BucketPlace
from tilesync.protocols import HeldFiles, Observer, Published
from tilesync.runtime.clock import WallClock

EXAMPLE: Final = "http://localhost:8080"
"""The origin that is asked as where none is named: a page that someone tries on the own machine."""


async def check_service(service: Service, selector: Selector, link: SasUrl | None, observe: Observer) -> None:
    """Look at identity and service, or at a container link by itself. Raises as the first check that fails."""
    from tilesync.doctor.environment import authorities, proxies
    from tilesync.doctor.runner import examine
    from tilesync.doctor.service_checks import ServiceChecks
    from tilesync.doctor.service_probe import RemoteSight
    from tilesync.sources.resolvers import Wires
    from tilesync.transport.api_client import conversations

    clock = WallClock()
    async with AsyncExitStack() as closing:
        talk = await closing.enter_async_context(conversations(clock, observe, budget=service.retry_for))
        wires = Wires(talk, no_bodies, no_bodies, clock, observe, closing)
        sight = RemoteSight(service.api_url, partial(token_of, service.identity, wires), wires)
        checks = ServiceChecks(sight, selector, clock, given=given(service.identity), link=link)
        await examine(checks.probes(proxies, authorities), observe)


def given(identity: Identity) -> list[str]:
    """The identities that are set, by the names of their settings, in the order in which they count."""
    named = {
        "--token-file": identity.token_file,
        "--token-command": identity.token_command,
        "TILESYNC_TOKEN": identity.token,
        "TILESYNC_SHARE_KEY": identity.share_key,
        "ITP_SERVICE_CLIENT_ID": identity.client_id,
    }
    return [name for name, value in named.items() if value]


@dataclass(frozen=True)
class HostingRequest:
    """What `tilesync doctor DEST` is asked to look at. `public`: where viewers reach it, if not at the store's own
    address; `origin`: that of their page.
    """

    where: Where
    public: str | None = None
    origin: str | None = None
    budget: timedelta = timedelta(seconds=10)

    @property
    def address(self) -> StoreAddress:
        """Where viewers reach it, and what mends it there."""
        place, reach, public = self.where.place, self.where.reach, self.public
        if isinstance(place, AzurePlace):
            return StoreAddress(public or public_url(place, endpoint=endpoint_of(place, reach)), AzureMending(place))
        if isinstance(place, BucketPlace):
            from tilesync.stores.s3.session import address_of

            found = address_of(place.bucket, reach.endpoint_url)
            own = public_url(place, endpoint=found.endpoint, region=found.region, virtual=found.virtual)
            return StoreAddress(public or own, BucketMending(place, found.endpoint), found.authorities)
        return StoreAddress(public, ServerMending())


class StoreAddress(NamedTuple):
    """Where viewers reach a place, None where that is not known; what mends it; more authorities to trust (PEM)."""

    url: str | None
    mending: Mending
    authorities: bytes | None = None


async def check_hosting(request: HostingRequest, observe: Observer) -> None:
    """Look at what is held, and ask for it as viewers do. Raises as the first check that fails."""
    from tilesync.doctor.browser_client import AnyVisitor
    from tilesync.doctor.hosting_checks import HostingChecks, Inside, Outside
    from tilesync.doctor.runner import examine
    from tilesync.transport.blob_client_sync import blocking

    with ExitStack() as closing:

        def enter() -> tuple[HeldFiles, Published]:
            sight = closing.enter_context(audited(request.where, observe))
            return sight.files, sight.publication

        outside, address = None, request.address
        if address.url is not None:
            talk = closing.enter_context(blocking(observe, budget=request.budget, bundle=address.authorities))
            wanted = Wanted(request.origin or EXAMPLE, any=request.origin is None)
            hides = isinstance(request.where.place, Path)
            outside = Outside(address.url, AnyVisitor(talk), wanted, address.mending, hides)
        await examine(HostingChecks(Inside(enter, str(request.where.place)), outside).probes(), observe)


def viewer_url(where: Where, life: timedelta) -> tuple[str, datetime | None]:
    """The URL from which a viewer reads what is mirrored, signed to read its container and nothing else; and its end.

    Raises UsageError for places that have no such URL.
    """
    place = where.place
    if isinstance(place, BucketPlace):
        raise UsageError(
            f"{place} has no viewer URL: S3 signs one object at a time, and viewers cannot sign the tiles",
            hint="let everybody read the bucket, or put a CDN before it that may: `tilesync doctor DEST` shows how",
        )
    if isinstance(place, Path):
        raise UsageError(
            "a folder has no viewer URL: a web server gives it one",
            hint="README.md has configurations (Hosting); `tilesync doctor DEST --public-url URL` checks yours",
        )
    link = _minted(place, where.reach, life)
    return link.viewer(place.prefix), link.expires


def _minted(place: AzurePlace, reach: Reach, life: timedelta) -> SasUrl:
    """A link to a container that reads and does nothing else. One that was given serves where it allows no more; else
    it is signed by the account's key, or for an identity of Entra.
    """
    given = place.link
    if given is None:
        given = by_token(place, reach, reads=False)
    if given is not None and given.reads_only:
        return given
    if place.link is not None:
        raise UsageError(
            "a link that may write is nothing for viewers, and no other link can be made of it",
            hint="name it as az://ACCOUNT/CONTAINER, with a key or an identity; or give a link with `sp=r`",
        )
    from tilesync.stores.azure.credentials import READ

    with account_at(place, reach) as account:
        try:
            return account.mint(READ, life=life)
        except Transient as error:
            raise Unavailable(str(error), hint=error.hint or None) from error
