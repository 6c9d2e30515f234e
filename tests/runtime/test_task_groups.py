"""Groups of tasks, and the one error that each is about."""

from __future__ import annotations

import asyncio

import pytest

from tilesync.errors import BlobMissing, DiskFull, Unavailable
from tilesync.runtime.task_groups import first_error, gather_or_cancel

RUN, BLOB, BUG = Unavailable("run"), BlobMissing("blob"), ValueError("bug")


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ([RUN], RUN),
        ([BUG, RUN, DiskFull("later")], RUN),
        ([BUG, BLOB], BUG),
        ([BLOB, ExceptionGroup("inner", [BUG, ExceptionGroup("innermost", [RUN])])], RUN),
        ([ExceptionGroup("inner", [BLOB]), BUG], BLOB),
    ],
)
def test_the_run_error_is_told(errors: list[Exception], told: Exception) -> None:
    """However deep it lies, the first RunError of a group is the one; else the first error of all."""
    assert first_error(ExceptionGroup("", errors)) is told


def test_even_what_is_no_exception_is_told() -> None:
    """A group may hold what only ends a process."""
    stop = KeyboardInterrupt()
    assert first_error(BaseExceptionGroup("", [stop, BUG])) is stop


def test_results_come_in_order() -> None:
    """Whoever ends first, results stand where their work stood; of nothing there are none."""

    async def after(waits: int) -> int:
        for _ in range(waits):
            await asyncio.sleep(0)
        return waits

    assert asyncio.run(gather_or_cancel(after(n) for n in (5, 0, 3))) == [5, 0, 3]
    assert asyncio.run(gather_or_cancel(after(0) for _ in ())) == []


def test_one_error_ends_them_all() -> None:
    """When one raises, that very error comes out, bare, and the others are cancelled and over."""
    over: list[str] = []

    async def wait(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            over.append(name)

    async def fail() -> None:
        await asyncio.sleep(0)
        raise RUN

    async def fail_while_cancelled() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise BUG

    with pytest.raises(Unavailable) as error:
        asyncio.run(gather_or_cancel([fail_while_cancelled(), wait("a"), fail(), wait("b")]))
    assert error.value is RUN
    assert sorted(over) == ["a", "b"]


def test_who_is_cancelled_cancels_the_group() -> None:
    """Cancelled from outside, it is cancelled, and so is all its work."""
    over: list[bool] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            over.append(True)

    async def main() -> None:
        task = asyncio.create_task(gather_or_cancel([wait(), wait()]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert over == [True, True]
