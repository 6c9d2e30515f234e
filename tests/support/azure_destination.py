"""Object destinations opened for tests: on a real blob service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from tests.support.azurite import ACCOUNT, signed
from tilesync.core.http_headers import Serving
from tilesync.events import Event
from tilesync.model import SasUrl
from tilesync.stores.azure.client import AzureObjects, Wires
from tilesync.stores.azure.credentials import delete_many
from tilesync.stores.azure.sas_link import SignedLink
from tilesync.stores.object_store.destination import ObjectDestination, open_objects
from tilesync.transport.blob_client import Bulk, engine
from tilesync.transport.blob_client_sync import blocking

TERM = timedelta(seconds=15)
"""The shortest lease."""


def silent(event: Event) -> None:
    """Hear nothing."""


@contextmanager
def azure_objects(
    url: str,
    *,
    prefix: str = "",
    fetch: Callable[[], SasUrl] | None = None,
    observe: Callable[[Event], None] = silent,
    budget: timedelta = timedelta(seconds=20),
) -> Iterator[AzureObjects]:
    """The objects of a container."""
    engines: dict[asyncio.AbstractEventLoop, tuple[object, Bulk]] = {}

    async def bulk() -> Bulk:
        """One for each loop: it ends with that."""
        loop = asyncio.get_running_loop()
        if loop not in engines:
            opening = engine(sends=True)
            engines[loop] = opening, await opening.__aenter__()
        return engines[loop][1]

    with blocking(observe, budget=budget) as talk:
        link = SignedLink(fetch or (lambda: signed(url)), observe)
        wires = Wires(link, SignedLink(lambda: signed(url, permission="r"), observe), talk, bulk, delete_many)
        shown = f"az://{ACCOUNT}/{url.rpartition('/')[2]}/{prefix}"
        yield AzureObjects(wires, prefix, observe, shown=shown, home=f"{url}/{prefix}", term=TERM)


@contextmanager
def azure_destination(url: str, state: Path, *, prefix: str = "") -> Iterator[ObjectDestination]:
    """A destination in a container."""
    with azure_objects(url, prefix=prefix) as objects, open_objects(objects, state, Serving(), silent) as there:
        yield there
