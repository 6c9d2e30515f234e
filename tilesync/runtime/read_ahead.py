"""Read ahead: compute results in threads before they are needed, in order, and within a bound of memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


def map_ahead(
    work: Callable[[U], T],
    items: Iterable[U],
    *,
    threads: int,
    weigh: Callable[[U], int],
    max_weight: int,
) -> Generator[tuple[U, T]]:
    """Yield each item with the result of `work`, in order, while up to `threads` threads compute the next ones.

    With one thread, the thread of the caller does the work: handing a small file over takes longer than reading it.
    The items under way, those with a result that was not taken included, weigh `max_weight` at most together, or are
    one. Raises the error of an item in its turn. Closing the iterator waits for what runs.
    """
    if threads == 1:
        yield from ((item, work(item)) for item in items)
        return
    under_way = deque[tuple[U, int, Future[T]]]()
    weight, max_items = 0, 2 * threads
    source = iter(items)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ahead")
    try:
        for item in source:
            item_weight = weigh(item)
            while under_way and (weight + item_weight > max_weight or len(under_way) >= max_items):
                first, first_weight, running = under_way.popleft()
                result = running.result()
                yield first, result
                del result
                weight -= first_weight
            under_way.append((item, item_weight, pool.submit(copy_context().run, work, item)))
            weight += item_weight
        while under_way:
            first, _, running = under_way.popleft()
            yield first, running.result()
    finally:
        pool.shutdown(cancel_futures=True)
