"""`tilesync exports`: list the exports of an iModel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilesync.cli.help_groups import OptionGroup, command
from tilesync.cli.options import (
    OUTPUT_OPTIONS,
    SERVICE_OPTIONS,
    STORE_OPTIONS,
    option,
)
from tilesync.cli.params import (
    DestinationType,
    FilePathType,
    SourceType,
)
from tilesync.cli.parse import (
    create_session,
    service_options,
    store_options,
)
from tilesync.core.wording import format_count

if TYPE_CHECKING:
    from tilesync.api.locations import Location


@command(short_help="List the exports.")
@click.argument("imodel_id", required=False, envvar="TILESYNC_SOURCE", type=SourceType())
@option("--held", metavar="DEST", type=DestinationType(), help="Show which of the exports this destination has.")
@option(
    "--state-dir",
    group=OptionGroup.DESTINATION,
    type=FilePathType(is_folder=True),
    help="Folder for the state of DEST, if not the default.",
)
@STORE_OPTIONS
@SERVICE_OPTIONS
@OUTPUT_OPTIONS
def exports(imodel_id: str | None, held: Location | None, state_dir: Path | None, **options: Any) -> int:
    """List the exports of IMODEL_ID, newest first; without an id, all exports that your identity can see."""
    from tilesync.cli.output.summary import format_export_table

    session = create_session(options, source=imodel_id, dest=held)
    count: list[int] = []

    async def work() -> None:
        from tilesync.api import aio
        from tilesync.events import Warned

        found = await aio.exports(
            imodel_id,
            held_in=held,
            on_event=session.show,
            monitor=session.monitor,
            **service_options(options),
            **store_options({**options, "state_dir": state_dir}),
        )
        count.append(len(found))
        for export in found if options["as_json"] else ():
            session.write_json_line(export.to_dict())
        if not options["as_json"]:
            table = format_export_table(
                found.exports, has_held=held is not None, has_imodel=not imodel_id, width=session.width
            )
            session.print_output(table)
        for sentence in found.endangered:
            session.observe(Warned(sentence))

    return session.run(work, closing_message=lambda: format_count(count[0], "export"))
