"""Azure container: its endpoint, its links, and the clients of its store."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from datetime import timedelta
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from tilesync.app.locations import find_link, parse_location
from tilesync.app.requests import StoreOptions
from tilesync.azure.sas import parse_expiry
from tilesync.errors import NotAuthorised, UsageError
from tilesync.model import SasUrl
from tilesync.model.storage import AzureLocation
from tilesync.protocols import Observer
from tilesync.runtime.secret_files import read_secret

if TYPE_CHECKING:
    from tilesync.stores.azure.client import AzureObjects
    from tilesync.stores.azure.credentials import StorageAccount
    from tilesync.transport.blob_client import BlobClient

COPY_LINK_LIFETIME = timedelta(minutes=15)
"""Lifetime of the SAS link that the store reads its own blobs with, for a copy within the container."""


def container_url(location: AzureLocation, store_options: StoreOptions) -> str:
    """Return the URL of the container, without a signature."""
    return (
        location.link.base
        if location.link is not None
        else f"{account_endpoint(location, store_options)}/{location.container}"
    )


def account_endpoint(location: AzureLocation, store_options: StoreOptions) -> str:
    """Return the endpoint of the account: from its connection string, else from the options, else the public cloud.

    `{account}` in an endpoint stands for the account name. Source: "Configure Azure Storage connection strings".
    """
    text = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "")
    settings = dict(part.strip().partition("=")[::2] for part in text.split(";"))
    settings = settings if settings.get("AccountName") == location.account else {}
    suffix, scheme = settings.get("EndpointSuffix"), settings.get("DefaultEndpointsProtocol", "https")
    endpoint = settings.get("BlobEndpoint") or (f"{scheme}://{{account}}.blob.{suffix}" if suffix else None)
    endpoint = endpoint or store_options.azure_endpoint or "https://{account}.blob.core.windows.net"
    return endpoint.replace("{account}", location.account).rstrip("/")


def link_from_sas_token(location: AzureLocation, store_options: StoreOptions, *, read_only: bool) -> SasUrl | None:
    """Make the container link from AZURE_STORAGE_SAS_TOKEN; None if the token is for another account.

    The token is for the account that AZURE_STORAGE_ACCOUNT names; if that is not set, for the account written to.
    """
    token, account = os.environ.get("AZURE_STORAGE_SAS_TOKEN"), os.environ.get("AZURE_STORAGE_ACCOUNT")
    is_for_account = account == location.account if account else not read_only
    return _make_token_link(location, store_options, token) if token and is_for_account else None


def _make_token_link(location: AzureLocation, store_options: StoreOptions, token: str) -> SasUrl:
    base = f"{account_endpoint(location, store_options)}/{location.container}"
    query = token.lstrip("?")
    return SasUrl(base, query, expires=parse_expiry(query), fetched_at_s=monotonic())


@contextmanager
def open_azure_objects(
    location: AzureLocation,
    store_options: StoreOptions,
    open_client: Callable[[], Awaitable[BlobClient]],
    observe: Observer,
    *,
    read_only: bool,
    create: bool | None,
) -> Iterator[AzureObjects]:
    """Open the objects of a container, with the credentials of the environment or a link.

    `read_only`: never write to it. `create`: create a missing container; None if the command has no such option.
    """
    from tilesync.stores.azure.client import AzureObjects
    from tilesync.stores.azure.credentials import delete_batch
    from tilesync.stores.azure.requests import AzureClients
    from tilesync.stores.azure.sas_link import make_store_link
    from tilesync.transport.blob_client_sync import open_sync_client
    from tilesync.transport.request_batches import RequestBatches

    with ExitStack() as exits:
        sync_client = exits.enter_context(
            open_sync_client(observe, budget=store_options.retry_for, allow_http=store_options.allow_http)
        )
        option = "--link-command" if read_only else "--dest-link-command"
        fetch = _make_link_command(store_options, option)
        base = f"{account_endpoint(location, store_options)}/{location.container}" if fetch is not None else None
        first_link = location.link or link_from_sas_token(location, store_options, read_only=read_only)
        new_link = partial(
            make_store_link, observe=observe, allow_http=store_options.allow_http, budget=store_options.retry_for
        )
        copy_link = None
        if first_link is None and fetch is None:
            from tilesync.stores.azure.credentials import READ_LIST_PERMISSIONS, READ_PERMISSIONS, WRITE_PERMISSIONS

            account = exits.enter_context(open_storage_account(location, store_options))
            fetch = partial(account.create_sas, READ_LIST_PERMISSIONS if read_only else WRITE_PERMISSIONS)
            create_copy_sas = partial(account.create_sas, READ_PERMISSIONS, lifetime=COPY_LINK_LIFETIME)
            copy_link = new_link(create_copy_sas)
            if create:
                sync_client.retry(f"the storage account {location.account}", account.create_container)
        elif create:
            raise UsageError(
                "a SAS link cannot create its container",
                hint="write az://ACCOUNT/CONTAINER, with an account key or an identity that may create it",
            )
        link = new_link(fetch, first=first_link, base=base, option=option)
        batches = exits.enter_context(closing(RequestBatches()))
        clients = AzureClients(link, copy_link, sync_client, _create_once(open_client), delete_batch, batches)
        url = f"{sync_client.retry(f'the storage account {location.account}', link.current).base}/{location.prefix}"
        yield AzureObjects(
            clients,
            location.prefix,
            observe,
            display_name=str(location),
            canonical_url=url,
            can_create_container=create is not None,
        )


def open_storage_account(
    location: AzureLocation, store_options: StoreOptions
) -> AbstractContextManager[StorageAccount]:
    """Open the storage account with the credentials of the environment."""
    from tilesync.stores.azure.credentials import open_account

    endpoint = account_endpoint(location, store_options)
    environ = {**os.environ, "AZURE_STORAGE_KEY": read_secret("AZURE_STORAGE_KEY", os.environ)}
    return open_account(location.account, location.container, endpoint, environ, allow_http=store_options.allow_http)


_LINK_HINT = "the command must print https://ACCOUNT.blob.core.windows.net/CONTAINER?SAS and nothing else"


def _make_link_command(store_options: StoreOptions, option: str) -> Callable[[], SasUrl] | None:
    """Return a function that runs the link command and returns its link; None without a link command."""
    command = store_options.link_command
    if not command:
        return None

    def fetch() -> SasUrl:
        from tilesync.runtime.subprocess import run_secret_command

        parsed = parse_location(
            run_secret_command(command, option), endpoint=store_options.azure_endpoint, fetched=monotonic()
        )
        link = find_link(parsed) if parsed is not None else None
        if link is None:
            raise NotAuthorised(f"the output of {option} is not a SAS link to an Azure container", hint=_LINK_HINT)
        return link

    return fetch


def _create_once(make: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
    """Return a function that calls `make` once and gives its result to every caller."""
    tasks: list[asyncio.Task[Any]] = []

    async def create() -> Any:
        if not tasks:
            tasks.append(asyncio.ensure_future(make()))
        return await tasks[0]

    return create
