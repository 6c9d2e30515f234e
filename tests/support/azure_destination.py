"""Open Azure destinations for tests, on a real blob service (Azurite)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

from tests.support.azurite import ACCOUNT, signed_link
from tilesync.core.http_headers import CachePolicy
from tilesync.events import Event
from tilesync.model import SasUrl
from tilesync.stores.azure.client import AzureObjects
from tilesync.stores.azure.credentials import delete_batch
from tilesync.stores.azure.requests import AzureClients
from tilesync.stores.azure.sas_link import make_store_link
from tilesync.stores.object_store.destination import ObjectDestination, open_objects
from tilesync.transport.blob_client import BlobClient, open_blob_client
from tilesync.transport.blob_client_sync import open_sync_client
from tilesync.transport.request_batches import RequestBatches

LEASE_TERM = timedelta(seconds=15)
"""Seconds of the shortest lease that Azure accepts."""


def ignore_event(event: Event) -> None:
    """Ignore an event."""


@contextmanager
def azure_objects(
    url: str,
    *,
    prefix: str = "",
    fetch: Callable[[], SasUrl] | None = None,
    observe: Callable[[Event], None] = ignore_event,
    budget: timedelta = timedelta(seconds=20),
) -> Iterator[AzureObjects]:
    """Make the objects of a container."""
    engines: dict[asyncio.AbstractEventLoop, tuple[object, BlobClient]] = {}

    async def bulk() -> BlobClient:
        """Make one client for each event loop; it closes with the loop."""
        loop = asyncio.get_running_loop()
        if loop not in engines:
            opening = open_blob_client(for_uploads=True)
            engines[loop] = opening, await opening.__aenter__()
        return engines[loop][1]

    with open_sync_client(observe, budget=budget) as talk, closing(RequestBatches()) as batches:
        link = make_store_link(fetch or (lambda: signed_link(url)), observe)
        clients = AzureClients(
            link, make_store_link(lambda: signed_link(url, permission="r"), observe), talk, bulk, delete_batch, batches
        )
        shown = f"az://{ACCOUNT}/{url.rpartition('/')[2]}/{prefix}"
        yield AzureObjects(
            clients, prefix, observe, display_name=shown, canonical_url=f"{url}/{prefix}", term=LEASE_TERM
        )


@contextmanager
def azure_destination(url: str, state: Path, *, prefix: str = "") -> Iterator[ObjectDestination]:
    """Make a destination in a container."""
    with (
        azure_objects(url, prefix=prefix) as objects,
        open_objects(objects, state, CachePolicy(), ignore_event) as there,
    ):
        yield there
