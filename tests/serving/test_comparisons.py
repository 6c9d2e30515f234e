"""Test that comparisons are shared, and that none goes on that nobody wants."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest

from tilesync.errors import DestinationError, Unavailable
from tilesync.runtime.threads import raise_if_stopped
from tilesync.serving.comparisons import MAX_COMPARISONS, ComparedVersions, DiffLines, SharedComparisons


class Comparer:
    """Makes comparisons when the test says so, and counts those that run and those that are open."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.keys: list[str] = []
        self.open = set[str]()
        self.running = self.most_running = 0

    def compare(self, key: str) -> ComparedVersions:
        self.keys.append(key)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            while not self.may_end.wait(0.001):
                raise_if_stopped("the comparison")
        finally:
            self.running -= 1
        self.open.add(key)
        return ComparedVersions(lambda: iter([key.encode(), b"end"]), lambda: self.open.discard(key))


def run(work: Callable[[SharedComparisons, Comparer], Awaitable[None]]) -> Comparer:
    """Run a test; in the end nothing may be open or run."""
    comparer = Comparer()

    async def main() -> None:
        comparisons = SharedComparisons()
        try:
            await work(comparisons, comparer)
        finally:
            await comparisons.aclose()

    asyncio.run(asyncio.wait_for(main(), 30))
    assert (comparer.open, comparer.running) == (set(), 0)
    return comparer


async def read_all(lines: DiffLines) -> bytes:
    found = b""
    while piece := await lines.read():
        found += piece
    lines.close()
    lines.close()
    return found


def opening(comparisons: SharedComparisons, comparer: Comparer, key: str) -> asyncio.Task[DiffLines]:
    return asyncio.ensure_future(comparisons.open(key, lambda: comparer.compare(key)))


async def wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_clients_share_a_comparison() -> None:
    """Clients that want the same one get the same lines from one comparison, also a client that comes later."""

    async def work(comparisons: SharedComparisons, comparer: Comparer) -> None:
        waiting = [opening(comparisons, comparer, "a") for _ in range(3)]
        comparer.may_end.set()
        assert [await read_all(await each) for each in waiting] == [b"aend"] * 3
        assert await read_all(await opening(comparisons, comparer, "a")) == b"aend"
        assert comparer.open == {"a"}

    assert run(work).keys == ["a"]


def test_one_comparison_at_a_time() -> None:
    """Others wait for their turn. The last complete one stays open, those before it are closed when they were read."""

    async def work(comparisons: SharedComparisons, comparer: Comparer) -> None:
        waiting = [opening(comparisons, comparer, key) for key in "abc"]
        comparer.may_end.set()
        lines = [await each for each in waiting]
        assert comparer.open == {"a", "b", "c"}
        assert [await read_all(each) for each in lines] == [b"aend", b"bend", b"cend"]
        assert comparer.open == {"c"}

    assert run(work).most_running == 1


def test_a_client_that_leaves_ends_nothing_for_the_others() -> None:
    """A comparison goes on while one client wants it, and stops when the last one leaves."""

    async def work(comparisons: SharedComparisons, comparer: Comparer) -> None:
        first, second, other = (opening(comparisons, comparer, key) for key in "aab")
        await wait_for(lambda: comparer.running == 1)
        first.cancel()
        await asyncio.wait({first})
        assert comparer.running == 1
        second.cancel()
        await asyncio.wait({second})
        await wait_for(lambda: comparer.keys == ["a", "b"])
        assert comparer.running == 1
        comparer.may_end.set()
        assert await read_all(await other) == b"bend"

    run(work)


def test_an_error_is_not_kept() -> None:
    """All clients that wait get the error, and the next one causes another comparison."""

    async def work(comparisons: SharedComparisons, comparer: Comparer) -> None:
        def fail() -> ComparedVersions:
            raise DestinationError("damaged")

        waiting = [asyncio.ensure_future(comparisons.open("a", fail)) for _ in range(2)]
        for each in waiting:
            with pytest.raises(DestinationError):
                await each
        comparer.may_end.set()
        assert await read_all(await opening(comparisons, comparer, "a")) == b"aend"

    run(work)


def test_the_number_of_comparisons_is_bounded() -> None:
    """Clients that do not read hold a few comparisons open; more are refused until one is closed."""

    async def work(comparisons: SharedComparisons, comparer: Comparer) -> None:
        comparer.may_end.set()
        lines = [await opening(comparisons, comparer, str(number)) for number in range(MAX_COMPARISONS)]
        with pytest.raises(Unavailable):
            await opening(comparisons, comparer, "more")
        lines[-1].close()
        assert await read_all(await opening(comparisons, comparer, "more")) == b"moreend"
        for each in lines:
            each.close()

    run(work)


def test_the_end_of_the_server_stops_comparisons() -> None:
    """What runs is stopped, and its clients are cancelled."""

    async def work(comparisons: SharedComparisons, comparer: Comparer) -> None:
        waiting = opening(comparisons, comparer, "a")
        await wait_for(lambda: comparer.running == 1)
        await comparisons.aclose()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(work)


def test_lines_that_cannot_be_read() -> None:
    """An error of the temporary file reaches the reader."""

    def pieces() -> Iterator[bytes]:
        yield b"a"
        raise DestinationError("disk")

    async def work() -> None:
        lines = DiffLines(pieces(), lambda: None)
        assert await lines.read() == b"a"
        with pytest.raises(DestinationError):
            await lines.read()

    asyncio.run(work())
