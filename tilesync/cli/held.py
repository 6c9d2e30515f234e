"""The commands about what a destination holds: they need no service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilesync.cli.options import NO_PROGRESS, ON_PUBLISH, REACH, SERVING, STATE_DIR, VOICE, option
from tilesync.cli.params import Destination, FilePath, Place, at_top
from tilesync.cli.parse import reach_of, session_of
from tilesync.errors import DestinationError, UsageError

if TYPE_CHECKING:
    from tilesync.jobs.versions.ownership import Standing


@click.command(short_help="Audit what a destination holds.")
@click.argument("dest", envvar="TILESYNC_DEST", type=Destination())
@option("--quick", is_flag=True, help="Compare names and sizes only.")
@option("--all", "every", is_flag=True, help="Every version, not the current one alone.")
@NO_PROGRESS
@option("--report", type=FilePath(), help="Write the last JSON line, with every finding, to this file.")
@STATE_DIR
@REACH
@VOICE
def verify(dest: Place, *, quick: bool, every: bool, **options: Any) -> int:
    """Audit what DEST holds against its manifests; what is found bad is fetched again by the next mirror, as long as
    another version or the service has it.
    """
    from tilesync.cli.output.summary import verified

    session = session_of(options, dest=dest)

    async def work() -> None:
        from tilesync.app import commands as wiring

        state_dir = options["state_dir"]
        await wiring.verify(
            dest, session.observe, session.tally, state_dir=state_dir, quick=quick, every=every, reach=reach_of(options)
        )

    return session.run(work, closing=lambda: verified(session.tally, dest, quick=quick))


@click.command(short_help="Show which versions a destination holds.")
@click.argument("dest", envvar="TILESYNC_DEST", type=Destination())
@option("--sha256sums", metavar="VERSION", help="Print what `sha256sum -c` reads in the folder of this version.")
@STATE_DIR
@REACH
@VOICE
def versions(dest: Place, sha256sums: str | None, state_dir: Path | None, **options: Any) -> int:
    """Show the versions that DEST holds, the newest first; `*` marks the one that the pointer names."""
    from tilesync.cli.output.summary import belongs, version_row, version_table

    if sha256sums is not None and options["as_json"]:
        raise UsageError("--sha256sums prints lines for sha256sum, and no JSON", hint="leave --json away")
    session = session_of(options, dest=dest)

    async def work() -> None:
        from tilesync.app import commands as wiring

        if sha256sums is not None:
            for line in wiring.sha256sums(
                dest, sha256sums, session.observe, state_dir=state_dir, reach=reach_of(options)
            ):
                session.print(line)
            return
        told: list[Standing] = []
        rows = wiring.holdings(dest, session.observe, state_dir=state_dir, reach=reach_of(options), tell=told.append)
        if not rows:
            raise DestinationError(f"no version is held in {dest}", hint="give the place that `tilesync mirror` filled")
        for row in rows if options["as_json"] else ():
            session.tell(version_row(row, told[0]))
        if not options["as_json"]:
            session.print(version_table(rows, width=session.width))
        session.summary.owner = told[0].owner
        session.say(belongs(dest, told[0]))

    return session.run(work)


@click.command(short_help="Point back at an older version.")
@click.argument("dest", envvar="TILESYNC_DEST", type=Destination())
@click.argument("version", required=False)
@option("--latest", is_flag=True, help="Point at the newest version, and follow the exports again.")
@STATE_DIR
@REACH
@SERVING
@ON_PUBLISH
@VOICE
def rollback(dest: Place, version: str | None, *, latest: bool, state_dir: Path | None, **options: Any) -> int:
    """Point at VERSION, or the one before the current, and stay there: later runs go on mirroring, and leave the
    pointer alone until `rollback DEST --latest`. The first letters of a version are enough.
    """
    if latest and version is not None:
        raise UsageError("--latest and a version are two wishes", hint="give one of them")
    session = session_of(options, dest=dest, acts=True, steps=version is None and not latest)
    chosen: list[str] = []

    async def work() -> None:
        from tilesync.app import commands as wiring

        announce = session.announcing(options["on_publish"])
        found = await wiring.rollback(
            dest,
            session.observe,
            version,
            latest=latest,
            state_dir=state_dir,
            reach=reach_of(options),
            announce=announce,
        )
        chosen.append(found.name)

    def closing() -> str:
        what = "it follows the newest export again" if latest else "it stays there until `rollback DEST --latest`"
        return f"{at_top(dest, 'tileset.json')} -> version {chosen[0]}; {what}"

    return session.run(work, closing=closing)
