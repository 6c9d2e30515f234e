"""Pack a version of a destination into one file: open the destination and the package, and run the job."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tilesync.app.destinations import open_destination
from tilesync.app.locations import match_location, refuse_missing_folder
from tilesync.app.requests import Target
from tilesync.events import VersionPacked
from tilesync.model import Version
from tilesync.protocols import Observer
from tilesync.runtime.threads import run_in_thread
from tilesync.stores.opening import Mode
from tilesync.stores.packages.compression import Compression
from tilesync.stores.packages.writing import PackageOptions

if TYPE_CHECKING:
    from tilesync.jobs.run.stats import RunStats
    from tilesync.stores.opening import ReadOnlyDestination


async def pack(
    target: Target, version: str, options: PackageOptions, observe: Observer, stats: RunStats
) -> VersionPacked:
    """Pack the version that `version` names, and report it. Raises the RunErrors."""
    refuse_missing_folder(target.location)
    _refuse_out_inside(target, options.out)
    async with open_destination(target, Mode.AUDIT, observe) as destination:
        work = partial(_write_package, destination, version, options, observe, stats)
        packed = await run_in_thread(work)
    observe(packed)
    return packed


def _refuse_out_inside(target: Target, out: Path) -> None:
    """Raise UsageError if the package would be inside the destination."""
    from tilesync.stores.packages.package_output import refuse_inside

    match_location(
        target.location,
        folder=lambda path: refuse_inside(out, path),
        azure=lambda _: None,
        s3=lambda _: None,
    )


def _write_package(
    destination: ReadOnlyDestination, version_text: str, options: PackageOptions, observe: Observer, stats: RunStats
) -> VersionPacked:
    from tilesync.jobs.pack.job import PackInputs, PackJob
    from tilesync.stores.packages.writing import open_package_writer

    with open_package_writer(options) as (output, writer), output.open_spool() as manifest_file:
        is_size_known = options.compression is Compression.NONE
        check_space = output.check_space if is_size_known else _skip_check
        inputs = PackInputs(destination.files, destination.publication, writer, check_space, manifest_file)
        version: Version = PackJob(inputs, observe, stats).run(version_text)
        package_bytes = output.commit()
    summary = version.summary
    return VersionPacked(
        version.name, str(options.out), options.package_format, summary.files, summary.bytes, package_bytes
    )


def _skip_check(size: int) -> None:
    """Accept any size: compressed files may take much less, so that only the disk itself can tell."""
