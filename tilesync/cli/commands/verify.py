"""`tilesync verify`: compare the files of a destination with its manifests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tilesync.cli.help_groups import OptionGroup, command
from tilesync.cli.options import (
    CLUSTER_OPTION,
    NO_PROGRESS_OPTION,
    OUTPUT_OPTIONS,
    STATE_DIR_OPTION,
    STORE_OPTIONS,
    option,
)
from tilesync.cli.params import DestinationType, FilePathType
from tilesync.cli.parse import create_session, store_options

if TYPE_CHECKING:
    from tilesync.api.locations import Location


@command(short_help="Check the files of a destination.")
@click.argument("dest", envvar="TILESYNC_DEST", type=DestinationType())
@option("--quick", is_flag=True, help="Compare names and sizes only.")
@option("--all", "every", is_flag=True, help="Check every version, not only the current one.")
@CLUSTER_OPTION
@NO_PROGRESS_OPTION
@option(
    "--report",
    group=OptionGroup.OUTPUT,
    type=FilePathType(),
    help="Write the last JSON line, with every finding, to this file.",
)
@STATE_DIR_OPTION
@STORE_OPTIONS
@OUTPUT_OPTIONS
def verify(dest: Location, *, quick: bool, every: bool, cluster: str | None, **options: Any) -> int:
    """Check the files of DEST against its manifests.

    The next mirror fetches bad files again, if another version or the service still has them. DEST may also be a
    package: a .3tz, .zip, .tar or .3dtiles file.
    """
    from tilesync.cli.output.summary import format_verify_summary

    session = create_session(options, dest=dest)

    async def work() -> None:
        from tilesync.api import aio

        audit = await aio.verify(
            dest,
            quick=quick,
            all_versions=every,
            cluster=cluster,
            on_event=session.show,
            monitor=session.monitor,
            **store_options(options),
        )
        if audit.error is not None:
            raise audit.error

    return session.run(work, closing_message=lambda: format_verify_summary(session.monitor.stats, dest, quick=quick))
