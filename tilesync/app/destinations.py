"""Destinations wherever they are: a folder, a container, a bucket; opened for a run, for a plan, or for an audit."""

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
from tilesync.runtime.threads import run_in_thread, without_retries

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
"""Life of a link that the store reads its own blobs by, for a copy."""

STORE_THREADS = 64
"""Threads for what is asked of a store."""

LOCK_POLL_S = 1.0
"""Seconds between two looks whether a lock has come free."""


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
    """The destination, locked for this run alone. Without a `layout` something must be held there. `pace`: how fast
    bytes may leave for it. `admission`: who comes; None is somebody who needs none.
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
    closing = ExitStack()
    try:
        making = _open_objects(target, open_client, observe, create=target.store_options.create_container)
        objects = await run_in_thread(closing.enter_context, making)
        keeping = objects, target.resolve_state_dir(objects.canonical_url), target.store_options.serving, observe
        opening = partial(
            open_objects,
            *keeping,
            create=layout is not None,
            wait_for_bandwidth=wait_for_bandwidth,
            admission=admission,
        )
        yield await _acquire_lock(lambda: closing.enter_context(opening()), objects, observe)
    except asyncio.CancelledError:
        await without_retries(closing.close)
        raise
    finally:
        await run_in_thread(closing.close)


async def _acquire_lock(
    enter: Callable[[], ObjectDestination], objects: Objects, observe: Observer
) -> ObjectDestination:
    """The destination, when its lock is to be had: whoever was killed elsewhere holds it for a term."""
    from tilesync.stores.object_store.lock import HeldElsewhere

    until: float | None = None
    while True:
        try:
            return await run_in_thread(enter)
        except HeldElsewhere as error:
            if until is None:
                until = monotonic() + objects.lease().term.total_seconds() + LOCK_POLL_S
                observe(Notice(f"{error}; waiting up to {until - monotonic():.0f} s for it to end, or to prove dead"))
            if monotonic() > until:
                raise
        await asyncio.sleep(LOCK_POLL_S)


def put_target_finder(files: Files, serving: CachePolicy) -> FindPutTarget | None:
    """What finds where other processes can put small files; None where they cannot."""
    from tilesync.stores.local.writer import LocalFiles

    if isinstance(files, LocalFiles):

        async def own(version: Version) -> LocalPutTarget:
            return files.put_target(version)

        return own
    from tilesync.stores.azure.client import AzureObjects
    from tilesync.stores.object_store.files import ObjectFiles

    if isinstance(files, ObjectFiles) and isinstance(files.objects, AzureObjects):
        objects = files.objects

        async def fresh(version: Version) -> AzurePutTarget:
            files.mark_changed(version)
            return await objects.make_put_target(serving)

        return fresh
    return None


@contextmanager
def open_destination_for_plan(
    target: Target, layout: Layout, observe: Observer, admission: Admission | None = None
) -> Iterator[ReadOnlyDestination | ReadOnlyObjectDestination]:
    """What a destination knows, without writing anything; it need not be there."""
    if isinstance(target.location, Path):
        from tilesync.stores.local.destination import open_local_for_plan

        with open_local_for_plan(
            target.location, state_dir=target.state_dir, layout=layout, admission=admission
        ) as sight:
            yield sight
        return
    from tilesync.stores.object_store.destination import open_objects_for_plan

    _refuse_flat(layout)
    with (
        _open_objects(target, refuse_client, observe, create=False) as objects,
        open_objects_for_plan(objects, target.resolve_state_dir(objects.canonical_url), observe, admission) as there,
    ):
        yield there


@contextmanager
def open_destination_for_reading(
    target: Target, observe: Observer
) -> Iterator[ReadOnlyDestination | ReadOnlyObjectDestination]:
    """What a place holds that is only read, and of which no state is known."""
    if isinstance(target.location, Path):
        from tilesync.stores.local.destination import open_local_for_reading

        with open_local_for_reading(target.location) as sight:
            yield sight
        return
    from tilesync.stores.object_store.destination import open_objects_for_reading

    with (
        _open_objects(target, refuse_client, observe, read_only=True) as objects,
        open_objects_for_reading(objects) as there,
    ):
        yield there


@contextmanager
def open_destination_for_audit(
    target: Target, observe: Observer
) -> Iterator[ReadOnlyDestination | ReadOnlyObjectDestination]:
    """What a destination holds, and its catalog to mark findings in: None when there is none that can be written."""
    if isinstance(target.location, Path):
        from tilesync.stores.local.destination import open_local_for_audit

        with open_local_for_audit(target.location, target.state_dir) as sight:
            yield sight
        return
    from tilesync.stores.object_store.destination import open_objects_for_audit

    with (
        _open_objects(target, refuse_client, observe) as objects,
        open_objects_for_audit(objects, target.resolve_state_dir(objects.canonical_url)) as there,
    ):
        yield there


@contextmanager
def _open_objects(
    target: Target,
    open_client: Callable[[], Awaitable[BlobClient]],
    observe: Observer,
    *,
    read_only: bool = False,
    create: bool | None = None,
) -> Iterator[Objects]:
    """The objects of the place; `reads`: it is never written to; `create`: its container may be made, None where no
    option could say so.
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
    place, reach = target.location, target.store_options
    with open_bucket(
        place.bucket,
        place.prefix,
        observe,
        endpoint_url=reach.endpoint_url,
        retry_budget=reach.retry_for,
        allow_http=reach.allow_http,
    ) as objects:
        yield objects


