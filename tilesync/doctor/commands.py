"""Assembly of what `doctor` looks at, and of viewer URLs for what is held."""

from __future__ import annotations

from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from tilesync.app.destinations import open_destination_for_audit, open_storage_account, refuse_client
from tilesync.app.requests import StoreOptions, Target, account_endpoint, link_from_sas_token
from tilesync.app.service import Identity, Service, make_token_provider
from tilesync.doctor.public_url import public_url
from tilesync.doctor.remedies import AzureRemedies, BucketRemedies, Remedies
from tilesync.doctor.response_rules import ViewerPage
from tilesync.doctor.web_servers import WebServerRemedies
from tilesync.errors import Transient, Unavailable, UsageError
from tilesync.model import SasUrl, Selector
from tilesync.model.storage import AzureLocation, S3Location
from tilesync.protocols import Observer, ReadOnlyPublication, StoredFiles
from tilesync.runtime.clock import WallClock

EXAMPLE_ORIGIN: Final = "http://localhost:8080"
"""The origin that is asked as where none is named: a page that someone tries on the own machine."""


async def check_service(service: Service, selector: Selector, link: SasUrl | None, observe: Observer) -> None:
    """Look at identity and service, or at a container link by itself. Raises as the first check that fails."""
    from tilesync.doctor.environment import check_authorities, check_proxies
    from tilesync.doctor.runner import run_checks
    from tilesync.doctor.service_checks import ServiceChecks
    from tilesync.doctor.service_probe import ServiceProbe
    from tilesync.sources.resolvers import SourceClients
    from tilesync.transport.api_client import open_api_client

    clock = WallClock()
    async with AsyncExitStack() as closing:
        talk = await closing.enter_async_context(open_api_client(clock, observe, budget=service.retry_for))
        wires = SourceClients(talk, refuse_client, refuse_client, clock, observe, closing)
        sight = ServiceProbe(service.api_url, partial(make_token_provider, service.identity, wires), wires)
        checks = ServiceChecks(
            sight, selector, clock, identity_names=configured_identities(service.identity), link=link
        )
        await run_checks(checks.iter_checks(check_proxies, check_authorities), observe)


def configured_identities(identity: Identity) -> list[str]:
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

    target: Target
    base_url: str | None = None
    origin: str | None = None
    retry_for: timedelta = timedelta(seconds=10)

    @property
    def store_address(self) -> StoreAddress:
        """Where viewers reach it, and what mends it there."""
        place, reach, public = self.target.location, self.target.store_options, self.base_url
        if isinstance(place, AzureLocation):
            return StoreAddress(
                public or public_url(place, endpoint=account_endpoint(place, reach)), AzureRemedies(place)
            )
        if isinstance(place, S3Location):
            from tilesync.stores.s3.session import resolve_bucket_address

            found = resolve_bucket_address(place.bucket, reach.endpoint_url)
            own = public_url(
                place, endpoint=found.endpoint, region=found.region, virtual_hosted=found.is_virtual_hosted
            )
            return StoreAddress(public or own, BucketRemedies(place, found.endpoint), found.ca_certificates)
        return StoreAddress(public, WebServerRemedies())


class StoreAddress(NamedTuple):
    """Where viewers reach a place, None where that is not known; what mends it; more authorities to trust (PEM)."""

    url: str | None
    remedies: Remedies
    ca_bundle: bytes | None = None


async def check_hosting(request: HostingRequest, observe: Observer) -> None:
    """Look at what is held, and ask for it as viewers do. Raises as the first check that fails."""
    from tilesync.doctor.browser_client import HttpBrowserClient
    from tilesync.doctor.hosting_checks import HostingChecks, PublicAccess, StoredMirror
    from tilesync.doctor.runner import run_checks
    from tilesync.transport.blob_client_sync import open_sync_client

    with ExitStack() as closing:

        def enter() -> tuple[StoredFiles, ReadOnlyPublication]:
            sight = closing.enter_context(open_destination_for_audit(request.target, observe))
            return sight.files, sight.publication

        outside, address = None, request.store_address
        if address.url is not None:
            talk = closing.enter_context(
                open_sync_client(observe, budget=request.retry_for, ca_bundle=address.ca_bundle)
            )
            wanted = ViewerPage(request.origin or EXAMPLE_ORIGIN, any_origin=request.origin is None)
            hides = isinstance(request.target.location, Path)
            outside = PublicAccess(address.url, HttpBrowserClient(talk), wanted, address.remedies, hides)
        await run_checks(
            HostingChecks(StoredMirror(enter, str(request.target.location)), outside).iter_checks(), observe
        )


def viewer_url(target: Target, lifetime: timedelta) -> tuple[str, datetime | None]:
    """The URL from which a viewer reads what is mirrored, signed to read its container and nothing else; and its end.

    Raises UsageError for places that have no such URL.
    """
    place = target.location
    if isinstance(place, S3Location):
        raise UsageError(
            f"{place} has no viewer URL: S3 signs one object at a time, and viewers cannot sign the tiles",
            hint="let everybody read the bucket, or put a CDN before it that may: `tilesync doctor DEST` shows how",
        )
    if isinstance(place, Path):
        raise UsageError(
            "a folder has no viewer URL: a web server gives it one",
            hint="README.md has configurations (Hosting); `tilesync doctor DEST --public-url URL` checks yours",
        )
    link = _mint_read_link(place, target.store_options, lifetime)
    return link.viewer_url(place.prefix), link.expires


def _mint_read_link(place: AzureLocation, store_options: StoreOptions, lifetime: timedelta) -> SasUrl:
    """A link to a container that reads and does nothing else. One that was given serves where it allows no more; else
    it is signed by the account's key, or for an identity of Entra.
    """
    given = place.link
    if given is None:
        given = link_from_sas_token(place, store_options, read_only=False)
    if given is not None and given.is_read_only:
        return given
    if place.link is not None:
        raise UsageError(
            "a link that may write is nothing for viewers, and no other link can be made of it",
            hint="name it as az://ACCOUNT/CONTAINER, with a key or an identity; or give a link with `sp=r`",
        )
    from tilesync.stores.azure.credentials import READ_PERMISSIONS

    with open_storage_account(place, store_options) as account:
        try:
            return account.create_sas(READ_PERMISSIONS, lifetime=lifetime)
        except Transient as error:
            raise Unavailable(str(error), hint=error.hint or None) from error
