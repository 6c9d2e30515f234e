"""`tilesync mirror`: mirror an export, or print the plan of a mirror."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tilesync.cli.help_groups import OptionGroup, command
from tilesync.cli.options import (
    ADOPT_OPTION,
    CACHE_OPTIONS,
    CLUSTER_OPTION,
    HISTORY_OPTIONS,
    INVENTORY_OPTIONS,
    MONITORING_OPTIONS,
    NAME_OPTION,
    NO_PROGRESS_OPTION,
    ON_PUBLISH_OPTION,
    OUTPUT_OPTIONS,
    RETENTION_OPTIONS,
    SELECTION_OPTIONS,
    SERVICE_OPTIONS,
    STATE_DIR_OPTION,
    STORE_OPTIONS,
    option,
    wait_option,
)
from tilesync.cli.params import (
    CountOrWordType,
    DestinationType,
    FilePathType,
    RateType,
    SourceType,
)
from tilesync.cli.parse import (
    create_session,
    is_on_command_line,
    mirror_options,
    read_source,
)
from tilesync.core.option_values import DEFAULT_WAIT

if TYPE_CHECKING:
    from tilesync.api.locations import Location


@command(short_help="Mirror an export.")
@click.argument("source", envvar="TILESYNC_SOURCE", type=SourceType())
@click.argument("dest", envvar="TILESYNC_DEST", type=DestinationType())
@SELECTION_OPTIONS
@wait_option(DEFAULT_WAIT)
@option(
    "--link-command", group=OptionGroup.SOURCE, help="Command that prints a fresh container link when SOURCE is a link."
)
@HISTORY_OPTIONS
@INVENTORY_OPTIONS
@ADOPT_OPTION
@RETENTION_OPTIONS
@option(
    "--bwlimit",
    group=OptionGroup.SPEED,
    type=RateType(),
    metavar="RATE",
    help="Maximum bytes per second: 500k, 10M, 1.5Mi.",
)
@option(
    "--transfers",
    group=OptionGroup.SPEED,
    type=CountOrWordType("auto", max_count=1000),
    default="auto",
    show_default=True,
    help="Number of parallel transfers.",
)
@CLUSTER_OPTION
@option(
    "-n", "--dry-run", group=OptionGroup.OUTPUT, is_flag=True, help="Print the plan with its reasons; write nothing."
)
@NO_PROGRESS_OPTION
@option(
    "--report",
    group=OptionGroup.OUTPUT,
    type=FilePathType(),
    help="Write the last JSON line, with every failure, to this file.",
)
@STATE_DIR_OPTION
@STORE_OPTIONS
@CACHE_OPTIONS
@option(
    "--server-copy",
    group=OptionGroup.SPEED,
    is_flag=True,
    help="Azure to Azure: copy inside the storage service, checked by MD5.",
)
@ON_PUBLISH_OPTION
@option(
    "--create-container",
    group=OptionGroup.DESTINATION,
    is_flag=True,
    envvar=None,
    help="Create the container of an az:// DEST if it is missing.",
)
@SERVICE_OPTIONS
@OUTPUT_OPTIONS
@MONITORING_OPTIONS
@NAME_OPTION
@click.pass_context
def mirror(context: click.Context, /, source: str, dest: Location, *, dry_run: bool, **options: Any) -> int:
    """Mirror the latest finished export of SOURCE into DEST.

    SOURCE is an iModel id, a container link https://…?SAS, or an existing mirror: a folder, a package, az://… or s3://….
    Other users can see arguments: pass a link on standard input (`-`), or in TILESYNC_SOURCE. Run the command
    again to continue, or to fetch the next export.

    DEST is a folder, az://ACCOUNT/CONTAINER[/PREFIX], a container link with write permission (pass it in
    TILESYNC_DEST), or s3://BUCKET[/PREFIX].
    """
    from tilesync.cli.mirror_reporters import create_mirror_reporters
    from tilesync.cli.output.summary import format_mirror_summary

    session = create_session(options, source=source, dest=dest, changes_dest=not dry_run)
    session.monitor.dry_run = dry_run
    reporters = create_mirror_reporters(session, options, dest)
    if not dry_run:
        session.attach_reporters(reporters)
    arguments = mirror_options(options)

    async def work() -> None:
        from tilesync.api import aio
        from tilesync.api.locations import find_link, parse_source_link
        from tilesync.events import Notice

        source_value = read_source(source)
        seen = source.startswith("http") and is_on_command_line(context, "source")
        if seen and parse_source_link(source) is not None:
            session.observe(
                Notice("other users of this machine can see the link: pass it on stdin (-) or in TILESYNC_SOURCE")
            )
        if find_link(dest) is not None and is_on_command_line(context, "dest"):
            session.observe(Notice("other users of this machine can see the link of DEST: pass it in TILESYNC_DEST"))
        if dry_run:
            if options["as_json"] or not options["quiet"]:
                arguments["every_file"] = True
            await aio.plan(
                source_value, dest, keep_actions=False, on_event=session.show, monitor=session.monitor, **arguments
            )
        else:
            hook = session.create_publish_hook(options["on_publish"])
            await aio.mirror(
                source_value, dest, on_publish=hook, on_event=session.show, monitor=session.monitor, **arguments
            )

    return session.run(
        work,
        closing_message=lambda: format_mirror_summary(session.monitor, session.monitor.stats, dest, dry_run=dry_run),
    )
