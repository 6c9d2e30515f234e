"""Cluster pool: run tasks on the workers of a Dask cluster.

Dask assigns each task to a worker that has time, and repeats the tasks of a worker that ends. A task is sent only when
a thread of some worker is free, so a slow worker gets as much as it can do. What Dask would see after minutes, a worker
that was stopped or cut off, is seen here by the age of its last heartbeat: its tasks are sent again to others.
"""

from __future__ import annotations

import asyncio
import itertools
import pickle
import secrets
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import timedelta
from typing import Final, Protocol, TypeVar

from tilesync.cluster.worker_side import TaskOutcome, TaskPayload, WorkerFacts
from tilesync.errors import TilesyncError, Unavailable, UsageError
from tilesync.events import Warned
from tilesync.protocols import Observer
from tilesync.runtime.task_pool import WorkerLost, WorkerTask
from tilesync.values import dataclass

T = TypeVar("T")

WATCH_INTERVAL_S: Final = 1.0
"""Seconds between two looks at the workers of the cluster."""

MAX_HEARTBEAT_AGE_S: Final = 15.0
"""Seconds without a heartbeat after which a worker counts as lost. Dask workers send one each second or so."""

MAX_TASK_S: Final = 30.0
"""Seconds that a task may take; the time for its bytes is added (`MIN_BYTES_PER_S`)."""

MIN_BYTES_PER_S: Final = 1 << 20
"""Minimum bytes per second that a worker handles."""

MAX_FAILURES: Final = 3
"""Tasks that fail on one worker in a row, while others succeed, after which it gets no more."""

MAX_SENDS: Final = 4
"""Times that a task is sent, each time after it was lost with its worker."""


@dataclass(frozen=True, slots=True)
class WorkerState:
    """State of a worker: its name, its threads, and the seconds since its last heartbeat."""

    name: str
    threads: int
    heartbeat_age_s: float


class ClusterClient(Protocol):
    """Connection to a cluster, as the pool needs it. Each method raises Unavailable if the scheduler is gone."""

    async def list_workers(self) -> Mapping[str, WorkerState]:
        """Return the state of each worker, by address."""

    async def describe_workers(self, addresses: Collection[str]) -> Mapping[str, WorkerFacts | None]:
        """Return the facts of workers, by address; None for one that cannot answer."""

    async def list_tasks(self, addresses: Collection[str]) -> Collection[str]:
        """Return the keys of the tasks that these workers have now."""

    async def submit(self, key: str, payload: TaskPayload, addresses: Collection[str]) -> TaskOutcome:
        """Run a task on one of these workers. Raises WorkerLost. A cancelled call withdraws the task."""


Connect = Callable[[], AbstractAsyncContextManager[tuple[ClusterClient, WorkerFacts]]]
"""Connects to a cluster; yields the client, and the facts that a worker must state to take part."""


