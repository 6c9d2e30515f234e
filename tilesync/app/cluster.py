"""Workers of a Dask cluster for a run or an audit: what they must prove before they get work."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final

from tilesync import __version__
from tilesync.app.locations import is_folder, is_package
from tilesync.app.requests import Target
from tilesync.cluster.address import parse_cluster_address
from tilesync.cluster.client import open_cluster
from tilesync.cluster.pool import ClusterClient, ClusterPool
from tilesync.cluster.worker_side import PYTHON_VERSION, WorkerFacts
from tilesync.errors import UsageError
from tilesync.protocols import Observer

START_TIMEOUT: Final = timedelta(seconds=60)
"""How long a run waits for a first worker. Some clusters start workers only when there is work."""

PROOF_PREFIX: Final = ".tilesync-cluster-"
"""Begin of the name of the file, in the folder of the destination, by which a worker proves that it sees the folder."""


def make_cluster_pool(address: str, target: Target, observe: Observer) -> ClusterPool:
    """Make the pool of the workers that take part: those of this release that see the destination.

    `target`: with the absolute path of its folder, which exists when the pool starts. Raises UsageError.
    """
    from tilesync.app.worker_tasks import FetchedBatch

    place = parse_cluster_address(address)
    folder = Path(str(target.location)) if is_folder(target.location) else None

    @asynccontextmanager
    async def connect() -> AsyncIterator[tuple[ClusterClient, WorkerFacts]]:
        with _placed_token(folder) as (token_path, token):
            async with open_cluster(place, observe, token_path=token_path) as client:
                yield client, WorkerFacts(__version__, PYTHON_VERSION, token)

    return ClusterPool(
        connect,
        observe,
        has_failed=lambda result: isinstance(result, FetchedBatch) and not any(result.files),
        start_timeout=START_TIMEOUT,
    )


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
    if not is_folder(target.location):
        return target
    folder = Path(str(target.location))
    if is_package(folder):
        raise UsageError("--cluster needs a folder or a store: a package is one file", hint="run without --cluster")
    return replace(target, location=folder.absolute())
