"""`tilesync status`: show what a destination holds, or those of a fleet, and how the last runs ended."""

from __future__ import annotations

import os
import shlex
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilesync.cli.help_groups import OptionGroup, command
from tilesync.cli.options import OUTPUT_OPTIONS, STATE_DIR_OPTION, STORE_OPTIONS, option
from tilesync.cli.params import DestinationType, DurationType, FilePathType
from tilesync.cli.parse import create_session, store_options
from tilesync.errors import UsageError

if TYPE_CHECKING:
    from tilesync.api.locations import Location
    from tilesync.api.results import StatusResult
    from tilesync.cli.session import Session


@command(short_help="Show what is held, and the last runs.")
@click.argument("dest", envvar=["TILESYNC_DEST", "TILESYNC_FLEET"], metavar="[DEST|FILE.toml]", type=DestinationType())
@option(
    "--max-age",
    type=DurationType(),
    help="Stale if the last success is older, or the published export while there is a newer one: 36h, 7d.",
)
@option(
    "--page",
    group=OptionGroup.OUTPUT,
    type=FilePathType(),
    metavar="FILE",
    help="Write the status to this file, as one HTML page.",
)
@STATE_DIR_OPTION
@STORE_OPTIONS
@OUTPUT_OPTIONS
def status(dest: Location, *, max_age: timedelta | None, page: Path | None, **options: Any) -> int:
    """Show what DEST holds, from when it is, and how its last 30 runs ended; or the same for each mirror of a fleet.

    Without an argument that of TILESYNC_DEST, else that of TILESYNC_FLEET.

    The exit code is 0 if all mirrors are fresh, and 12 if one is stale or failing, or was never mirrored.
    """
    _refuse_package(dest)
    fleet = _find_fleet(dest)
    session = create_session({**options, "page": page}, dest=dest, fleet_file=fleet)

    async def work() -> None:
        from tilesync.api import aio
        from tilesync.fleets.aio import fleet_status

        shared: dict[str, Any] = {"max_age": max_age, "on_event": session.show, "monitor": session.monitor}
        if fleet is not None:
            found = await fleet_status(fleet, state_dir=options["state_dir"], **shared)
        else:
            found = await aio.status(dest, **shared, **store_options(options))
        _print_status(session, found, has_runs=fleet is None or options["verbose"], as_json=options["as_json"])
        if page is not None:
            _write_page(page, found)
        if found.error is not None:
            raise found.error

    return session.run(work)


def _refuse_package(dest: Location) -> None:
    """Raise UsageError for a package, which no run fills."""
    from tilesync.api.locations import is_package

    if is_package(dest) and os.path.exists(str(dest)):
        raise UsageError(
            f"{dest} is a package, which has no runs to show",
            hint=f"`tilesync versions {shlex.quote(str(dest))}` shows its version",
        )


def _find_fleet(dest: Location) -> Path | None:
    """Return the file of a fleet, whatever its name; None for a destination, which is a folder or a URL."""
    return Path(str(dest)) if "://" not in str(dest) and os.path.isfile(str(dest)) else None


def _print_status(session: Session, found: StatusResult, *, has_runs: bool, as_json: bool) -> None:
    from tilesync.api.rows import make_run_lines, make_status_line
    from tilesync.cli.output.status_table import format_run_table, format_status_summary, format_status_table

    if as_json:
        for mirror in found:
            session.write_json_line(make_status_line(mirror))
            for line in make_run_lines(mirror) if has_runs else ():
                session.write_json_line(line)
        return
    assert found.finished is not None
    session.print_output(format_status_table(found.mirrors, now=found.finished, width=session.width))
    if has_runs:
        for mirror in found:
            session.print_output("\n" + format_run_table(mirror, width=session.width))
    if found.error is None:
        session.print_message(format_status_summary(found.mirrors))


def _write_page(path: Path, found: StatusResult) -> None:
    """Write the page in one step. Raises UsageError."""
    from tilesync.cli.output.atomic_file import replace_file
    from tilesync.cli.output.report import page_write_error

    try:
        replace_file(path, found.to_html().encode(errors="replace"))
    except OSError as error:
        raise page_write_error(path, error) from None