class ClusterPool:
    """Pool of the tasks that the workers of a cluster run. It connects when it is started.

    `has_failed`: whether a result shows that the worker could do nothing. `start_timeout`: how long to wait for a
    worker, at the start and where all are gone.
    """

    def __init__(
        self,
        connect: Connect,
        observe: Observer,
        *,
        has_failed: Callable[[object], bool],
        start_timeout: timedelta,
    ) -> None:
        self._connect = connect
        self._observe = observe
        self._has_failed = has_failed
        self._start_timeout_s = start_timeout.total_seconds()
        self._exits = AsyncExitStack()
        self._starting: asyncio.Task[None] | None = None
        self._admitted: dict[str, WorkerState] = {}
        self._refused: dict[str, str] = {}
        self._accepted: set[str] = set()
        self._left_out: set[str] = set()
        self._failures: dict[str, list[int]] = {}
        self._successes = 0
        self._running: dict[str, asyncio.Task[TaskOutcome]] = {}
        self._changed = asyncio.Condition()
        self._watching: asyncio.Task[None] | None = None
        self._error: TilesyncError | None = None
        self._numbers = itertools.count()
        self._run_id = secrets.token_hex(4)

    @property
    def start_requested(self) -> bool:
        """True if the pool is connected, or connecting."""
        return self._starting is not None

    def request_start(self, task: WorkerTask[object]) -> None:
        """Connect without waiting. Later calls do nothing. `task` is not needed: the workers run."""
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())

    async def start(self, task: WorkerTask[object]) -> None:
        """Connect, and wait for a worker that can take part.

        Raises UsageError if all are refused, Unavailable if there is none, or if the scheduler does not answer.
        """
        self.request_start(task)
        assert self._starting is not None
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
        self._client, self._expected = await self._exits.enter_async_context(self._connect())
        for _ in range(max(1, round(self._start_timeout_s / WATCH_INTERVAL_S))):
            if await self._update_workers() or self._refused:
                break
            await asyncio.sleep(WATCH_INTERVAL_S)
        if not self._admitted and self._refused:
            raise UsageError(
                f"no worker of the cluster can take part: {'; '.join(self._refused.values())}",
                hint="give each worker the same tilesync[dask] and the same Python as this machine",
            )
        if not self._admitted:
            raise Unavailable(
                "the cluster has no worker", hint="start some with `dask worker`; see `dask worker --help`"
            )
        self._watching = asyncio.create_task(self._watch())

    async def aclose(self) -> None:
        """Withdraw what runs, and disconnect."""
        tasks = [each for each in (self._starting, self._watching, *self._running.values()) if each is not None]
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._exits.aclose()

    @property
    def size(self) -> int:
        """Number of workers that take part now; 1 if there is none."""
        return max(1, len(self._admitted))

    async def run(self, task: WorkerTask[T], *, payload_bytes: int = 0) -> T:
        """Run a task on a worker that has time, and return its result.

        Raises WorkerLost if it failed, or was lost each time that it was sent; Unavailable if the scheduler is gone.
        """
        payload = TaskPayload(pickle.dumps(task, pickle.HIGHEST_PROTOCOL), MAX_TASK_S + payload_bytes / MIN_BYTES_PER_S)
        for _ in range(MAX_SENDS):
            outcome = await self._send(payload)
            if outcome is not None and not outcome.error:
                result: T = pickle.loads(outcome.result)  # noqa: S301 - from a worker, which runs our code
                self._count(outcome.worker, has_failed=self._has_failed(result))
                return result
            if outcome is not None:
                self._count(outcome.worker, has_failed=True)
                raise WorkerLost(outcome.error)
        raise WorkerLost("it was lost with each worker that it was sent to")

    async def _send(self, payload: TaskPayload) -> TaskOutcome | None:
        """Send a task when a thread is free, and return its outcome; None if its worker was lost."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._error or len(self._running) < self._count_threads())
            if self._error is not None:
                raise self._error
            key = f"tilesync-{self._run_id}-{next(self._numbers)}"
            sending = asyncio.create_task(self._client.submit(key, payload, list(self._admitted)))
            self._running[key] = sending
        try:
            await asyncio.wait({sending}, timeout=2 * payload.time_limit_s)
            return None if sending.cancelled() or not sending.done() else sending.result()
        finally:
            sending.cancel()
            del self._running[key]
            await self._notify()

    def _count_threads(self) -> int:
        return sum(each.threads for each in self._admitted.values())

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    # --- the workers ---

    async def _watch(self) -> None:
        """Update the workers again and again; an error ends all tasks, and those that come."""
        without_worker_s = 0.0
        try:
            while without_worker_s < self._start_timeout_s:
                await asyncio.sleep(WATCH_INTERVAL_S)
                has_workers = await self._update_workers()
                without_worker_s = 0.0 if has_workers else without_worker_s + WATCH_INTERVAL_S
                await self._notify()
            raise Unavailable(
                "the cluster has no worker any more", hint="start some, and run again: the run continues where it ended"
            )
        except TilesyncError as error:
            self._error = error
            await self._notify()

    async def _update_workers(self) -> bool:
        """Admit workers that came, and drop those that are gone or silent; return whether there are any."""
        found = await self._client.list_workers()
        heard = {address: each for address, each in found.items() if each.heartbeat_age_s <= MAX_HEARTBEAT_AGE_S}
        await self._check_new({address: each for address, each in heard.items() if address not in self._accepted})
        before = self._admitted
        self._admitted = {
            address: each for address, each in heard.items() if address in self._accepted - self._left_out
        }
        if silent := [address for address in before if address in found and address not in heard]:
            names = ", ".join(sorted(before[address].name for address in silent))
            self._observe(Warned(f"no sign of life from these workers: {names}; others repeat their work"))
            for key in await self._client.list_tasks(silent):
                if key in self._running:
                    self._running[key].cancel()
        return bool(self._admitted)

    async def _check_new(self, new: Mapping[str, WorkerState]) -> None:
        """Accept or refuse workers that were not there before, with a warning that lists the refused ones."""
        unknown = [address for address in new if address not in self._refused]
        if not unknown:
            return
        facts = await self._client.describe_workers(unknown)
        refused = dict[str, str]()
        for address in unknown:
            if problem := self._find_problem(facts.get(address)):
                refused[address] = f"{new[address].name} {problem}"
            else:
                self._accepted.add(address)
        self._refused.update(refused)
        if refused and self._accepted:
            self._observe(Warned(f"these workers cannot take part: {'; '.join(refused.values())}"))

    def _find_problem(self, facts: WorkerFacts | None) -> str | None:
        """Return why a worker cannot take part, after its name; None if it can."""
        ours = self._expected
        if facts is None:
            return "has no tilesync, or does not answer"
        if facts.tilesync != ours.tilesync:
            return f"has tilesync {facts.tilesync}, and this is {ours.tilesync}"
        if facts.python != ours.python:
            return f"has Python {facts.python}, and this is {ours.python}"
        return None if facts.token == ours.token else "does not see the folder of the destination"

    def _count(self, address: str, *, has_failed: bool) -> None:
        """Count a failure or success of a worker. One that only fails, while others succeed, is left out."""
        if not has_failed:
            self._successes += 1
            self._failures.pop(address, None)
            return
        first_seen = self._failures.setdefault(address, [])
        first_seen.append(self._successes)
        has_others = any(other != address for other in self._admitted)
        if (
            len(first_seen) >= MAX_FAILURES
            and self._successes - first_seen[0] >= MAX_FAILURES
            and has_others
            and (state := self._admitted.pop(address, None)) is not None
        ):
            self._left_out.add(address)
            self._observe(Warned(f"the worker {state.name} fails at everything: it gets no more work"))
