"""`tilesync rollback`: point back at an older version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilesync.cli.options import (
    CACHE_OPTIONS,
    ON_PUBLISH_OPTION,
    OUTPUT_OPTIONS,
    STATE_DIR_OPTION,
    STORE_OPTIONS,
    option,
)
from tilesync.cli.params import DestinationType, Location, format_destination_path
from tilesync.cli.parse import create_session, store_options
from tilesync.errors import UsageError

if TYPE_CHECKING:
    from tilesync.api.options import StoreAccessOptions


@click.command(short_help="Point back at an older version.")
@click.argument("dest", envvar="TILESYNC_DEST", type=DestinationType())
@click.argument("version", required=False)
@option("--latest", is_flag=True, help="Point at the newest version, and follow the exports again.")
@STATE_DIR_OPTION
@STORE_OPTIONS
@CACHE_OPTIONS
@ON_PUBLISH_OPTION
@OUTPUT_OPTIONS
def rollback(dest: Location, version: str | None, *, latest: bool, state_dir: Path | None, **options: Any) -> int:
    """Point at VERSION, or the one before the current, and stay there: later runs go on mirroring, and leave the
    pointer alone until `rollback DEST --latest`. The first letters of a version are enough.
    """
    if latest and version is not None:
        raise UsageError("--latest and a version exclude each other", hint="give one of them")
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

    def closing() -> str:
        what = "it follows the newest export again" if latest else "it stays there until `rollback DEST --latest`"
        return f"{format_destination_path(dest, 'tileset.json')} -> version {chosen[0]}; {what}"

    return session.run(work, closing_message=closing)
