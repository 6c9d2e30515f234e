"""Task pool: the tasks that run in other processes, what they keep there, and the pools that run them.

A task is a value that can be pickled and called. It keeps long-lived resources, such as HTTP clients with their
connections, in the context of its process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)


class WorkerLost(Exception):
    """A worker process ended before its task, fell silent, or could not be started."""


class WorkerContext:
    """Resources shared by the tasks of one worker process."""

    def __init__(self, exit_stack: AsyncExitStack) -> None:
        self._exit_stack = exit_stack
        self._lock = asyncio.Lock()
        self._resources: dict[Callable[[], AbstractAsyncContextManager[Any]], Any] = {}

    async def get_or_create(self, make: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        """Return the resource of `make`; the first caller creates and enters it, all others share it."""
        async with self._lock:
            if make not in self._resources:
                self._resources[make] = await self._exit_stack.enter_async_context(make())
            resource: T = self._resources[make]
            return resource


class WorkerTask(Protocol[R_co]):
    """Picklable piece of work with a picklable result."""

    async def __call__(self, context: WorkerContext, /) -> R_co:
        """Run the task in a worker process."""


class TaskPool(Protocol):
    """Pool that runs tasks in other processes: those of this machine, or those of a cluster."""

    @property
    def size(self) -> int:
        """Number of processes; that of a cluster changes."""

    @property
    def start_requested(self) -> bool:
        """True if the processes are running or starting."""

    def request_start(self, task: WorkerTask[object]) -> None:
        """Start every process with `task` as its first task, without waiting. Later calls do nothing."""

    async def start(self, task: WorkerTask[object]) -> None:
        """Start every process and wait until each has done `task` or failed."""

    async def run(self, task: WorkerTask[T], *, payload_bytes: int = 0) -> T:
        """Run a task in a process that has time, and return its result. Raises WorkerLost.

        `payload_bytes`: bytes that the task handles; they extend its time limit.
        """
