"""`tilesync versions`: list the versions of a destination."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilesync.cli.help_groups import command
from tilesync.cli.options import (
    OUTPUT_OPTIONS,
    STATE_DIR_OPTION,
    STORE_OPTIONS,
    option,
)
from tilesync.cli.params import DestinationType
from tilesync.cli.parse import create_session, store_options
from tilesync.errors import DestinationError, UsageError

if TYPE_CHECKING:
    from tilesync.api.locations import Location
    from tilesync.api.options import StoreAccessOptions


@command(short_help="List the versions of a destination.")
@click.argument("dest", envvar="TILESYNC_DEST", type=DestinationType())
@option(
    "--sha256sums", metavar="VERSION", help="Print the checksums of this version, for `sha256sum -c` in its folder."
)
@STATE_DIR_OPTION
@STORE_OPTIONS
@OUTPUT_OPTIONS
def versions(dest: Location, sha256sums: str | None, state_dir: Path | None, **options: Any) -> int:
    """List the versions of DEST, newest first; `*` marks the version that the pointer names.

    DEST may also be a package: a .3tz, .zip, .tar or .3dtiles file.
    """
    from tilesync.cli.output.summary import format_ownership, format_version_table

    if sha256sums is not None and options["as_json"]:
        raise UsageError("--sha256sums and --json cannot be used together", hint="leave out --json")
    session = create_session(options, dest=dest)
    store: StoreAccessOptions = {**store_options(options), "state_dir": state_dir}

    async def work() -> None:
        from tilesync.api import aio
        from tilesync.api.locations import refuse_missing_folder
        from tilesync.api.sync import iter_sha256sums

        if sha256sums is not None:
            for line in iter_sha256sums(dest, sha256sums, on_event=session.show, monitor=session.monitor, **store):
                session.print_output(line)
            return
        found = await aio.versions(dest, on_event=session.show, monitor=session.monitor, **store)
        if not found:
            refuse_missing_folder(dest)
            raise DestinationError(
                f"no version is stored in {dest}", hint="give a DEST that `tilesync mirror` has filled"
            )
        for row in found if options["as_json"] else ():
            session.write_json_line(row.to_dict())
        if not options["as_json"]:
            session.print_output(format_version_table(found.versions, width=session.width))
        session.print_message(format_ownership(dest, found))

    return session.run(work)
