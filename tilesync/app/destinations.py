"""Open a destination: a folder, a container or a bucket, for a run, a plan, reading or an audit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, overload

from tilesync.app.backends import Opening, make_backend
from tilesync.app.requests import Target
from tilesync.app.service import OpenBlobClient, refuse_client
from tilesync.model import Layout
from tilesync.protocols import Admission, Observer
from tilesync.runtime.threads import own_thread_pool, run_in_thread, without_retries
from tilesync.stores.opening import Mode, ReadOnlyDestination

if TYPE_CHECKING:
    from tilesync.stores.local.destination import LocalDestination
    from tilesync.stores.object_store.destination import ObjectDestination
    from tilesync.stores.object_store.draft import WaitForBandwidth


@overload
def open_destination(
    target: Target,
    mode: Literal[Mode.WRITE],
    observe: Observer,
    *,
    layout: Layout | None = None,
    admission: Admission | None = None,
    open_client: OpenBlobClient = refuse_client,
    wait_for_bandwidth: WaitForBandwidth | None = None,
) -> AbstractAsyncContextManager[LocalDestination | ObjectDestination]: ...


@overload
def open_destination(
    target: Target,
    mode: Literal[Mode.PLAN, Mode.READ, Mode.AUDIT],
    observe: Observer,
    *,
    layout: Layout | None = None,
    admission: Admission | None = None,
) -> AbstractAsyncContextManager[ReadOnlyDestination]: ...


@asynccontextmanager
async def open_destination(
    target: Target,
    mode: Mode,
    observe: Observer,
    *,
    layout: Layout | None = None,
    admission: Admission | None = None,
    open_client: OpenBlobClient = refuse_client,
    wait_for_bandwidth: WaitForBandwidth | None = None,
) -> AsyncIterator[Any]:
    """Open a destination in a thread. A store gets threads of its own, but not in mode READ: a source shares them.

    `layout`: None for the layout that the destination has; in mode WRITE it must exist then. `admission`: the check of
    its owner; None to skip it. `open_client` opens the client of uploads, which `wait_for_bandwidth` limits.
    """
    backend = make_backend(target)
    opening = Opening(mode, observe, layout, admission, open_client, wait_for_bandwidth)
    has_own_threads = backend.max_threads is not None and mode is not Mode.READ
    with own_thread_pool(backend.max_threads) if has_own_threads else nullcontext():
        exits = ExitStack()
        try:
            yield await run_in_thread(exits.enter_context, backend.open(opening))
        except asyncio.CancelledError:
            await without_retries(exits.close)
            raise
        finally:
            await run_in_thread(exits.close)


@contextmanager
def open_destination_blocking(target: Target, observe: Observer) -> Iterator[ReadOnlyDestination]:
    """Open a destination for an audit, in the thread of the caller."""
    with make_backend(target).open(Opening(Mode.AUDIT, observe)) as destination:
        yield destination
