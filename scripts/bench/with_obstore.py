"""List or download a container with obstore: `with_obstore.py LINK [FOLDER]`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

import obstore
from obstore.store import AzureStore

MAX_CONCURRENT = 128


def open_store(link: str) -> AzureStore:
    """Open the container of a link."""
    parts = urlsplit(link)
    account, container = parts.path.strip("/").split("/")
    endpoint = f"{parts.scheme}://{parts.netloc}/{account}"
    return AzureStore(container, account_name=account, endpoint=endpoint, sas_token=parts.query)


async def main(link: str, folder: str | None) -> None:
    """List the container; download it if a folder is given."""
    store = open_store(link)
    count = 0
    pending = set[asyncio.Task[None]]()
    async for page in store.list(chunk_size=1000):
        count += len(page)
        for item in page if folder else ():
            if len(pending) >= MAX_CONCURRENT:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                _ = [task.result() for task in done]
            pending.add(asyncio.create_task(download(store, item["path"], Path(str(folder)) / item["path"])))
    await asyncio.gather(*pending)
    print(count, flush=True)
    os._exit(0)  # its threads abort an interpreter that winds down


async def download(store: AzureStore, name: str, path: Path) -> None:
    """Stream one blob to its file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    answer = await obstore.get_async(store, name)
    with path.open("wb") as out:
        async for chunk in answer.stream(min_chunk_size=1 << 20):
            out.write(chunk)


asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None))
