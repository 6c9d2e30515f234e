"""Read an object, and resume where the body breaks off."""

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


def chunks_between(start: int, end: int, *, fails: bool = False) -> Iterator[bytes]:
    """Yield a range of the body in pieces; then end, or fail."""
    for at in range(start, end, 7):
        yield DATA[at : min(at + 7, end)]
    if fails:
        raise Transient("cut")


def read_all(first: Iterator[bytes], reopen: Callable[[int], Iterator[bytes] | None], at: int = 0) -> bytes:
    return b"".join(read_resuming(FOUND, at, first, reopen, "az://a/b/"))


@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize("start", [0, 30])
def test_it_resumes_at_the_byte_where_the_body_broke(start: int, *, fails: bool) -> None:
    """Each request starts at the byte reached so far, also after a body that ends early without an error."""
    offsets: list[int] = []

    def reopen(at: int) -> Iterator[bytes]:
        offsets.append(at)
        return chunks_between(at, min(at + 20, len(DATA)), fails=fails)

    assert read_all(chunks_between(start, 40, fails=fails), reopen, start) == DATA[start:]
    assert offsets[:3] == [40, 60, 80]


def test_a_replaced_object_is_not_mixed() -> None:
    """An object that was replaced or deleted while it is read is an error."""

    def replaced(at: int) -> Iterator[bytes]:
        raise ConditionFailed("another")

    for reopen in (replaced, lambda at: None):
        with pytest.raises(DestinationError, match="replaced or deleted meanwhile"):
            read_all(chunks_between(0, 40, fails=True), reopen)


def test_repeated_breaks_at_one_offset_are_given_up() -> None:
    """A body that breaks off at the same byte is given up; progress resets the count."""
    offsets: list[int] = []

    def reopen(at: int) -> Iterator[bytes]:
        offsets.append(at)
        return chunks_between(at, 50, fails=True)

    with pytest.raises(Unavailable, match="byte 50 again and again: cut"):
        read_all(chunks_between(0, 40, fails=True), reopen)
    assert offsets == [40, *[50] * (MAX_FRUITLESS_BREAKS + 1)]


def test_a_trickle_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes after a long wait do not count as progress."""
    clock, offsets = count(step=60), list[int]()
    monkeypatch.setattr(resumable_read, "monotonic", lambda: next(clock))

    def reopen(at: int) -> Iterator[bytes]:
        offsets.append(at)
        return chunks_between(at, at + 2, fails=True)

    with pytest.raises(Unavailable, match="again and again: cut"):
        read_all(chunks_between(0, 2, fails=True), reopen)
    assert len(offsets) == MAX_FRUITLESS_BREAKS


def test_without_a_size_only_a_clean_end_is_whole() -> None:
    """A body of unknown size that breaks off is resumed, and not taken for a whole one."""
    unknown = FOUND._replace(size=0)
    pieces = read_resuming(
        unknown, 0, chunks_between(0, 40, fails=True), lambda at: chunks_between(at, len(DATA)), "az://a/b/"
    )
    assert b"".join(pieces) == DATA
