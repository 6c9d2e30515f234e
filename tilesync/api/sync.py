"""The Python API for blocking code and notebooks: the functions of `tilesync.api.aio`, run to their end."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta
from functools import wraps
from typing import Any, ParamSpec, TypeVar, Unpack

from tilesync.api import aio
from tilesync.api.blocking import run_blocking
from tilesync.api.call import Call, OnEvent
from tilesync.api.inputs import DEFAULT_RETRY_FOR, create_target
from tilesync.api.locations import Dest
from tilesync.api.monitor import RunMonitor
from tilesync.api.options import StoreAccessOptions
from tilesync.api.results import RunResult

P = ParamSpec("P")
R = TypeVar("R")


def _blocking(function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, R]:
    """Make a function of `aio` block, with the same arguments, result and docstring."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return run_blocking(lambda: function(*args, **kwargs))

    return call


mirror = _blocking(aio.mirror)
plan = _blocking(aio.plan)
verify = _blocking(aio.verify)
rollback = _blocking(aio.rollback)
versions = _blocking(aio.versions)
status = _blocking(aio.status)
exports = _blocking(aio.exports)
viewer_link = _blocking(aio.viewer_link)
doctor = _blocking(aio.doctor)


def iter_sha256sums(
    dest: Dest,
    version: str,
    *,
    retry_for: timedelta = DEFAULT_RETRY_FOR,
    on_event: OnEvent | None = None,
    monitor: RunMonitor | None = None,
    **options: Unpack[StoreAccessOptions],
) -> Iterator[str]:
    """Yield the lines that `sha256sum -c` reads in the folder of a version. Raises TilesyncError."""
    from tilesync.app import commands

    call = Call(monitor, on_event, None, dest)
    with call.attach_result(RunResult):
        yield from commands.sha256sums(create_target(dest, options, retry_for=retry_for), version, call.observe)
