"""`tilesync rollback`: move the pointer back to an older version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilesync.cli.help_groups import command
from tilesync.cli.options import (
    CACHE_OPTIONS,
    ON_PUBLISH_OPTION,
    OUTPUT_OPTIONS,
    STATE_DIR_OPTION,
    STORE_OPTIONS,
    option,
)
from tilesync.cli.params import DestinationType, format_destination_path
from tilesync.cli.parse import create_session, store_options
from tilesync.errors import UsageError

if TYPE_CHECKING:
    from tilesync.api.locations import Location
    from tilesync.api.options import StoreAccessOptions


@command(short_help="Move the pointer back to an older version.")
@click.argument("dest", envvar="TILESYNC_DEST", type=DestinationType())
@click.argument("version", required=False)
@option("--latest", is_flag=True, help="Move the pointer to the newest version, and let it follow new exports again.")
@STATE_DIR_OPTION
@STORE_OPTIONS
@CACHE_OPTIONS
@ON_PUBLISH_OPTION
@OUTPUT_OPTIONS
def rollback(dest: Location, version: str | None, *, latest: bool, state_dir: Path | None, **options: Any) -> int:
    """Move the pointer to VERSION, or to the version before the current one, and pin it there.

    Later runs still mirror, but do not move the pointer until `rollback DEST --latest`. VERSION is a name, its first
    characters, or `current`, to pin the pointer where it is.
    """
    if latest and version is not None:
        raise UsageError("--latest and VERSION cannot be used together", hint="give only one of them")
    session = create_session(options, dest=dest, changes_dest=True, is_stepwise=version is None and not latest)
    store: StoreAccessOptions = {**store_options(options), "state_dir": state_dir}
    chosen: list[str] = []

    async def work() -> None:
        from tilesync.api import aio

        found = await aio.rollback(
            dest,
            version,
            latest=latest,
            cache_control=options["cache_control"],
            pointer_cache_control=options["pointer_cache_control"],
            on_publish=session.create_publish_hook(options["on_publish"]),
            on_event=session.show,
            monitor=session.monitor,
            **store,
        )
        chosen.append(found.version)

    def format_closing_message() -> str:
        effect = "it follows new exports again" if latest else "it is pinned until `rollback DEST --latest`"
        verb = "->" if session.monitor.published else "already names"
        return f"{format_destination_path(dest, 'tileset.json')} {verb} version {chosen[0]}; {effect}"

    return session.run(work, closing_message=format_closing_message)
