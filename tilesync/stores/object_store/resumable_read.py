"""The bytes of one object as they come, asked for again from where they break off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic
from typing import Final

from tilesync.core.backoff import trickled
from tilesync.errors import ConditionFailed, DestinationError, Transient, Unavailable
from tilesync.model.storage import Found
from tilesync.runtime.threads import STOP

BREAKS: Final = 5
"""Times in a row that a body may break off where the one before did, or hardly behind it."""


def unbroken(
    found: Found, at: int, chunks: Iterator[bytes], again: Callable[[int], Iterator[bytes] | None], shown: str
) -> Iterator[bytes]:
    """The bytes of the object that was found, from `at` on, of which `chunks` are the first.

    `again` asks for that very object from a place on: it gives None, or raises ConditionFailed, where it is no more.
    Raises DestinationError then, Unavailable where the body breaks off in one place again and again, or is wanted no
    more.
    """
    in_vain, stop = 0, STOP.get()
    while True:
        began, since, broke = at, monotonic(), ""
        try:
            for chunk in chunks:
                at += len(chunk)
                yield chunk
                if stop is not None and stop.is_set():
                    raise Unavailable(f"{found.name} is wanted no more")
        except Transient as error:
            broke = str(error)
        if at >= found.size and (found.size or not broke):  # where no size is told, only its end tells that it is whole
            return
        in_vain = in_vain + 1 if at == began or trickled(at - began, monotonic() - since) else 0
        if in_vain > BREAKS:
            raise Unavailable(f"{found.name} breaks off at byte {at} again and again: {broke or 'it ends'}")
        chunks = _again(found, at, again, shown)


def _again(found: Found, at: int, again: Callable[[int], Iterator[bytes] | None], shown: str) -> Iterator[bytes]:
    try:
        chunks = again(at)
    except ConditionFailed:
        chunks = None
    if chunks is None:
        raise DestinationError(f"{found.name} in {shown} is another one by now, or gone")
    return chunks
