"""`tilesync diff`: the files that differ between two versions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilesync.cli.help_groups import OptionGroup, command
from tilesync.cli.options import (
    OUTPUT_OPTIONS,
    SERVICE_OPTIONS,
    STATE_DIR_OPTION,
    STORE_OPTIONS,
    option,
)
from tilesync.cli.params import DestinationType
from tilesync.cli.parse import create_session, read_diff_side, service_options, store_options

if TYPE_CHECKING:
    from tilesync.api.diffing import DiffResult
    from tilesync.api.locations import Location

DIFFERENT = 13
"""Exit code with --exit-code if anything differs."""


@command(short_help="Show what differs between two versions.")
@click.argument("dest", envvar="TILESYNC_DEST", type=DestinationType())
@click.argument("a", metavar="A")
@click.argument("b", metavar="[B]", default="current")
@option("--stat", is_flag=True, help="Print only the totals, as a table.")
@option("--exit-code", is_flag=True, envvar=None, help=f"Exit {DIFFERENT} if anything differs.")
@option(
    "--link-command",
    group=OptionGroup.SOURCE,
    help="Command that prints a fresh container link when SOURCE is a link.",
)
@STATE_DIR_OPTION
@STORE_OPTIONS
@SERVICE_OPTIONS
@OUTPUT_OPTIONS
def diff(
    dest: Location,
    a: str,
    b: str,
    *,
    stat: bool,
    exit_code: bool,
    link_command: str | None,
    state_dir: Path | None,
    **options: Any,
) -> int:
    """Show the files of DEST that differ between the versions A and B; B is the current one unless you name it.

    A and B are version names, the first characters of one, `current`, or `latest@SOURCE`: the latest export of an
    iModel, a container link or another mirror. Only manifests and listings are compared: no tile is read.
    -q leaves out the summary after the list.

    Other users can see arguments: pass a link on standard input (`latest@-`), or in TILESYNC_SOURCE (`latest@`).
    """
    session = create_session(options, dest=dest)

    async def work() -> None:
        from tilesync.api import diffing
        from tilesync.events import Notice

        if any(_has_visible_link(side) for side in (a, b)):
            session.observe(
                Notice(
                    "other users of this machine can see the link: pass it on stdin (latest@-) or in TILESYNC_SOURCE"
                    " (latest@)"
                )
            )
        found = await diffing.diff(
            dest,
            read_diff_side(a),
            read_diff_side(b),
            link_command=link_command,
            on_event=session.show,
            monitor=session.monitor,
            **service_options(options),
            **store_options({**options, "state_dir": state_dir}),
        )
        if options["as_json"]:
            if stat:
                for line in found.totals.role_lines():
                    session.write_json_line(line)
            else:
                await session.write_pieces(found.json_pieces())
        else:
            await session.print_lines(_format_lines(found, stat=stat, quiet=options["quiet"], width=session.width))
        if exit_code and not found.is_same:
            session.monitor.success_exit = DIFFERENT

    return session.run(work)


def _has_visible_link(side: str) -> bool:
    """Return whether an argument contains a link, where other users can see it."""
    from tilesync.core.masking import looks_like_secret

    return looks_like_secret(side)


def _format_lines(found: DiffResult, *, stat: bool, quiet: bool, width: int | None) -> Iterator[str]:
    """Yield the lines for people: the files or the table, then the summary unless `quiet`."""
    from tilesync.cli.output.diff_lines import format_change, format_diff_summary, format_stat_table

    if stat:
        yield format_stat_table(found, width=width)
    else:
        yield from map(format_change, found)
    if not quiet:
        yield from format_diff_summary(found)
