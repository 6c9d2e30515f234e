"""Open a destination (folder, container or bucket) for a run, a plan, reading or an audit."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from tilesync.app.locations import parse_location
from tilesync.app.requests import StoreOptions, Target, account_endpoint, link_from_sas_token
from tilesync.core.http_headers import CachePolicy
from tilesync.core.urls import is_cleartext, make_cleartext_warning
from tilesync.errors import NotAuthorised, UsageError
from tilesync.events import Notice, Warned
from tilesync.model import Layout, SasUrl, Version
from tilesync.model.storage import AzureLocation, S3Location
from tilesync.protocols import Admission, Files, Objects, Observer
from tilesync.runtime.threads import own_thread_pool, run_in_thread, without_retries

if TYPE_CHECKING:
    from tilesync.app.workers import FindPutTarget
    from tilesync.stores.azure.credentials import StorageAccount
    from tilesync.stores.azure.direct_put import AzurePutTarget
    from tilesync.stores.local.destination import LocalDestination, ReadOnlyDestination
    from tilesync.stores.local.writer import LocalPutTarget
    from tilesync.stores.object_store.destination import ObjectDestination, ReadOnlyObjectDestination
    from tilesync.stores.object_store.files import WaitForBandwidth
    from tilesync.transport.blob_client import BlobClient

COPY_LINK_LIFETIME = timedelta(minutes=15)
"""Lifetime of the SAS link that the store reads its own blobs with, for a copy within the container."""

STORE_THREADS = 64
"""Threads for blocking requests to a store."""

LOCK_POLL_S = 1.0
"""Seconds between two attempts to acquire the lock."""


@asynccontextmanager
async def open_destination(
    target: Target,
    layout: Layout | None,
    open_client: Callable[[], Awaitable[BlobClient]],
    observe: Observer,
    admission: Admission | None = None,
    *,
    wait_for_bandwidth: WaitForBandwidth | None = None,
) -> AsyncIterator[LocalDestination | ObjectDestination]:
    """Open a destination for writing and lock it for this run.

    `layout`: None if the destination must exist. `wait_for_bandwidth` limits uploads. `admission`: the check of its
    owner; None to skip it.
    """
    if isinstance(target.location, Path):
        from tilesync.stores.local.destination import open_local

        local = open_local(
            target.location, state_dir=target.state_dir, layout=layout, admission=admission, observe=observe
        )
        with local as destination:
            yield destination
        return
    from tilesync.stores.object_store.destination import open_objects

    _refuse_flat(layout)
    with own_thread_pool(STORE_THREADS):
        closing = ExitStack()
        try:
            opening_store = _open_objects(target, open_client, observe, create=target.store_options.create_container)
            objects = await run_in_thread(closing.enter_context, opening_store)
            common = objects, target.resolve_state_dir(objects.canonical_url), target.store_options.serving, observe
            lock_and_open = partial(
                open_objects,
                *common,
                create=layout is not None,
                wait_for_bandwidth=wait_for_bandwidth,
                admission=admission,
            )
            yield await _acquire_lock(lambda: closing.enter_context(lock_and_open()), objects, observe)
        except asyncio.CancelledError:
            await without_retries(closing.close)
            raise
        finally:
            await run_in_thread(closing.close)


async def _acquire_lock(
    enter: Callable[[], ObjectDestination], objects: Objects, observe: Observer
) -> ObjectDestination:
    """Open a destination as soon as its lock is free: the lock of a killed run expires after its term."""
    from tilesync.stores.object_store.lock import HeldElsewhere

    deadline: float | None = None
    while True:
        try:
            return await run_in_thread(enter)
        except HeldElsewhere as error:
            if deadline is None:
                deadline = monotonic() + objects.lease().term.total_seconds() + LOCK_POLL_S
                wait_s = deadline - monotonic()
                observe(Notice(f"{error}; waiting up to {wait_s:.0f} s until that run ends or its lock expires"))
            if monotonic() > deadline:
                raise
        await asyncio.sleep(LOCK_POLL_S)


def put_target_finder(files: Files, serving: CachePolicy) -> FindPutTarget | None:
    """Return the function that finds where workers put files of a version; None if they cannot write there."""
    from tilesync.stores.local.writer import LocalFiles

    if isinstance(files, LocalFiles):

        async def find_local(version: Version) -> LocalPutTarget:
            return files.put_target(version)

        return find_local
    from tilesync.stores.azure.client import AzureObjects
    from tilesync.stores.object_store.files import ObjectFiles

    if isinstance(files, ObjectFiles) and isinstance(files.objects, AzureObjects):
        objects = files.objects

        async def find_azure(version: Version) -> AzurePutTarget:
            files.mark_changed(version)
            return await objects.make_put_target(serving)

        return find_azure
    return None


@contextmanager
def open_destination_for_plan(
    target: Target, layout: Layout, observe: Observer, admission: Admission | None = None
) -> Iterator[ReadOnlyDestination | ReadOnlyObjectDestination]:
    """Open a destination for a dry run, without writing to it; it need not exist."""
    if isinstance(target.location, Path):
        from tilesync.stores.local.destination import open_local_for_plan

        with open_local_for_plan(
            target.location, state_dir=target.state_dir, layout=layout, admission=admission
        ) as destination:
            yield destination
        return
    from tilesync.stores.object_store.destination import open_objects_for_plan

    _refuse_flat(layout)
    with (
        _open_objects(target, refuse_client, observe, create=False) as objects,
        open_objects_for_plan(
            objects, target.resolve_state_dir(objects.canonical_url), observe, admission
        ) as destination,
    ):
        yield destination


@contextmanager
def open_destination_for_reading(
    target: Target, observe: Observer
) -> Iterator[ReadOnlyDestination | ReadOnlyObjectDestination]:
    """Open a destination as the source of a mirror: read-only, without its state."""
    if isinstance(target.location, Path):
        from tilesync.stores.local.destination import open_local_for_reading

        with open_local_for_reading(target.location) as destination:
            yield destination
        return
    from tilesync.stores.object_store.destination import open_objects_for_reading

    with (
        _open_objects(target, refuse_client, observe, read_only=True) as objects,
        open_objects_for_reading(objects) as destination,
    ):
        yield destination


@contextmanager
def open_destination_for_audit(
    target: Target, observe: Observer
) -> Iterator[ReadOnlyDestination | ReadOnlyObjectDestination]:
    """Open a destination and its catalog, which records findings; the catalog is None if it cannot be written."""
    if isinstance(target.location, Path):
        from tilesync.stores.local.destination import open_local_for_audit

        with open_local_for_audit(target.location, target.state_dir) as destination:
            yield destination
        return
    from tilesync.stores.object_store.destination import open_objects_for_audit

    with (
        _open_objects(target, refuse_client, observe) as objects,
        open_objects_for_audit(objects, target.resolve_state_dir(objects.canonical_url)) as destination,
    ):
        yield destination


@contextmanager
def _open_objects(
    target: Target,
    open_client: Callable[[], Awaitable[BlobClient]],
    observe: Observer,
    *,
    read_only: bool = False,
    create: bool | None = None,
) -> Iterator[Objects]:
    """Open the store of a target and warn about plain http.

    `read_only`: never write to it. `create`: create a missing container; None if the command has no such option.
    """
    with _open_store(target, open_client, observe, read_only=read_only, create=create) as objects:
        if is_cleartext(objects.canonical_url):
            observe(Warned(make_cleartext_warning(objects.canonical_url, str(target.location))))
        yield objects


@contextmanager
def _open_store(
    target: Target,
    open_client: Callable[[], Awaitable[BlobClient]],
    observe: Observer,
    *,
    read_only: bool,
    create: bool | None,
) -> Iterator[Objects]:
    if isinstance(target.location, AzureLocation):
        with _open_azure(
            target.location, target.store_options, open_client, observe, read_only=read_only, create=create
        ) as blobs:
            yield blobs
        return
    from tilesync.stores.s3.session import open_bucket

    assert isinstance(target.location, S3Location)
    location, options = target.location, target.store_options
    with open_bucket(
        location.bucket,
        location.prefix,
        observe,
        endpoint_url=options.endpoint_url,
        retry_budget=options.retry_for,
        allow_http=options.allow_http,
    ) as objects:
        yield objects


@contextmanager
def _open_azure(
    location: AzureLocation,
    store_options: StoreOptions,
    open_client: Callable[[], Awaitable[BlobClient]],
    observe: Observer,
    *,
    read_only: bool,
    create: bool | None,
) -> Iterator[Objects]:
    from tilesync.stores.azure.client import AzureObjects
    from tilesync.stores.azure.credentials import delete_batch
    from tilesync.stores.azure.requests import AzureClients
    from tilesync.stores.azure.sas_link import make_store_link
    from tilesync.transport.blob_client_sync import open_sync_client

    with ExitStack() as closing:
        sync_client = closing.enter_context(
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

            account = closing.enter_context(open_storage_account(location, store_options))
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
        clients = AzureClients(link, copy_link, sync_client, _create_once(open_client), delete_batch)
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
    return open_account(location.account, location.container, endpoint, os.environ, allow_http=store_options.allow_http)


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
        if not isinstance(parsed, AzureLocation) or parsed.link is None:
            raise NotAuthorised(f"the output of {option} is not a SAS link to an Azure container", hint=_LINK_HINT)
        return parsed.link

    return fetch


def _create_once(make: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
    """Return a function that calls `make` once and gives its result to every caller."""
    tasks: list[asyncio.Task[Any]] = []

    async def create() -> Any:
        if not tasks:
            tasks.append(asyncio.ensure_future(make()))
        return await tasks[0]

    return create


async def refuse_client() -> Any:
    """Raise an error: takes the place of `open_client` in commands that upload nothing."""
    raise AssertionError("this command uploads no files")


def _refuse_flat(layout: Layout | None) -> None:
    if layout is Layout.FLAT:
        raise UsageError("the flat layout needs a folder: only there can renames put files in place")
