"""Benchmark the HTTP/1.1 connection pool against pyreqwest's: `python scripts/bench/pool.py [--files N] [--rounds N]`.

A worker task (FetchBatch) downloads small files over TLS, once with the pool of tilesync and once with that of
pyreqwest in its place; all else is the same: the checks, the files, the event loop. Each download runs in a process of
its own, in rounds that alternate. Medians are printed, and how many times as long pyreqwest takes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

from data import list_folder, write_equal_files
from service import SAS, run_nginx

from tilesync.app import worker_tasks
from tilesync.azure.sas import parse_sas_link
from tilesync.errors import TilesyncError
from tilesync.jobs.transfer.worker_batches import BLOBS_PER_BATCH
from tilesync.model import Blob
from tilesync.runtime.event_loop import loop_factory, tune_garbage_collector
from tilesync.runtime.task_pool import WorkerContext
from tilesync.stores.local.directory_handles import DirectoryTree
from tilesync.stores.local.put_target import LocalPutTarget
from tilesync.stores.local.reader import SafePathResolver
from tilesync.transport.blob_client import BlobClient, open_blob_client
from tilesync.transport.http1_connection import PoolResponse
from tilesync.transport.http1_pool import PoolRequest

FILE_BYTES = 8_000
MAX_CONNECTIONS = 64
CONCURRENT_BATCHES = 2 * MAX_CONNECTIONS // BLOBS_PER_BATCH
POOLS = ("own", "pyreqwest")


class PyreqwestPool:
    """Pool with the interface of HttpPool, on the client that fetches large bodies."""

    def __init__(self, client: BlobClient) -> None:
        self._client = client
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)

    async def send_all(
        self,
        requests: Sequence[PoolRequest],
        on_response: Callable[[int, PoolResponse], None],
        *,
        max_connections: int,
        time_limit: timedelta,
    ) -> None:
        """Send requests, and call `on_response` with the index and response of each one answered in time."""

        async def send(index: int, request: PoolRequest) -> None:
            async with self._slots:
                started_at = time.monotonic()
                response = await self._client.get(request.url, request.headers, prefetch_bytes=request.size)
                first_byte_s = time.monotonic() - started_at
                try:
                    body = await response.read(request.size)
                finally:
                    await response.aclose()
                etag, md5 = response.header("etag"), response.header("content-md5")
            if response.status == 200 and len(body) == request.size:
                on_response(index, PoolResponse(etag, body, time.monotonic() - started_at, first_byte_s, md5))

        with suppress(TimeoutError, TilesyncError):
            async with asyncio.timeout(time_limit.total_seconds()):
                await asyncio.gather(*(send(*item) for item in enumerate(requests)))


@asynccontextmanager
async def open_pyreqwest_pool() -> AsyncIterator[PyreqwestPool]:
    """Open the pool of pyreqwest."""
    async with open_blob_client() as client:
        yield PyreqwestPool(client)


async def download(link: str, blobs: Sequence[Blob], folder: Path) -> None:
    """Download all blobs as a worker process does, until none is left."""
    tune_garbage_collector()
    sas = parse_sas_link(link)
    put_target = LocalPutTarget(SafePathResolver(folder), DirectoryTree(folder / "parts"))
    (folder / "parts").mkdir(parents=True)
    batches = [tuple(blobs[start : start + BLOBS_PER_BATCH]) for start in range(0, len(blobs), BLOBS_PER_BATCH)]
    async with AsyncExitStack() as exit_stack:
        context = WorkerContext(exit_stack)

        async def run_batches() -> None:
            while batches:
                batch = batches.pop()
                task = worker_tasks.FetchBatch(
                    sas, put_target, "bench", sas.base, batch, MAX_CONNECTIONS, worker_tasks.BATCH_TIMEOUT
                )
                files = (await task(context)).files
                if failed := tuple(blob for blob, placed in zip(batch, files, strict=True) if placed is None):
                    batches.append(failed)

        await asyncio.gather(*(run_batches() for _ in range(CONCURRENT_BATCHES)))


def measure_pool(pool: str, link: str, listing: Path) -> None:
    """Download through one pool; print the seconds and CPU seconds."""
    if pool == "pyreqwest":
        worker_tasks.http_pool = open_pyreqwest_pool  # type: ignore[assignment]  # the swap that this measures
    blobs = [Blob(name, size, etag) for name, size, etag in json.loads(listing.read_bytes())]
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        started_at, cpu_started_s = time.monotonic(), time.process_time()
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(download(link, blobs, Path(folder)))
        print(json.dumps([time.monotonic() - started_at, time.process_time() - cpu_started_s]))
        assert sum(1 for path in Path(folder).rglob("*") if path.is_file()) == len(blobs)


def main() -> None:
    """Measure both pools in turn, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        measure_pool(asked.measure[0], asked.measure[1], Path(asked.measure[2]))
        return
    with tempfile.TemporaryDirectory() as folder:
        data, listing = Path(folder, "data"), Path(folder, "listing.json")
        write_equal_files(data / "containers/pool", count=asked.files, size=FILE_BYTES)
        blobs = [
            (each.name, each.size, f"{each.modified:x}-{each.size:x}")
            for each in list_folder(data / "containers/pool")
            if each.name.endswith(".glb")
        ]
        listing.write_text(json.dumps(blobs))
        costs: dict[str, list[tuple[float, float]]] = {pool: [] for pool in POOLS}
        with run_nginx(Path(folder, "nginx"), data, Path(folder, "uploads")) as service:
            url = service.url
            env = {**os.environ, "SSL_CERT_FILE": str(Path(folder, "nginx/ca.pem"))}
            for _ in range(asked.rounds):
                for pool, found in costs.items():
                    command = [sys.executable, __file__, "--measure", pool, f"{url}/account/pool?{SAS}", str(listing)]
                    said = subprocess.run(command, capture_output=True, check=True, env=env)
                    found.append(tuple(json.loads(said.stdout)))
    print(f"{asked.files:,} files of {FILE_BYTES:,} bytes, {MAX_CONNECTIONS} connections, one worker")
    for index, name in enumerate(("seconds", "CPU seconds")):
        own, other = (statistics.median(cost[index] for cost in costs[pool]) for pool in POOLS)
        print(f"{name}: own pool {own:.1f}, pyreqwest {other:.1f}; {other / own:.2f} times as long")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
