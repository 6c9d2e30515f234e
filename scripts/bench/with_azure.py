"""List or download a container with azure-storage-blob: `with_azure.py LINK [FOLDER]`."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from azure.storage.blob import ContainerClient

THREAD_COUNT = 32


def main(link: str, folder: str | None) -> None:
    """List the container; download it if a folder is given."""
    count = 0
    with ContainerClient.from_container_url(link) as container, ThreadPoolExecutor(THREAD_COUNT) as pool:

        def download(name: str) -> None:
            path = Path(str(folder)) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as out:
                container.download_blob(name).readinto(out)

        running = []
        for blob in container.list_blobs():
            count += 1
            if folder:
                running.append(pool.submit(download, blob.name))
        for each in running:
            each.result()
    print(count)


main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