@contextmanager
def _open_azure(
    place: AzureLocation,
    store_options: StoreOptions,
    open_client: Callable[[], Awaitable[BlobClient]],
    observe: Observer,
    *,
    read_only: bool,
    create: bool | None,
) -> Iterator[Objects]:
    from tilesync.stores.azure.client import AzureClients, AzureObjects
    from tilesync.stores.azure.credentials import delete_batch
    from tilesync.stores.azure.sas_link import RenewableSasLink
    from tilesync.transport.blob_client_sync import open_sync_client

    with ExitStack() as closing:
        talk = closing.enter_context(
            open_sync_client(observe, budget=store_options.retry_for, allow_http=store_options.allow_http)
        )
        option = "--link-command" if read_only else "--dest-link-command"
        fetch = _make_link_command(store_options, option)
        base = f"{account_endpoint(place, store_options)}/{place.container}" if fetch is not None else None
        first = place.link or link_from_sas_token(place, store_options, read_only=read_only)
        copying: RenewableSasLink | None = None
        if first is None and fetch is None:
            from tilesync.stores.azure.credentials import READ_LIST_PERMISSIONS, READ_PERMISSIONS, WRITE_PERMISSIONS

            account = closing.enter_context(open_storage_account(place, store_options))
            fetch = partial(account.create_sas, READ_LIST_PERMISSIONS if read_only else WRITE_PERMISSIONS)
            minting = partial(account.create_sas, READ_PERMISSIONS, lifetime=COPY_LINK_LIFETIME)
            copying = RenewableSasLink(minting, observe, allow_http=store_options.allow_http)
            if create:
                talk.retry(f"the storage account {place.account}", account.create_container)
        elif create:
            raise UsageError(
                "a link to a container cannot make it",
                hint="name it as az://ACCOUNT/CONTAINER, with a key or an identity that may",
            )
        link = RenewableSasLink(
            fetch, observe, first=first, base=base, option=option, allow_http=store_options.allow_http
        )
        wires = AzureClients(link, copying, talk, _create_once(open_client), delete_batch)
        home = f"{talk.retry(f'the storage account {place.account}', link.current).base}/{place.prefix}"
        creatable = create is not None
        yield AzureObjects(
            wires, place.prefix, observe, display_name=str(place), canonical_url=home, can_create_container=creatable
        )


def open_storage_account(place: AzureLocation, store_options: StoreOptions) -> AbstractContextManager[StorageAccount]:
    """The storage account, as some identity sees it."""
    from tilesync.stores.azure.credentials import open_account

    endpoint = account_endpoint(place, store_options)
    return open_account(place.account, place.container, endpoint, os.environ, allow_http=store_options.allow_http)


_LINK_HINT = "it must print https://ACCOUNT.blob.core.windows.net/CONTAINER?SAS and nothing else"


def _make_link_command(store_options: StoreOptions, option: str) -> Callable[[], SasUrl] | None:
    """What prints a fresh link to the container; None where there is no such command."""
    command = store_options.link_command
    if not command:
        return None

    def fetch() -> SasUrl:
        from tilesync.runtime.subprocess import run_secret_command

        found = parse_location(
            run_secret_command(command, option), endpoint=store_options.azure_endpoint, fetched=monotonic()
        )
        if not isinstance(found, AzureLocation) or found.link is None:
            raise NotAuthorised(f"the output of {option} is no link to a container of Azure", hint=_LINK_HINT)
        return found.link

    return fetch


def _create_once(make: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
    """What is made by the first who asks, for all."""
    made: list[asyncio.Task[Any]] = []

    async def kept() -> Any:
        if not made:
            made.append(asyncio.ensure_future(make()))
        return await made[0]

    return kept


async def refuse_client() -> Any:
    """The engine of those who put no files anywhere."""
    raise AssertionError("no file is put in place by this command")


def _refuse_flat(layout: Layout | None) -> None:
    if layout is Layout.FLAT:
        raise UsageError("the flat layout is for folders: renames are what puts it in place")
