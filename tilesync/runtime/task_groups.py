"""Task groups that raise one error: TaskGroup wraps errors in a group, but callers need the one that ended the run."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from tilesync.errors import RunError

T = TypeVar("T")


async def gather_or_cancel(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines concurrently and return their results in order.

    If one raises, the others are cancelled and its error is raised.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in coroutines]
    except BaseExceptionGroup as error:
        raise first_error(error) from None
    return [task.result() for task in tasks]


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first RunError of an exception group, or its first error if there is none."""
    leaves = _flatten_group(group)
    return next((error for error in leaves if isinstance(error, RunError)), leaves[0])


def _flatten_group(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    return [
        leaf
        for error in group.exceptions
        for leaf in (_flatten_group(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]
