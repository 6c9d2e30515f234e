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

from tilesync.app.locations import parse_place
from tilesync.app.requests import Reach, Where, by_token, endpoint_of
from tilesync.core.http_headers import Serving
from tilesync.core.urls import in_clear, travels_in_clear
from tilesync.errors import NotAuthorised, UsageError
from tilesync.events import Notice, Warned
from tilesync.model import Layout, SasUrl, Version
from tilesync.model.storage import AzurePlace, BucketPlace
from tilesync.protocols import Admission, Files, Objects, Observer
from tilesync.runtime.threads import hastily, in_thread

if TYPE_CHECKING:
    from tilesync.app.workers import FindShelf
    from tilesync.stores.azure.credentials import Account
    from tilesync.stores.azure.direct_put import BlobShelf
    from tilesync.stores.local.destination import LocalDestination, Sight
    from tilesync.stores.local.writer import Shelf
    from tilesync.stores.object_store.destination import ObjectDestination, ObjectSight
    from tilesync.stores.object_store.files import Pace
    from tilesync.transport.blob_client import Bulk

COPYING = timedelta(minutes=15)
"""Life of a link that the store reads its own blobs by, for a copy."""

THREADS = 64
"""Threads for what is asked of a store."""

MOMENT = 1.0
"""Seconds between two looks whether a lock has come free."""


@asynccontextmanager
async def opened(
    where: Where,
    layout: Layout | None,
    bulk: Callable[[], Awaitable[Bulk]],
    observe: Observer,
    admission: Admission | None = None,
    *,
    pace: Pace | None = None,
) -> AsyncIterator[LocalDestination | ObjectDestination]:
    """The destination, locked for this run alone. Without a `layout` something must be held there. `pace`: how fast
    bytes may leave for it. `admission`: who comes; None is somebody who needs none.
    """
    if isinstance(where.place, Path):
        from tilesync.stores.local.destination import open_local

        local = open_local(where.place, state_dir=where.state_dir, layout=layout, admission=admission, observe=observe)
        with local as destination:
            yield destination
        return
    from tilesync.stores.object_store.destination import open_objects

    many_threads()
    _refuse_flat(layout)
    closing = ExitStack()
    try:
        making = _objects(where, bulk, observe, create=where.reach.create)
        objects = await in_thread(closing.enter_context, making)
        keeping = objects, where.state(objects.home), where.reach.serving, observe
        opening = partial(open_objects, *keeping, new=layout is not None, pace=pace, admission=admission)
        yield await _entered(lambda: closing.enter_context(opening()), objects, observe)
    except asyncio.CancelledError:
        await hastily(closing.close)
        raise
    finally:
        await in_thread(closing.close)


async def _entered(enter: Callable[[], ObjectDestination], objects: Objects, observe: Observer) -> ObjectDestination:
    """The destination, when its lock is to be had: whoever was killed elsewhere holds it for a term."""
    from tilesync.stores.object_store.lock import HeldElsewhere

    until: float | None = None
    while True:
        try:
            return await in_thread(enter)
        except HeldElsewhere as error:
            if until is None:
                until = monotonic() + objects.lease().term.total_seconds() + MOMENT
                observe(Notice(f"{error}; waiting up to {until - monotonic():.0f} s for it to end, or to prove dead"))
            if monotonic() > until:
                raise
        await asyncio.sleep(MOMENT)


def shelf_of(files: Files, serving: Serving) -> FindShelf | None:
    """What finds where other processes can put small files; None where they cannot."""
    from tilesync.stores.local.writer import LocalFiles

    if isinstance(files, LocalFiles):

        async def own(version: Version) -> Shelf:
            return files.shelf(version)

        return own
    from tilesync.stores.azure.client import AzureObjects
    from tilesync.stores.object_store.files import ObjectFiles

    if isinstance(files, ObjectFiles) and isinstance(files.objects, AzureObjects):
        objects = files.objects

        async def fresh(version: Version) -> BlobShelf:
            files.touch(version)
            return await objects.shelf(serving)

        return fresh
    return None


@contextmanager
def looked_at(
    where: Where, layout: Layout, observe: Observer, admission: Admission | None = None
) -> Iterator[Sight | ObjectSight]:
    """What a destination knows, without writing anything; it need not be there."""
    if isinstance(where.place, Path):
        from tilesync.stores.local.destination import look_at

        with look_at(where.place, state_dir=where.state_dir, layout=layout, admission=admission) as sight:
            yield sight
        return
    from tilesync.stores.object_store.destination import look_at_objects

    _refuse_flat(layout)
    with (
        _objects(where, no_bodies, observe, create=False) as objects,
        look_at_objects(objects, where.state(objects.home), observe, admission) as there,
    ):
        yield there


@contextmanager
def read(where: Where, observe: Observer) -> Iterator[Sight | ObjectSight]:
    """What a place holds that is only read, and of which no state is known."""
    if isinstance(where.place, Path):
        from tilesync.stores.local.destination import open_to_read

        with open_to_read(where.place) as sight:
            yield sight
        return
    from tilesync.stores.object_store.destination import read_objects

    with _objects(where, no_bodies, observe, reads=True) as objects, read_objects(objects) as there:
        yield there


