"""Doctor commands: assemble the checks of a service or a destination, and make viewer URLs."""

from __future__ import annotations

from contextlib import AsyncExitStack, ExitStack
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

from tilesync.app.azure import account_endpoint, link_from_sas_token, open_storage_account
from tilesync.app.destinations import open_destination_blocking
from tilesync.app.locations import is_folder, match_location
from tilesync.app.requests import StoreOptions, Target
from tilesync.app.service import Identity, Service, make_token_provider, refuse_client
from tilesync.checks.public_url import bucket_public_url, container_public_url
from tilesync.checks.remedies import AzureRemedies, BucketRemedies, Remedies
from tilesync.checks.response_rules import ViewerPage
from tilesync.checks.web_servers import WebServerRemedies
from tilesync.errors import Transient, Unavailable, UsageError
from tilesync.model import SasUrl, Selector
from tilesync.model.storage import AzureLocation, S3Location
from tilesync.protocols import Observer, ReadOnlyPublication, StoredFiles
from tilesync.runtime.clock import WallClock
from tilesync.values import dataclass

EXAMPLE_ORIGIN: Final = "http://localhost:8080"
"""Origin of the requests if the user names none: a viewer page that runs on the user's machine."""


async def check_service(service: Service, selector: Selector, link: SasUrl | None, observe: Observer) -> None:
    """Check identity and service, or a container link alone. Raises the error of the first failed check."""
    from tilesync.checks.environment import check_authorities, check_proxies
    from tilesync.checks.runner import run_checks
    from tilesync.checks.service_checks import ServiceChecks
    from tilesync.checks.service_probe import ServiceProbe
    from tilesync.sources.resolvers import SourceClients
    from tilesync.transport.api_client import open_api_client

    clock = WallClock()
    async with AsyncExitStack() as exit_stack:
        api_client = await exit_stack.enter_async_context(open_api_client(clock, observe, budget=service.retry_for))
        clients = SourceClients(api_client, refuse_client, refuse_client, clock, observe, exit_stack)
        prober = ServiceProbe(
            service.api_url, partial(make_token_provider, service.identity, api_client, clock), clients
        )
        checks = ServiceChecks(
            prober, selector, clock, identity_names=configured_identities(service.identity), link=link
        )
        await run_checks(checks.iter_checks(check_proxies, check_authorities), observe)


def configured_identities(identity: Identity) -> list[str]:
    """Return the setting names of the configured identities, in order of precedence."""
    settings = {
        "--token-file": identity.token_file,
        "--token-command": identity.token_command,
        "TILESYNC_TOKEN": identity.token,
        "TILESYNC_SHARE_KEY": identity.share_key,
        "ITP_SERVICE_CLIENT_ID": identity.client_id,
    }
    return [name for name, value in settings.items() if value]


@dataclass(frozen=True)
class HostingRequest:
    """Request of `tilesync doctor DEST`.

    `base_url`: where viewers reach DEST, if not at the store's own address; `origin`: the origin of the viewer page.
    """

    target: Target
    base_url: str | None = None
    origin: str | None = None
    retry_for: timedelta = timedelta(seconds=10)

    @property
    def store_address(self) -> StoreAddress:
        """Address where viewers reach the destination, with the hints for its kind of host."""
        return match_location(
            self.target.location,
            folder=lambda _: StoreAddress(self.base_url, WebServerRemedies()),
            azure=self._container_address,
            s3=self._bucket_address,
        )

    def _container_address(self, location: AzureLocation) -> StoreAddress:
        endpoint = account_endpoint(location, self.target.store_options)
        url = self.base_url or container_public_url(location, endpoint=endpoint)
        return StoreAddress(url, AzureRemedies(location))

    def _bucket_address(self, location: S3Location) -> StoreAddress:
        from tilesync.stores.s3.session import resolve_bucket_address

        bucket = resolve_bucket_address(location.bucket, self.target.store_options.endpoint_url)
        url = self.base_url or bucket_public_url(
            location, endpoint=bucket.endpoint, region=bucket.region, virtual_hosted=bucket.is_virtual_hosted
        )
        return StoreAddress(url, BucketRemedies(location, bucket.endpoint), bucket.ca_certificates)


