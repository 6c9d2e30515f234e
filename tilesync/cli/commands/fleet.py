"""`tilesync fleet`: run all mirrors of a file under one budget, check the file, or write a first one."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilesync.cli.help_groups import OptionGroup, command
from tilesync.cli.options import IDENTITY_OPTIONS, MONITORING_OPTIONS, NO_PROGRESS_OPTION, OUTPUT_OPTIONS, option
from tilesync.cli.params import CountOrWordType, DurationType, FilePathType, TimeOfDayType
from tilesync.cli.parse import create_auth, create_session

if TYPE_CHECKING:
    from tilesync.cli.session import Session
    from tilesync.errors import UsageError
    from tilesync.fleets.file.settings import FleetSettings
    from tilesync.fleets.monitor import FleetMonitor
    from tilesync.fleets.outcome import MirrorOutcome

INIT_WORD = "init"
"""Word in place of FILE that writes a first file."""


@command(short_help="Run many mirrors from one file.")
@click.argument("file", metavar="FILE", envvar="TILESYNC_FLEET", type=FilePathType())
@option("--check", is_flag=True, envvar=None, help="Read and check FILE, list every mistake, and run nothing.")
@option(
    "--only",
    multiple=True,
    envvar=None,
    metavar="GLOB",
    group=OptionGroup.SELECTION,
    help="Run only mirrors whose name matches; repeatable.",
)
@option(
    "--failed",
    is_flag=True,
    envvar=None,
    group=OptionGroup.SELECTION,
    help="Run only mirrors that failed the last time, or were stopped.",
)
@option(
    "--itwin",
    "itwins",
    multiple=True,
    envvar=None,
    metavar="ID",
    group=OptionGroup.SELECTION,
    help="`tilesync fleet init --itwin ID` prints a file for the iModels of this iTwin; repeatable.",
)
@option("-n", "--dry-run", is_flag=True, group=OptionGroup.OUTPUT, help="Plan each mirror; write nothing.")
@option(
    "--jobs",
    type=CountOrWordType("auto", max_count=256),
    default="auto",
    show_default=True,
    group=OptionGroup.SPEED,
    help="Number of mirrors that run at the same time.",
)
@option(
    "--until",
    type=TimeOfDayType(),
    metavar="HH:MM",
    group=OptionGroup.SPEED,
    help="Stop at this local time; the next run continues.",
)
@option(
    "--max-duration",
    type=DurationType(),
    group=OptionGroup.SPEED,
    help="Stop after this time; the next run continues.",
)
@option(
    "--state-dir",
    type=FilePathType(is_folder=True),
    group=OptionGroup.DESTINATION,
    help="Folder for the state of the fleet, if not the default.",
)
@NO_PROGRESS_OPTION
@option(
    "--report",
    type=FilePathType(),
    group=OptionGroup.OUTPUT,
    help="Write one JSON document with the outcome of each mirror to this file.",
)
@IDENTITY_OPTIONS
@OUTPUT_OPTIONS
@MONITORING_OPTIONS
def fleet(file: Path | None, *, check: bool, dry_run: bool, itwins: tuple[str, ...], **options: Any) -> int:
    """Run every mirror of FILE (TOML) under one budget of API calls, connections and bandwidth.

    `tilesync fleet init --itwin ID > fleet.toml` writes a first file. Run the command again to continue.
    """
    from tilesync.cli.fleet_reporters import create_fleet_reporters
    from tilesync.cli.output.fleet_progress import FleetProgressDisplay
    from tilesync.cli.run_reporters import ReporterOptions
    from tilesync.errors import UsageError
    from tilesync.fleets.aio import check_fleet, read_ping_url
    from tilesync.fleets.monitor import FleetMonitor

    if file is None:
        raise UsageError("FILE is empty", hint="write the path of the fleet file; check the variables of your script")
    if str(file) == INIT_WORD:
        return _print_first_file(itwins, options)
    if itwins:
        raise UsageError("--itwin belongs to `tilesync fleet init`", hint="write itwin into a [[mirror]] of FILE")
    try:
        settings = check_fleet(file)
    except UsageError as error:
        return _report_invalid_file(file, error, options, tells_monitors=not (check or dry_run))
    if check:
        return _report_checked(file, len(settings.mirrors), options)
    options["report"] = options["report"] or settings.report
    options["metrics_file"] = options["metrics_file"] or settings.metrics_file
    options["state_dir"] = options["state_dir"] or settings.state_dir
    monitor = FleetMonitor(str(file))
    session = create_session(
        options,
        changes_dest=not dry_run,
        monitor=monitor,
        display_class=lambda *, bar, lines: FleetProgressDisplay(monitor, bar=bar, lines=lines),
        fleet_file=file,
        completed_hint=f"the mirrors are done: `tilesync status {shlex.quote(str(file))}` shows them",
    )
    if not dry_run:
        reporter_options = ReporterOptions(
            options["metrics_file"],
            options["ping"] or read_ping_url(settings),
            options["on_success"] or settings.on_success,
            options["on_failure"] or settings.on_failure,
        )
        session.attach_reporters(create_fleet_reporters(session, monitor, reporter_options))
    return _run(session, monitor, settings, options, dry_run=dry_run)


def _run(
    session: Session, monitor: FleetMonitor, settings: FleetSettings, options: dict[str, Any], *, dry_run: bool
) -> int:
    from tilesync.cli.output.fleet_messages import FleetMessagePrinter, format_fleet_summary, format_fleet_table
    from tilesync.cli.output.fleet_progress import format_mirror_counts

    def summarize() -> str:
        table = format_fleet_table(monitor.outcomes, width=session.width, verbose=options["verbose"])
        return "\n".join(part for part in (table, format_fleet_summary(monitor)) if part)

    printer = FleetMessagePrinter(session.print_always, verbose=options["verbose"], quiet=options["quiet"])

    async def work() -> None:
        from tilesync.fleets import aio

        monitor.on_event = lambda name, event: session.show_of_mirror(name, event, printer)
        monitor.on_outcome = show_outcome
        try:
            await aio.fleet(
                settings,
                only=options["only"],
                failed=options["failed"],
                dry_run=dry_run,
                jobs=options["jobs"],
                until=options["until"],
                max_duration=options["max_duration"],
                state_dir=options["state_dir"],
                auth=create_auth(options),
                api_url=options["api_url"] or None,
                every_file=options["verbose"] or options["log_file"] is not None,
                monitor=monitor,
            )
        finally:
            if monitor.total is not None:
                session.print_message(summarize())

    def show_outcome(outcome: MirrorOutcome) -> None:
        for text in outcome.tracebacks:
            session.print_always(text.rstrip())
        printer.print_outcome(outcome)
        session.write_line(outcome.to_dict())
        session.report_progress(format_mirror_counts(monitor))

    return session.run(work)


def _report_invalid_file(file: Path, error: UsageError, options: dict[str, Any], *, tells_monitors: bool) -> int:
    """Report a file that cannot be used, also to the monitors of the command line: those in the file are not known.

    The metrics file stays as it is: nothing new is known about the mirrors.
    """
    from tilesync.cli.fleet_reporters import create_fleet_reporters
    from tilesync.cli.run_reporters import ReporterOptions
    from tilesync.fleets.monitor import FleetMonitor

    monitor = FleetMonitor(str(file))
    session = create_session(options, monitor=monitor, fleet_file=file)
    if tells_monitors:
        reporter_options = ReporterOptions(None, options["ping"], options["on_success"], options["on_failure"])
        session.attach_reporters(create_fleet_reporters(session, monitor, reporter_options))

    async def work() -> None:
        raise error

    return session.run(work)


def _report_checked(file: Path, count: int, options: dict[str, Any]) -> int:
    """Report that a file has no mistakes."""
    from tilesync.core.wording import format_count
    from tilesync.fleets.monitor import FleetMonitor

    session = create_session({**options, "report": None}, monitor=FleetMonitor(str(file)), fleet_file=file)

    async def work() -> None:
        session.print_message(f"{file}: {format_count(count, '[[mirror]] table')}, no mistakes")

    return session.run(work)


def _print_first_file(itwins: tuple[str, ...], options: dict[str, Any]) -> int:
    """Print a fleet file for the iModels that this identity can see; with --json, as the text of a line."""
    from tilesync.fleets.monitor import FleetMonitor

    session = create_session({**options, "report": None}, monitor=FleetMonitor(INIT_WORD))

    async def work() -> None:
        from tilesync.fleets.aio import write_fleet_file

        text = await write_fleet_file(
            itwins, auth=create_auth(options), api_url=options["api_url"] or None, on_event=session.show
        )
        if options["as_json"]:
            session.write_json_line({"kind": "fleet-file", "text": text})
        else:
            session.print_output(text.rstrip("\n"))

    return session.run(work)
