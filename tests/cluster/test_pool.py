"""Cluster pool: which workers take part, where tasks go, and what becomes of those of lost workers.

The cluster here is a fake whose workers can fail on purpose; tests/e2e/test_cluster.py runs real ones.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from tilesync.cluster import pool as pool_module
from tilesync.cluster.pool import ClusterPool, WorkerState
from tilesync.cluster.worker_side import TaskOutcome, TaskPayload, WorkerFacts
from tilesync.errors import Unavailable, UsageError
from tilesync.events import Event, Warned
from tilesync.runtime.task_pool import WorkerContext, WorkerLost

FACTS = WorkerFacts("1.0", "3.11", "token")


@dataclass(frozen=True)
class Echo:
    """Task that returns its value; as `fails`, an error; as `nothing`, a result that counts as a failure."""

    value: int = 0

    async def __call__(self, context: WorkerContext) -> int:
        return self.value


@dataclass
class FakeCluster:
    """Cluster of workers, by address: each has its facts, threads, and how it treats a task."""

    facts: dict[str, WorkerFacts | None]
    threads: int = 1
    failing: set[str] = field(default_factory=set)
    useless: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    stuck: set[str] = field(default_factory=set)
    gone: bool = False
    tasks: dict[str, str] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    most_at_once: int = 0

    async def list_workers(self) -> Mapping[str, WorkerState]:
        if self.gone:
            raise Unavailable("the scheduler is gone")
        return {each: WorkerState(each.upper(), self.threads, 99 if each in self.silent else 0) for each in self.facts}

    async def describe_workers(self, addresses: Collection[str]) -> Mapping[str, WorkerFacts | None]:
        return {each: self.facts[each] for each in addresses}

    async def list_tasks(self, addresses: Collection[str]) -> Collection[str]:
        return [key for key, worker in self.tasks.items() if worker in addresses]

    async def submit(self, key: str, payload: TaskPayload, addresses: Collection[str]) -> TaskOutcome:
        busy = list(self.tasks.values())
        worker = min(addresses, key=lambda each: (busy.count(each), self.done.count(each)))
        self.tasks[key] = worker
        self.most_at_once = max(self.most_at_once, len(self.tasks))
        try:
            await asyncio.sleep(60 if worker in self.stuck else 0)
        finally:
            del self.tasks[key]
        self.done.append(worker)
        if worker in self.failing:
            return TaskOutcome(worker, b"", "OSError")
        task = pickle.loads(payload.data)
        return TaskOutcome(worker, pickle.dumps(None if worker in self.useless else task.value))


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "WATCH_INTERVAL_S", 0.01)


def make_pool(cluster: FakeCluster, events: list[Event]) -> ClusterPool:
    @asynccontextmanager
    async def connect() -> AsyncIterator[tuple[FakeCluster, WorkerFacts]]:
        yield cluster, FACTS

    return ClusterPool(
        connect, events.append, has_failed=lambda result: result is None, start_timeout=timedelta(seconds=0.1)
    )


def run_tasks(cluster: FakeCluster, count: int, events: list[Event] | None = None) -> list[Any]:
    """Run tasks on a fake cluster; return their results, or the classes of their errors."""

    async def work() -> list[Any]:
        pool = make_pool(cluster, [] if events is None else events)
        try:
            await pool.start(Echo())
            done = await asyncio.gather(*(pool.run(Echo(n)) for n in range(count)), return_exceptions=True)
            return [type(each) if isinstance(each, BaseException) else each for each in done]
        finally:
            await pool.aclose()

    return asyncio.run(work())


def test_tasks_go_to_free_threads_only() -> None:
    """As many tasks run as there are threads, and every result comes back in its place."""
    cluster = FakeCluster({"a": FACTS, "b": FACTS}, threads=2)
    assert run_tasks(cluster, 40) == list(range(40))
    assert cluster.most_at_once == 4
    assert cluster.done.count("a") == cluster.done.count("b") == 20


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (None, "has no tilesync"),
        (WorkerFacts("0.9", "3.11", "token"), r"has tilesync 0\.9, and this is 1\.0"),
        (WorkerFacts("1.0", "3.12", "token"), r"has Python 3\.12, and this is 3\.11"),
        (WorkerFacts("1.0", "3.11", None), "does not see the folder"),
        (WorkerFacts("1.0", "3.11", "other"), "does not see the folder"),
    ],
)
def test_other_workers_are_refused_by_name(facts: WorkerFacts | None, reason: str) -> None:
    """A worker that is not as this process gets no work, and a warning names it; without others it is an error."""
    events = list[Event]()
    cluster = FakeCluster({"a": FACTS, "b": facts})
    assert run_tasks(cluster, 10, events) == list(range(10))
    assert set(cluster.done) == {"a"}
    (warning,) = (each.message for each in events if isinstance(each, Warned))
    assert warning.startswith("these workers cannot take part: B ")
    with pytest.raises(UsageError, match=f"B {reason}"):
        run_tasks(FakeCluster({"b": facts}), 1)


def test_a_cluster_without_workers_is_an_error() -> None:
    """The error says what to start."""
    with pytest.raises(Unavailable, match="no worker") as refused:
        run_tasks(FakeCluster({}), 1)
    assert "dask worker" in refused.value.hint


def test_workers_that_come_later_get_work() -> None:
    """An adaptive cluster grows while tasks wait."""
    cluster = FakeCluster({"a": FACTS}, stuck={"a"})

    async def work() -> list[int]:
        pool = make_pool(cluster, [])
        await pool.start(Echo())
        running = [asyncio.create_task(pool.run(Echo(number))) for number in range(3)]
        await asyncio.sleep(0.03)
        cluster.facts["b"] = FACTS
        try:
            return list(await asyncio.gather(*running[1:]))
        finally:
            running[0].cancel()
            await pool.aclose()

    assert asyncio.run(work()) == [1, 2]
    assert set(cluster.done) == {"b"}


def test_the_tasks_of_a_silent_worker_are_sent_to_others() -> None:
    """A worker without a heartbeat keeps nothing: its task runs elsewhere, and a warning names it."""
    events, cluster = list[Event](), FakeCluster({"a": FACTS, "b": FACTS}, stuck={"a"})

    async def work() -> list[int]:
        pool = make_pool(cluster, events)
        await pool.start(Echo())
        running = [asyncio.create_task(pool.run(Echo(number))) for number in range(6)]
        await asyncio.sleep(0.03)
        cluster.silent.add("a")
        try:
            return list(await asyncio.gather(*running))
        finally:
            await pool.aclose()

    assert asyncio.run(work()) == list(range(6))
    assert set(cluster.done) == {"b"}
    assert any("no sign of life" in each.message and "A" in each.message for each in events if isinstance(each, Warned))


@pytest.mark.parametrize("how", ["failing", "useless"])
def test_a_worker_that_only_fails_is_left_out(how: str) -> None:
    """A worker that fails at everything, while another succeeds, gets no more work after a few tasks."""
    events = list[Event]()
    cluster = FakeCluster({"a": FACTS, "b": FACTS})
    getattr(cluster, how).add("a")
    results = run_tasks(cluster, 60, events)
    assert cluster.done.count("a") < 10
    assert sum(isinstance(each, int) for each in results) == cluster.done.count("b")
    assert [each.message for each in events if isinstance(each, Warned)] == [
        "the worker A fails at everything: it gets no more work"
    ]


def test_a_service_that_fails_leaves_no_worker_out() -> None:
    """Where every worker fails, the service is the reason: all go on."""
    events, cluster = list[Event](), FakeCluster({"a": FACTS, "b": FACTS}, failing={"a", "b"})
    assert run_tasks(cluster, 30, events) == [WorkerLost] * 30
    assert events == []


def test_a_lost_scheduler_ends_all_tasks() -> None:
    """Tasks that wait for a thread end with the error of the scheduler."""
    cluster = FakeCluster({"a": FACTS}, stuck={"a"})

    async def work() -> list[object]:
        pool = make_pool(cluster, [])
        await pool.start(Echo())
        running = [asyncio.create_task(pool.run(Echo(number))) for number in range(3)]
        await asyncio.sleep(0.03)
        cluster.gone = True
        done, _ = await asyncio.wait(running[1:], timeout=10)
        await pool.aclose()
        return [type(each.exception()) for each in done]

    assert asyncio.run(work()) == [Unavailable, Unavailable]


def test_a_cluster_whose_workers_all_leave_ends_the_run() -> None:
    """Tasks wait for new workers for a while, not forever."""
    cluster = FakeCluster({"a": FACTS}, stuck={"a"})

    async def work() -> object:
        pool = make_pool(cluster, [])
        await pool.start(Echo())
        running = [asyncio.create_task(pool.run(Echo(number))) for number in range(2)]
        await asyncio.sleep(0.03)
        cluster.facts.clear()
        done, _ = await asyncio.wait(running[1:], timeout=10)
        await pool.aclose()
        (error,) = (each.exception() for each in done)
        return type(error)

    assert asyncio.run(work()) is Unavailable


def test_payload_and_outcome_show_nothing() -> None:
    """What Dask may write to a log shows no content, also after it was sent."""
    payload, outcome = TaskPayload(b"sig=secret", 5.0), TaskOutcome("tcp://a", b"sig=secret")
    for each in (payload, outcome, pickle.loads(pickle.dumps(payload)), pickle.loads(pickle.dumps(outcome))):
        assert "sig" not in repr(each)