class StoreAddress(NamedTuple):
    """Public URL of a destination (None if unknown), its hints, and additional trusted certificates (PEM)."""

    url: str | None
    remedies: Remedies
    ca_bundle: bytes | None = None


async def check_hosting(request: HostingRequest, observe: Observer) -> None:
    """Check the stored files, and request them as viewers do. Raises the error of the first failed check."""
    from tilesync.checks.browser_client import BrowserClient
    from tilesync.checks.hosting_checks import HostingChecks, PublicAccess, StoredMirror
    from tilesync.checks.runner import run_checks
    from tilesync.transport.blob_client_sync import open_sync_client

    with ExitStack() as exit_stack:

        def open_files() -> tuple[StoredFiles, ReadOnlyPublication]:
            destination = exit_stack.enter_context(open_destination_blocking(request.target, observe))
            return destination.files, destination.publication

        public_access, address = None, request.store_address
        if address.url is not None:
            client = exit_stack.enter_context(
                open_sync_client(observe, budget=request.retry_for, ca_bundle=address.ca_bundle)
            )
            viewer_page = ViewerPage(request.origin or EXAMPLE_ORIGIN, any_origin=request.origin is None)
            has_state = is_folder(request.target.location)
            public_access = PublicAccess(address.url, BrowserClient(client), viewer_page, address.remedies, has_state)
        await run_checks(
            HostingChecks(StoredMirror(open_files, str(request.target.location)), public_access).iter_checks(), observe
        )


def viewer_url(target: Target, lifetime: timedelta) -> tuple[str, datetime | None]:
    """Return a URL that viewers can open, and its expiry. A signed URL can only read its container.

    Raises UsageError for destinations that have no such URL.
    """
    return match_location(
        target.location,
        folder=_refuse_folder_url,
        azure=lambda location: _container_viewer_url(location, target.store_options, lifetime),
        s3=_refuse_bucket_url,
    )


def _refuse_folder_url(folder: Path) -> NoReturn:
    raise UsageError(
        "a folder has no viewer URL: a web server must serve it",
        hint="docs/hosting.md shows configurations; `tilesync doctor DEST --public-url URL` checks yours",
    )


def _refuse_bucket_url(location: S3Location) -> NoReturn:
    raise UsageError(
        f"{location} has no viewer URL: S3 signs single objects, and viewers cannot sign the tiles",
        hint="make the bucket public, or put a CDN with access in front of it: `tilesync doctor DEST` shows how",
    )


def _container_viewer_url(
    location: AzureLocation, store_options: StoreOptions, lifetime: timedelta
) -> tuple[str, datetime | None]:
    link = _mint_read_link(location, store_options, lifetime)
    return link.viewer_url(location.prefix), link.expires


def _mint_read_link(location: AzureLocation, store_options: StoreOptions, lifetime: timedelta) -> SasUrl:
    """Return a link that can only read a container.

    A given link is used if it allows no more; else a link is signed with the account key, or for an Entra identity.
    """
    link = location.link
    if link is None:
        link = link_from_sas_token(location, store_options, read_only=False)
    if link is not None and link.is_read_only:
        return link
    if location.link is not None:
        raise UsageError(
            "a link that can write must not be given to viewers, and no other link can be made from it",
            hint="give az://ACCOUNT/CONTAINER, with a key or an identity; or a link with `sp=r`",
        )
    from tilesync.stores.azure.credentials import READ_PERMISSIONS

    with open_storage_account(location, store_options) as account:
        try:
            return account.create_sas(READ_PERMISSIONS, lifetime=lifetime)
        except Transient as error:
            raise Unavailable(str(error), hint=error.hint or None) from error