@contextmanager
def audited(where: Where, observe: Observer) -> Iterator[Sight | ObjectSight]:
    """What a destination holds, and its catalog to mark findings in: None when there is none that can be written."""
    if isinstance(where.place, Path):
        from tilesync.stores.local.destination import open_for_audit

        with open_for_audit(where.place, where.state_dir) as sight:
            yield sight
        return
    from tilesync.stores.object_store.destination import audit_objects

    with _objects(where, no_bodies, observe) as objects, audit_objects(objects, where.state(objects.home)) as there:
        yield there


@contextmanager
def _objects(
    where: Where,
    bulk: Callable[[], Awaitable[Bulk]],
    observe: Observer,
    *,
    reads: bool = False,
    create: bool | None = None,
) -> Iterator[Objects]:
    """The objects of the place; `reads`: it is never written to; `create`: its container may be made, None where no
    option could say so.
    """
    with _reached(where, bulk, observe, reads=reads, create=create) as objects:
        if travels_in_clear(objects.home):
            observe(Warned(in_clear(objects.home, str(where.place))))
        yield objects


@contextmanager
def _reached(
    where: Where, bulk: Callable[[], Awaitable[Bulk]], observe: Observer, *, reads: bool, create: bool | None
) -> Iterator[Objects]:
    if isinstance(where.place, AzurePlace):
        with _blobs(where.place, where.reach, bulk, observe, reads=reads, create=create) as blobs:
            yield blobs
        return
    from tilesync.stores.s3.session import open_bucket

    assert isinstance(where.place, BucketPlace)
    place, reach = where.place, where.reach
    with open_bucket(
        place.bucket,
        place.prefix,
        observe,
        endpoint_url=reach.endpoint_url,
        budget=reach.budget,
        allow_http=reach.allow_http,
    ) as objects:
        yield objects


@contextmanager
def _blobs(
    place: AzurePlace,
    reach: Reach,
    bulk: Callable[[], Awaitable[Bulk]],
    observe: Observer,
    *,
    reads: bool,
    create: bool | None,
) -> Iterator[Objects]:
    from tilesync.stores.azure.client import AzureObjects, Wires
    from tilesync.stores.azure.credentials import delete_many
    from tilesync.stores.azure.sas_link import SignedLink
    from tilesync.transport.blob_client_sync import blocking

    with ExitStack() as closing:
        talk = closing.enter_context(blocking(observe, budget=reach.budget, allow_http=reach.allow_http))
        option = "--link-command" if reads else "--dest-link-command"
        fetch = _asking(reach, option)
        base = f"{endpoint_of(place, reach)}/{place.container}" if fetch is not None else None
        first = place.link or by_token(place, reach, reads=reads)
        copying: SignedLink | None = None
        if first is None and fetch is None:
            from tilesync.stores.azure.credentials import READ, READS, WRITES

            account = closing.enter_context(account_at(place, reach))
            fetch = partial(account.mint, READS if reads else WRITES)
            minting = partial(account.mint, READ, life=COPYING)
            copying = SignedLink(minting, observe, allow_http=reach.allow_http)
            if create:
                talk.insist(f"the storage account {place.account}", account.create)
        elif create:
            raise UsageError(
                "a link to a container cannot make it",
                hint="name it as az://ACCOUNT/CONTAINER, with a key or an identity that may",
            )
        link = SignedLink(fetch, observe, first=first, base=base, option=option, allow_http=reach.allow_http)
        wires = Wires(link, copying, talk, _kept(bulk), delete_many)
        home = f"{talk.insist(f'the storage account {place.account}', link.current).base}/{place.prefix}"
        creatable = create is not None
        yield AzureObjects(wires, place.prefix, observe, shown=str(place), home=home, creatable=creatable)


def account_at(place: AzurePlace, reach: Reach) -> AbstractContextManager[Account]:
    """The storage account, as some identity sees it."""
    from tilesync.stores.azure.credentials import account_of

    endpoint = endpoint_of(place, reach)
    return account_of(place.account, place.container, endpoint, os.environ, allow_http=reach.allow_http)


_LINK = "it must print https://ACCOUNT.blob.core.windows.net/CONTAINER?SAS and nothing else"


def _asking(reach: Reach, option: str) -> Callable[[], SasUrl] | None:
    """What prints a fresh link to the container; None where there is no such command."""
    command = reach.link_command
    if not command:
        return None

    def fetch() -> SasUrl:
        from tilesync.runtime.subprocess import printed

        found = parse_place(printed(command, option), endpoint=reach.azure_endpoint, fetched=monotonic())
        if not isinstance(found, AzurePlace) or found.link is None:
            raise NotAuthorised(f"the output of {option} is no link to a container of Azure", hint=_LINK)
        return found.link

    return fetch


def _kept(make: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
    """What is made by the first who asks, for all."""
    made: list[asyncio.Task[Any]] = []

    async def kept() -> Any:
        if not made:
            made.append(asyncio.ensure_future(make()))
        return await made[0]

    return kept


async def no_bodies() -> Any:
    """The engine of those who put no files anywhere."""
    raise AssertionError("no file is put in place by this command")


def _refuse_flat(layout: Layout | None) -> None:
    if layout is Layout.FLAT:
        raise UsageError("the flat layout is for folders: renames are what puts it in place")


def many_threads() -> None:
    """What is asked of a store waits most of its time: more threads than cores do not fight for them."""
    from concurrent.futures import ThreadPoolExecutor

    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="tilesync"))
