"""Pack a version of a destination into one file."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal, Unpack

from tilesync.api.call import Call, OnEvent
from tilesync.api.inputs import DEFAULT_RETRY_FOR, create_target
from tilesync.api.locations import Dest
from tilesync.api.monitor import RunMonitor
from tilesync.api.options import StoreAccessOptions
from tilesync.api.results import PackResult


async def pack(
    dest: Dest,
    out: str | Path,
    version: str | None = None,
    *,
    compress: Literal["none", "deflate", "zstd"] = "none",
    overwrite: bool = False,
    retry_for: timedelta = DEFAULT_RETRY_FOR,
    on_event: OnEvent | None = None,
    monitor: RunMonitor | None = None,
    **options: Unpack[StoreAccessOptions],
) -> PackResult:
    """Pack a version of `dest` into the file `out`, and prove each file while it is written. Raises TilesyncError.

    `out` ends with .3tz, .3dtiles, .tar or .zip. `version`: a name, a unique prefix of one, or `current`; None for the
    current one. `compress`: for .3tz and .zip. `overwrite`: replace an existing file.
    """
    from tilesync.app import packing
    from tilesync.stores.packages.compression import parse_compression
    from tilesync.stores.packages.formats import parse_format
    from tilesync.stores.packages.writing import PackageOptions

    call = Call(monitor, on_event, None, dest)
    with call.run(PackResult):
        package = PackageOptions(Path(out), parse_format(str(out)), parse_compression(compress), overwrite)
        target = create_target(dest, options, retry_for=retry_for)
        packed = await packing.pack(target, version or "current", package, call.observe, call.monitor.stats)
    return call.monitor.result(
        PackResult,
        version=packed.version,
        package=packed.package,
        format=packed.format,
        files=packed.files,
        bytes=packed.bytes,
        package_bytes=packed.package_bytes,
    )
