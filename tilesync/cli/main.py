"""The commands that speak with the service: parse, call wiring, return an exit code.

What a command needs it imports itself.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from tilesync import __version__
from tilesync.cli.doctor import doctor, parse_viewer_location
from tilesync.cli.held import rollback, verify, versions
from tilesync.cli.options import (
    ADOPT_OPTION,
    ALLOW_HTTP_OPTION,
    AZURE_ENDPOINT_OPTION,
    CACHE_OPTIONS,
    HISTORY_OPTIONS,
    INVENTORY_OPTIONS,
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
    DurationType,
    FilePathType,
    FolderType,
    Location,
    RateType,
    SourceType,
)
from tilesync.cli.parse import (
    create_mirror_request,
    create_selector,
    create_service,
    create_session,
    create_store_options,
    display_source,
    is_on_command_line,
    parse_imodel_id,
)
from tilesync.cli.signals import install_signal_handlers
from tilesync.errors import Interrupted, TilesyncError, UsageError
from tilesync.model.storage import AzureLocation

if TYPE_CHECKING:
    from tilesync.cli.session import Session
    from tilesync.model import Export


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tilesync")
def cli() -> None:
    """Mirror 3D Tiles exports of the iTwin Mesh Export service, whole and verified.

    Start with `tilesync demo`: it needs no account. Every option reads TILESYNC_<OPTION> too, but for those that delete
    or override a guard.
    """


for command in (verify, versions, rollback, doctor):
    cli.add_command(command)


@cli.command(short_help="Mirror an export.")
@click.argument("source", envvar="TILESYNC_SOURCE", type=SourceType())
@click.argument("dest", envvar="TILESYNC_DEST", type=DestinationType())
@SELECTION_OPTIONS
@wait_option("10m")
@option("--link-command", help="Command that prints a fresh container link when SOURCE is a link.")
@HISTORY_OPTIONS
@INVENTORY_OPTIONS
@ADOPT_OPTION
@RETENTION_OPTIONS
@option("--bwlimit", type=RateType(), metavar="RATE", help="Bytes a second at most: 500k, 10M, 1.5Mi.")
@option(
    "--transfers",
    type=CountOrWordType("auto", max_count=1000),
    default="auto",
    show_default=True,
    help="Transfers at once.",
)
@option("-n", "--dry-run", is_flag=True, help="Print the plan with its reasons, write nothing.")
@NO_PROGRESS_OPTION
@option("--report", type=FilePathType(), help="Write the last JSON line, with every failure, to this file.")
@STATE_DIR_OPTION
@STORE_OPTIONS
@CACHE_OPTIONS
@option("--server-copy", is_flag=True, help="Azure to Azure: the storage copies by itself, proven by its MD5.")
@ON_PUBLISH_OPTION
@option(
    "--create-container", is_flag=True, envvar=None, help="Make the container of an az:// DEST where it is missing."
)
@SERVICE_OPTIONS
@OUTPUT_OPTIONS
@click.pass_context
def mirror(context: click.Context, /, source: str, dest: Location, *, dry_run: bool, **options: Any) -> int:
    """Mirror the latest finished export of SOURCE into DEST.

    SOURCE is an iModel id, or a container link https://…?SAS (better given as `-` on standard input, or in
    TILESYNC_SOURCE: others can see arguments), or what was mirrored before: a folder, az://…, s3://…. Run again to
    continue, or to fetch the next export.

    DEST is a folder, az://ACCOUNT/CONTAINER[/PREFIX], the link of a container that may write (better in TILESYNC_DEST),
    or s3://BUCKET[/PREFIX].
    """
    from tilesync.cli.output.summary import format_mirror_summary

    session = create_session(options, source=source, dest=dest, changes_dest=not dry_run)
    session.summary.dry_run = dry_run
    seen = is_on_command_line(context, "source") and source != "-"

    async def work() -> None:
        from dataclasses import replace

        from tilesync.app import commands as wiring
        from tilesync.events import Notice

        request = create_mirror_request(source, dest, options)
        session.summary.source = display_source(request, session.summary.source)
        if request.link is not None and seen:
            session.observe(Notice("others on this machine can see the link: better give it as - or TILESYNC_SOURCE"))
        if isinstance(dest, AzureLocation) and dest.link is not None and is_on_command_line(context, "dest"):
            session.observe(Notice("others on this machine can see the link of DEST: better give it as TILESYNC_DEST"))
        if dry_run:
            heard = request.every_file or options["as_json"] or not options["quiet"]
            await wiring.mirror_dry_run(replace(request, every_file=heard), session.observe, session.stats)
        else:
            announce = session.create_publish_hook(options["on_publish"])
            await wiring.mirror(request, session.observe, session.stats, hook=announce)

    return session.run(
        work, closing_message=lambda: format_mirror_summary(session.summary, session.stats, dest, dry_run=dry_run)
    )


@cli.command(short_help="List the exports.")
@click.argument("imodel_id", required=False, envvar="TILESYNC_SOURCE", type=SourceType())
@option("--held", metavar="DEST", type=DestinationType(), help="Say which of them this destination holds.")
@option("--state-dir", type=FilePathType(), help="Where its state is, if not at its usual place.")
@STORE_OPTIONS
@SERVICE_OPTIONS
@OUTPUT_OPTIONS
def exports(imodel_id: str | None, held: Location | None, state_dir: Path | None, **options: Any) -> int:
    """List the exports of IMODEL_ID, newest first; without an id, all that this identity can see."""
    from tilesync.cli.output.summary import build_export_row, format_export_table

    session = create_session(options, source=imodel_id, dest=held)
    rows: list[Export] = []

    async def work() -> None:
        from tilesync.app import commands as wiring
        from tilesync.events import Warned
        from tilesync.jobs.versions.listing import describe_endangered

        imodel = parse_imodel_id(imodel_id) if imodel_id else None
        await wiring.list_exports(create_service(options), imodel, session.observe, rows.append)
        there = None
        if held is not None:
            there = wiring.list_versions(
                held, session.observe, state_dir=state_dir, retired=True, store_options=create_store_options(options)
            )
        for row in rows if options["as_json"] else ():
            session.write_json_line(build_export_row(row, there))
        if not options["as_json"]:
            session.print_output(format_export_table(rows, there, imodel=not imodel_id, width=session.width))
        for sentence in describe_endangered(rows, there) if there is not None else ():
            session.observe(Warned(sentence))

    return session.run(work, closing_message=lambda: f"{len(rows)} exports" if len(rows) != 1 else "1 export")


@cli.command(short_help="Print a viewer URL: a secret.")
@click.argument("what", metavar="IMODEL_ID|DEST", envvar="TILESYNC_SOURCE", type=SourceType())
@SELECTION_OPTIONS
@wait_option("0s")
@option("--life", type=DurationType(), default="1h", show_default=True, help="How long the URL of a DEST is good.")
@AZURE_ENDPOINT_OPTION
@ALLOW_HTTP_OPTION
@SERVICE_OPTIONS
@OUTPUT_OPTIONS
def link(what: str, **options: Any) -> int:
    """Print the URL that a viewer starts from: a secret that lives about an hour.

    Of an iModel it leads to the latest finished export, at the service. Of a private container (az://…, or a link to it
    that only reads) it leads to what is mirrored there, and reads that container until --life is over.
    """
    session = create_session(options, source=what)
    place = parse_viewer_location(what, options["azure_endpoint"])

    async def work() -> None:
        from tilesync.app import commands as wiring

        if place is not None:
            url = _create_viewer_url(session, place, options)
        else:
            request = wiring.MirrorRequest(
                service=create_service(options),
                selector=create_selector(what, options),
                destination=Path(),
                cdn=options["cdn"],
                wait=options["wait"],
                poll=options["poll"],
            )
            url = await wiring.viewer_link(request, session.observe)
        if options["as_json"]:
            session.write_json_line({"kind": "link", "url": url})
        else:
            session.print_output(url)

    return session.run(work)


def _create_viewer_url(session: Session, location: Location, options: dict[str, Any]) -> str:
    """The signed URL of what is mirrored; what it allows, and which viewers can use it, is said beside it."""
    from tilesync.app.requests import Target
    from tilesync.cli.output.summary import SIGNED_URL_HINT
    from tilesync.doctor.commands import viewer_url

    url, ends = viewer_url(Target(location, create_store_options(options)), options["life"])
    until = f" until {ends:%Y-%m-%d %H:%M:%S} UTC" if ends is not None else ""
    session.print_message(f"a secret: whoever has it reads the whole container{until}")
    session.print_message(SIGNED_URL_HINT)
    return url


@cli.command(short_help="See it work; no account needed.")
@click.argument("folder", required=False, type=FolderType())
@NO_PROGRESS_OPTION
@OUTPUT_OPTIONS
def demo(folder: Path | None, **options: Any) -> int:
    """Run the main job against an embedded stand-in of the service; no account needed."""
    from tilesync.cli.demo import DEFAULT_FOLDER, run_demo

    return run_demo(create_session(options, dest=folder or DEFAULT_FOLDER, changes_dest=True), folder or DEFAULT_FOLDER)


def _open_closed_streams() -> None:
    """Where a standard stream is closed its number leads nowhere: else the next file or socket would get it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def main(arguments: list[str] | None = None) -> NoReturn:
    """The entry point: every way out has its exit code, and with `--json` its last line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _open_closed_streams()
    install_signal_handlers()
    try:
        code = cli.main(arguments, prog_name="tilesync", standalone_mode=False)
    except click.exceptions.Abort:
        code = _report_error(arguments, Interrupted("interrupted"))
    except click.ClickException as error:
        code = _report_usage_error(arguments, error)
    except TilesyncError as error:
        code = _report_error(arguments, error)
    except Exception as error:  # noqa: BLE001 - the last door: a bug ends in exit 1, and is told
        code = _report_lost_help_output(arguments, error) or _report_bug(arguments, error)
    _exit_process(code if isinstance(code, int) else 0)


def _exit_process(code: int) -> NoReturn:
    """End the process. With the bulk engine loaded, at once: a thread of it that still wants the interpreter while that
    winds down would abort it, and the exit code with it (pyreqwest 0.15.1).
    """
    if "pyreqwest" in sys.modules:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            with contextlib.suppress(OSError):  # its reader went away
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _report_error(arguments: list[str], error: TilesyncError) -> int:
    """Tell an error of a request that never became a run; the exit code."""
    from tilesync.cli.early_exit import report_early_error
    from tilesync.cli.output.reporters import print_error

    print_error(error)
    return report_early_error(cli, arguments, error)


def _report_usage_error(arguments: list[str], error: click.ClickException) -> int:
    """Tell a usage error as click words it, with the usage of the command."""
    from tilesync.cli.early_exit import report_early_error
    from tilesync.cli.output.masking import SecretMasker
    from tilesync.cli.output.streams import write_stream

    text = io.StringIO()
    error.show(text)
    write_stream(sys.stderr, SecretMasker(os.environ).mask_text(text.getvalue()))
    return report_early_error(cli, arguments, UsageError(error.format_message()))


def _report_lost_help_output(arguments: list[str], error: Exception) -> int:
    """The exit code where --help or --version could not be written; 0 for any other error."""
    from tilesync.cli.output.streams import create_output_error, write_stream

    if not isinstance(error, OSError) or not {"-h", "--help", "--version"} & set(arguments):
        return 0
    write_stream(sys.stdout, "")  # what is left would be tried again at the end
    return _report_error(arguments, create_output_error(error))


def _report_bug(arguments: list[str], error: Exception) -> int:
    import traceback

    from tilesync.cli.early_exit import report_early_error
    from tilesync.cli.output.masking import SecretMasker
    from tilesync.cli.output.streams import write_stream

    write_stream(sys.stderr, SecretMasker(os.environ).mask_text(traceback.format_exc()))
    wrong = TilesyncError("tilesync met a bug", hint="please report it with the lines above")
    return report_early_error(cli, arguments, wrong, kind=type(error).__name__)
