"""The event loop of every process of tilesync, and how its memory is looked through."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable


def tune_garbage_collector() -> None:
    """Look for circles in the memory less often than small programs do: values that come by the thousand have none."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The loop of uvloop, where that is installed (not on Windows): a third less work for each body."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
