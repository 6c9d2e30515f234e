"""Client of a Dask cluster: connect to its scheduler, or start a cluster on this machine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Mapping
from concurrent.futures import CancelledError
from typing import Any, Final

from tilesync.cluster.address import ClusterAddress
from tilesync.cluster.pool import WorkerState
from tilesync.cluster.worker_side import TaskOutcome, TaskPayload, WorkerFacts, describe_worker, run_task
from tilesync.errors import Unavailable, UsageError
from tilesync.events import Warned
from tilesync.protocols import Observer
from tilesync.runtime.task_groups import gather_or_cancel
from tilesync.runtime.task_pool import WorkerLost

CONNECT_TIMEOUT_S: Final = 20.0
"""Seconds in which the scheduler must answer."""

ANSWER_TIMEOUT_S: Final = 10.0
"""Seconds in which a new worker must answer what it is."""

THREADS_PER_WORKER: Final = 2
"""Threads of a worker of a cluster on this machine: one works while the other waits for its next task."""


@contextlib.asynccontextmanager
async def open_cluster(address: ClusterAddress, observe: Observer, *, token_path: str) -> AsyncIterator[DaskClient]:
    """Connect to a cluster while the context is open; one on this machine ends with it.

    `token_path`: file whose content each worker states among its facts; empty for none. Raises UsageError without the
    extra `dask`, Unavailable if the scheduler does not answer.
    """
    try:
        import distributed
    except ImportError:
        raise UsageError(
            "--cluster needs Dask", hint="install it here and for each worker: pip install 'tilesync[dask]'"
        ) from None
    dask: Any = distributed  # its classes are not typed
    if address.is_cleartext:
        message = (
            f"{address.url} is not encrypted: signed links go to its workers in the clear, and anyone on the way can"
            " read them; tls:// encrypts them"
        )
        observe(Warned(message))
    async with contextlib.AsyncExitStack() as exits:
        place: Any = address.url
        if address.local_workers:
            place = await exits.enter_async_context(
                dask.LocalCluster(
                    n_workers=address.local_workers,
                    threads_per_worker=THREADS_PER_WORKER,
                    processes=True,
                    dashboard_address=None,
                    asynchronous=True,
                    silence_logs=50,
                )
            )
        try:
            client = await exits.enter_async_context(
                dask.Client(place, asynchronous=True, set_as_default=False, timeout=CONNECT_TIMEOUT_S, name="tilesync")
            )
        except (OSError, TimeoutError, RuntimeError, ValueError) as error:
            raise Unavailable(
                f"the scheduler {address.text} does not answer ({type(error).__name__})",
                hint="check its address, that it runs, and for tls:// the certificates in Dask's configuration",
            ) from error
        yield DaskClient(client, token_path)


class DaskClient:
    """Connection to a cluster of Dask, as the pool needs it. The scheduler may die at any time: then Unavailable."""

    def __init__(self, client: Any, token_path: str) -> None:
        self._client = client
        self._token_path = token_path

    async def list_workers(self) -> Mapping[str, WorkerState]:
        """Return the state of each worker, by address."""
        found = await self._ask(self._client.scheduler.identity(n_workers=-1))
        workers: dict[str, dict[str, Any]] = found["workers"]
        latest = max((each["last_seen"] for each in workers.values()), default=0.0)
        return {
            address: WorkerState(str(each["name"]), int(each["nthreads"]), latest - each["last_seen"])
            for address, each in workers.items()
        }

    async def describe_workers(self, addresses: Collection[str]) -> Mapping[str, WorkerFacts | None]:
        """Return the facts of workers, by address; None for one that cannot answer."""
        facts = await gather_or_cancel(self._describe_worker(address) for address in addresses)
        return dict(zip(addresses, facts, strict=True))

    async def _describe_worker(self, address: str) -> WorkerFacts | None:
        """Return the facts of one worker. Each is asked alone: one that does not answer must not hide the others."""
        asking = self._client.run(describe_worker, self._token_path, workers=[address], on_error="return", nanny=False)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                answer = (await self._ask(asking)).get(address)
        except TimeoutError:
            return None
        return WorkerFacts(*answer, *[None] * (3 - len(answer))) if isinstance(answer, tuple) else None

    async def list_tasks(self, addresses: Collection[str]) -> Collection[str]:
        """Return the keys of the tasks that these workers have now."""
        found = await self._ask(self._client.processing(workers=list(addresses)))
        return {key for keys in found.values() for key in keys}

    async def submit(self, key: str, payload: TaskPayload, addresses: Collection[str]) -> TaskOutcome:
        """Run a task on one of these workers. Raises WorkerLost. A cancelled call withdraws the task."""
        from distributed import KilledWorker

        future = self._client.submit(run_task, payload, key=key, workers=list(addresses), pure=False)
        try:
            outcome: TaskOutcome = await self._ask(future)
        except KilledWorker:
            raise WorkerLost("every worker that ran it ended") from None
        finally:
            if not future.done():
                await asyncio.shield(self._withdraw(future))
            future.release()
        return outcome

    async def _withdraw(self, future: Any) -> None:
        with contextlib.suppress(Unavailable):
            await self._ask(self._client.cancel([future], force=True))

    async def _ask(self, answer: Any) -> Any:
        """Wait for an answer of the scheduler. Raises Unavailable if it is gone."""
        from distributed.comm.core import CommClosedError

        try:
            return await answer
        except (CommClosedError, OSError, CancelledError) as error:
            raise Unavailable(
                "the scheduler of the cluster is gone", hint="run again: the run continues where it ended"
            ) from error
