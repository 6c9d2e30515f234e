"""The bytes of one object as they come, asked for again from where they break off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic
from typing import Final

from tilesync.core.backoff import has_stalled
from tilesync.errors import ConditionFailed, DestinationError, Transient, Unavailable
from tilesync.model.storage import ObjectInfo
from tilesync.runtime.threads import STOP_EVENT

MAX_FRUITLESS_BREAKS: Final = 5
"""Times in a row that a body may break off where the one before did, or hardly behind it."""


def read_resuming(
    info: ObjectInfo, offset: int, chunks: Iterator[bytes], reopen: Callable[[int], Iterator[bytes] | None], shown: str
) -> Iterator[bytes]:
    """The bytes of the object that was found, from `at` on, of which `chunks` are the first.

    `again` asks for that very object from a place on: it gives None, or raises ConditionFailed, where it is no more.
    Raises DestinationError then, Unavailable where the body breaks off in one place again and again, or is wanted no
    more.
    """
    in_vain, stop = 0, STOP_EVENT.get()
    while True:
        began, since, broke = offset, monotonic(), ""
        try:
            for chunk in chunks:
                offset += len(chunk)
                yield chunk
                if stop is not None and stop.is_set():
                    raise Unavailable(f"{info.name} is wanted no more")
        except Transient as error:
            broke = str(error)
        if offset >= info.size and (
            info.size or not broke
        ):  # where no size is told, only its end tells that it is whole
            return
        in_vain = in_vain + 1 if offset == began or has_stalled(offset - began, monotonic() - since) else 0
        if in_vain > MAX_FRUITLESS_BREAKS:
            raise Unavailable(f"{info.name} breaks off at byte {offset} again and again: {broke or 'it ends'}")
        chunks = _reopen(info, offset, reopen, shown)


def _reopen(
    info: ObjectInfo, offset: int, reopen: Callable[[int], Iterator[bytes] | None], shown: str
) -> Iterator[bytes]:
    try:
        chunks = reopen(offset)
    except ConditionFailed:
        chunks = None
    if chunks is None:
        raise DestinationError(f"{info.name} in {shown} is another one by now, or gone")
    return chunks
