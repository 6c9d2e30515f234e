"""The Python API for blocking code and notebooks: the functions of `tilesync.api.aio`, run to their end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Unpack

from tilesync.api import aio, diffing, packing, serving
from tilesync.api.blocking import make_blocking
from tilesync.api.call import Call, OnEvent
from tilesync.api.inputs import DEFAULT_RETRY_FOR, create_target
from tilesync.api.locations import Dest
from tilesync.api.monitor import RunMonitor
from tilesync.api.options import StoreAccessOptions
from tilesync.api.results import RunResult

mirror = make_blocking(aio.mirror)
plan = make_blocking(aio.plan)
pack = make_blocking(packing.pack)
verify = make_blocking(aio.verify)
rollback = make_blocking(aio.rollback)
versions = make_blocking(aio.versions)
status = make_blocking(aio.status)
diff = make_blocking(diffing.diff)
exports = make_blocking(aio.exports)
viewer_link = make_blocking(aio.viewer_link)
doctor = make_blocking(aio.doctor)
serve = make_blocking(serving.serve)


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
