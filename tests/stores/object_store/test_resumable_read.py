"""A body that breaks off goes on where it did, and never as another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import pytest

from tilesync.errors import ConditionFailed, DestinationError, Transient, Unavailable
from tilesync.model.storage import ObjectInfo
from tilesync.stores.object_store import resumable_read
from tilesync.stores.object_store.resumable_read import MAX_FRUITLESS_BREAKS, read_resuming

DATA = bytes(range(100))
FOUND = ObjectInfo("a.glb", len(DATA), "1")


def chunks_between(start: int, end: int, *, breaks: bool = False) -> Iterator[bytes]:
    """A stretch of the body, in pieces; then it ends, or breaks off."""
    for at in range(start, end, 7):
        yield DATA[at : min(at + 7, end)]
    if breaks:
        raise Transient("cut")


def read_all(first: Iterator[bytes], again: Callable[[int], Iterator[bytes] | None], at: int = 0) -> bytes:
    return b"".join(read_resuming(FOUND, at, first, again, "az://a/b/"))


@pytest.mark.parametrize("breaks", [True, False])
@pytest.mark.parametrize("start", [0, 30])
def test_it_goes_on_where_it_broke_off(start: int, *, breaks: bool) -> None:
    """Each time from the byte that it came to, also where it ends early without a word."""
    asked: list[int] = []

    def again(at: int) -> Iterator[bytes]:
        asked.append(at)
        return chunks_between(at, min(at + 20, len(DATA)), breaks=breaks)

    assert read_all(chunks_between(start, 40, breaks=breaks), again, start) == DATA[start:]
    assert asked[:3] == [40, 60, 80]


def test_another_one_is_not_read_on() -> None:
    """Replaced or gone meanwhile: what came is no object."""

    def replaced(at: int) -> Iterator[bytes]:
        raise ConditionFailed("another")

    for again in (replaced, lambda at: None):
        with pytest.raises(DestinationError, match="replaced or deleted meanwhile"):
            read_all(chunks_between(0, 40, breaks=True), again)


def test_it_is_not_asked_for_for_ever() -> None:
    """One that breaks off in the same place is given up; progress begins the count anew."""
    asked: list[int] = []

    def again(at: int) -> Iterator[bytes]:
        asked.append(at)
        return chunks_between(at, 50, breaks=True)

    with pytest.raises(Unavailable, match="byte 50 again and again: cut"):
        read_all(chunks_between(0, 40, breaks=True), again)
    assert asked == [40, *[50] * (MAX_FRUITLESS_BREAKS + 1)]


def test_a_trickle_is_not_asked_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes each time, after a long wait for each, are no progress that begins the count anew."""
    clock, asked = count(step=60), list[int]()
    monkeypatch.setattr(resumable_read, "monotonic", lambda: next(clock))

    def again(at: int) -> Iterator[bytes]:
        asked.append(at)
        return chunks_between(at, at + 2, breaks=True)

    with pytest.raises(Unavailable, match="again and again: cut"):
        read_all(chunks_between(0, 2, breaks=True), again)
    assert len(asked) == MAX_FRUITLESS_BREAKS


def test_without_a_size_only_its_end_tells_that_it_is_whole() -> None:
    """A body of which nobody said how long it is goes on where it broke off, and is not taken for a whole one."""
    unknown = FOUND._replace(size=0)
    pieces = read_resuming(
        unknown, 0, chunks_between(0, 40, breaks=True), lambda at: chunks_between(at, len(DATA)), "az://a/b/"
    )
    assert b"".join(pieces) == DATA
