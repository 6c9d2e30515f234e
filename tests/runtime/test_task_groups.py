"""Task groups and the one error that they raise."""

from __future__ import annotations

import asyncio

import pytest

from tilesync.errors import BlobMissing, DiskFull, Unavailable
from tilesync.runtime.task_groups import first_error, gather_or_cancel

RUN, BLOB, BUG = Unavailable("run"), BlobMissing("blob"), ValueError("bug")


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([RUN], RUN),
        ([BUG, RUN, DiskFull("later")], RUN),
        ([BUG, BLOB], BUG),
        ([BLOB, ExceptionGroup("inner", [BUG, ExceptionGroup("innermost", [RUN])])], RUN),
        ([ExceptionGroup("inner", [BLOB]), BUG], BLOB),
    ],
)
def test_the_first_run_error_is_chosen(errors: list[Exception], expected: Exception) -> None:
    """The first RunError of a group is chosen, however deeply nested; else the first error."""
    assert first_error(ExceptionGroup("", errors)) is expected


def test_a_base_exception_is_chosen() -> None:
    """A group may hold a KeyboardInterrupt, which is no Exception."""
    stop = KeyboardInterrupt()
    assert first_error(BaseExceptionGroup("", [stop, BUG])) is stop


def test_results_come_in_order() -> None:
    """Results are in the order of their work, whichever ends first; no work has no results."""

    async def after(waits: int) -> int:
        for _ in range(waits):
            await asyncio.sleep(0)
        return waits

    assert asyncio.run(gather_or_cancel(after(n) for n in (5, 0, 3))) == [5, 0, 3]
    assert asyncio.run(gather_or_cancel(after(0) for _ in ())) == []


def test_one_error_cancels_the_others() -> None:
    """When one raises, exactly that error is raised, not wrapped, and the others are cancelled and finished."""
    finished: list[str] = []

    async def wait(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            finished.append(name)

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
    assert sorted(finished) == ["a", "b"]


def test_cancellation_cancels_the_group() -> None:
    """Cancellation from outside cancels all work of the group."""
    finished: list[bool] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            finished.append(True)

    async def main() -> None:
        task = asyncio.create_task(gather_or_cancel([wait(), wait()]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert finished == [True, True]
