"""Event loop and garbage collector settings for every process of tilesync."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable


def tune_garbage_collector() -> None:
    """Run the cyclic garbage collector less often: thousands of small values are created, and none has a cycle."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return the loop factory of uvloop, or None if it is not installed (as on Windows).

    Measured: about a third less work per downloaded body.
    """
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
