"""Groups of tasks, and the one error that each is about: TaskGroup wraps, callers want the one that ended the run."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from tilesync.errors import RunError

T = TypeVar("T")


async def gather_or_cancel(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of everything, in order; when one raises, the others are cancelled and that error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in coroutines]
    except BaseExceptionGroup as error:
        raise first_error(error) from None
    return [task.result() for task in tasks]


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """A RunError, where there is one among the errors of a group; else the first."""
    leaves = _flatten_group(group)
    return next((error for error in leaves if isinstance(error, RunError)), leaves[0])


def _flatten_group(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    return [
        leaf
        for error in group.exceptions
        for leaf in (_flatten_group(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]
