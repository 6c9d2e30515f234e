"""Read one object; if the body breaks off, request the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic
from typing import Final

from tilesync.core.backoff import has_stalled
from tilesync.errors import ConditionFailed, DestinationError, Transient, Unavailable
from tilesync.model.storage import ObjectInfo
from tilesync.runtime.threads import STOP_EVENT

MAX_FRUITLESS_BREAKS: Final = 5
"""Maximum consecutive times that a body may break off without real progress."""


def read_resuming(
    info: ObjectInfo,
    offset: int,
    chunks: Iterator[bytes],
    reopen: Callable[[int], Iterator[bytes] | None],
    display_name: str,
) -> Iterator[bytes]:
    """Yield the bytes of an object from `offset` on; `chunks` is the first response body.

    `reopen` requests the same object from an offset on. It returns None or raises ConditionFailed if the object was
    deleted or replaced.

    Raises DestinationError if the object was deleted or replaced; Unavailable if the body breaks off at the same offset
    too often, or if the run is stopped.
    """
    fruitless, stop = 0, STOP_EVENT.get()
    while True:
        start, started_at, failure = offset, monotonic(), ""
        try:
            for chunk in chunks:
                offset += len(chunk)
                yield chunk
                if stop is not None and stop.is_set():
                    raise Unavailable(f"reading {info.name} was stopped")
        except Transient as error:
            failure = str(error)
        # Without a known size only a clean end shows that the body is whole.
        if offset >= info.size and (info.size or not failure):
            return
        # A few bytes after a long wait are no progress either: else a trickle would be read for ever.
        stalled = offset == start or has_stalled(offset - start, monotonic() - started_at)
        fruitless = fruitless + 1 if stalled else 0
        if fruitless > MAX_FRUITLESS_BREAKS:
            raise Unavailable(f"{info.name} breaks off at byte {offset} again and again: {failure or 'it ends'}")
        chunks = _reopen(info, offset, reopen, display_name)


def _reopen(
    info: ObjectInfo, offset: int, reopen: Callable[[int], Iterator[bytes] | None], display_name: str
) -> Iterator[bytes]:
    try:
        chunks = reopen(offset)
    except ConditionFailed:
        chunks = None
    if chunks is None:
        raise DestinationError(f"{info.name} in {display_name} was replaced or deleted meanwhile")
    return chunks
