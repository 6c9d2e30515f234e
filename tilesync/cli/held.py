"""The commands about what a destination holds: they need no service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilesync.cli.options import (
    CACHE_OPTIONS,
    NO_PROGRESS_OPTION,
    ON_PUBLISH_OPTION,
    OUTPUT_OPTIONS,
    STATE_DIR_OPTION,
    STORE_OPTIONS,
    option,
)
from tilesync.cli.params import DestinationType, FilePathType, Location, format_destination_path
from tilesync.cli.parse import create_session, create_store_options
from tilesync.errors import DestinationError, UsageError

if TYPE_CHECKING:
    from tilesync.jobs.versions.ownership import OwnershipStatus


@click.command(short_help="Audit what a destination holds.")
@click.argument("dest", envvar="TILESYNC_DEST", type=DestinationType())
@option("--quick", is_flag=True, help="Compare names and sizes only.")
@option("--all", "every", is_flag=True, help="Every version, not the current one alone.")
@NO_PROGRESS_OPTION
@option("--report", type=FilePathType(), help="Write the last JSON line, with every finding, to this file.")
@STATE_DIR_OPTION
@STORE_OPTIONS
@OUTPUT_OPTIONS
def verify(dest: Location, *, quick: bool, every: bool, **options: Any) -> int:
    """Audit what DEST holds against its manifests; what is found bad is fetched again by the next mirror, as long as
    another version or the service has it.
    """
    from tilesync.cli.output.summary import format_verify_summary

    session = create_session(options, dest=dest)

    async def work() -> None:
        from tilesync.app import commands as wiring

        state_dir = options["state_dir"]
        await wiring.verify(
            dest,
            session.observe,
            session.stats,
            state_dir=state_dir,
            quick=quick,
            all_versions=every,
            store_options=create_store_options(options),
        )

    return session.run(work, closing_message=lambda: format_verify_summary(session.stats, dest, quick=quick))


@click.command(short_help="Show which versions a destination holds.")
@click.argument("dest", envvar="TILESYNC_DEST", type=DestinationType())
@option("--sha256sums", metavar="VERSION", help="Print what `sha256sum -c` reads in the folder of this version.")
@STATE_DIR_OPTION
@STORE_OPTIONS
@OUTPUT_OPTIONS
def versions(dest: Location, sha256sums: str | None, state_dir: Path | None, **options: Any) -> int:
    """Show the versions that DEST holds, the newest first; `*` marks the one that the pointer names."""
    from tilesync.cli.output.summary import build_version_row, format_ownership, format_version_table

    if sha256sums is not None and options["as_json"]:
        raise UsageError("--sha256sums prints lines for sha256sum, and no JSON", hint="leave --json away")
    session = create_session(options, dest=dest)

    async def work() -> None:
        from tilesync.app import commands as wiring

        if sha256sums is not None:
            for line in wiring.sha256sums(
                dest, sha256sums, session.observe, state_dir=state_dir, store_options=create_store_options(options)
            ):
                session.print_output(line)
            return
        told: list[OwnershipStatus] = []
        rows = wiring.list_versions(
            dest,
            session.observe,
            state_dir=state_dir,
            store_options=create_store_options(options),
            on_ownership=told.append,
        )
        if not rows:
            raise DestinationError(f"no version is held in {dest}", hint="give the place that `tilesync mirror` filled")
        for row in rows if options["as_json"] else ():
            session.write_json_line(build_version_row(row, told[0]))
        if not options["as_json"]:
            session.print_output(format_version_table(rows, width=session.width))
        session.summary.owner = told[0].owner
        session.print_message(format_ownership(dest, told[0]))

    return session.run(work)


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
        raise UsageError("--latest and a version are two wishes", hint="give one of them")
    session = create_session(options, dest=dest, changes_dest=True, is_stepwise=version is None and not latest)
    chosen: list[str] = []

    async def work() -> None:
        from tilesync.app import commands as wiring

        announce = session.create_publish_hook(options["on_publish"])
        found = await wiring.rollback(
            dest,
            session.observe,
            version,
            latest=latest,
            state_dir=state_dir,
            store_options=create_store_options(options),
            hook=announce,
        )
        chosen.append(found.name)

    def closing() -> str:
        what = "it follows the newest export again" if latest else "it stays there until `rollback DEST --latest`"
        return f"{format_destination_path(dest, 'tileset.json')} -> version {chosen[0]}; {what}"

    return session.run(work, closing_message=closing)
