"""Workers of a Dask cluster for a run or an audit: what they must prove before they get work."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tilesync import __version__
from tilesync.app.locations import is_folder, is_package
from tilesync.app.requests import Target
from tilesync.app.workers import CLUSTER_BATCHES, PoolWorkers
from tilesync.cluster.address import parse_cluster_address
from tilesync.cluster.client import open_cluster
from tilesync.cluster.pool import ClusterClient, ClusterPool
from tilesync.cluster.worker_side import PYTHON_VERSION, WorkerFacts
from tilesync.errors import UsageError
from tilesync.protocols import Observer, StoredFiles

if TYPE_CHECKING:
    from tilesync.stores.worker_target import FindWorkerTarget, MakeWorkerStore

START_TIMEOUT: Final = timedelta(seconds=60)
"""How long a run waits for a first worker. Some clusters start workers only when there is work."""

PROOF_PREFIX: Final = ".tilesync-cluster-"
"""Begin of the name of the file, in the folder of the destination, by which a worker proves that it sees the folder."""


def make_cluster_workers(
    address: str,
    target: Target,
    observe: Observer,
    exit_stack: AsyncExitStack,
    *,
    files: StoredFiles | None = None,
    find_target: FindWorkerTarget | None = None,
    make_store: MakeWorkerStore | None = None,
) -> PoolWorkers:
    """Make workers of a cluster: those that have this release, and see the destination. They stop with `exit_stack`.

    `target`: with the absolute path of its folder, which exists when the workers start. Raises UsageError.
    """
    from tilesync.app.worker_tasks import FetchedBatch

    place = parse_cluster_address(address)

    @asynccontextmanager
    async def connect() -> AsyncIterator[tuple[ClusterClient, WorkerFacts]]:
        with _placed_token(_find_folder(target)) as (token_path, token):
            async with open_cluster(place, observe, token_path=token_path) as client:
                yield client, WorkerFacts(__version__, PYTHON_VERSION, token)

    pool = ClusterPool(
        connect,
        observe,
        has_failed=lambda result: isinstance(result, FetchedBatch) and not any(result.files),
        start_timeout=START_TIMEOUT,
    )
    exit_stack.push_async_callback(pool.aclose)
    return PoolWorkers(pool, files, find_target, make_store=make_store, rules=CLUSTER_BATCHES)


def _find_folder(target: Target) -> Path | None:
    """Return the folder of a destination; None for a store."""
    return Path(str(target.location)) if is_folder(target.location) else None


@contextmanager
def _placed_token(folder: Path | None) -> Iterator[tuple[str, str]]:
    """Write a file that proves which folder this is, while the context is open; yield its path and its content."""
    if folder is None:
        yield "", ""
        return
    token = secrets.token_hex(16)
    path = folder / f"{PROOF_PREFIX}{token[:8]}"
    try:
        path.write_text(token)
    except OSError as error:
        raise UsageError(
            f"cannot write into {folder}, by which workers prove that they see it: {error.strerror}",
            hint="run without --cluster, or with the right to write there",
        ) from None
    try:
        yield str(path), token
    finally:
        with suppress(OSError):
            path.unlink()


def make_absolute(target: Target) -> Target:
    """Return the target with the absolute path of its folder: workers have other working directories.

    Raises UsageError for a package, which one process reads.
    """
    folder = _find_folder(target)
    if folder is None:
        return target
    if is_package(folder):
        raise UsageError("--cluster needs a folder or a store: a package is one file", hint="run without --cluster")
    return replace(target, location=folder.absolute())
