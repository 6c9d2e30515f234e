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
from tilesync.cli.doctor import doctor, viewer_place
from tilesync.cli.held import rollback, verify, versions
from tilesync.cli.options import (
    ADOPT,
    ALLOW_HTTP,
    AZURE_ENDPOINT,
    DELETION,
    HISTORY,
    INVENTORY,
    NO_PROGRESS,
    ON_PUBLISH,
    REACH,
    SELECTION,
    SERVICE,
    SERVING,
    STATE_DIR,
    VOICE,
    option,
    waiting,
)
from tilesync.cli.params import CountOr, Destination, Duration, FilePath, Folder, Place, Rate, Source
from tilesync.cli.parse import (
    imodel_of,
    is_argument,
    mirror_request,
    reach_of,
    selector_of,
    service_of,
    session_of,
    told_source,
)
from tilesync.cli.signals import raise_when_stopped
from tilesync.errors import Interrupted, TilesyncError, UsageError
from tilesync.model.storage import AzurePlace

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
@click.argument("source", envvar="TILESYNC_SOURCE", type=Source())
@click.argument("dest", envvar="TILESYNC_DEST", type=Destination())
@SELECTION
@waiting("10m")
@option("--link-command", help="Command that prints a fresh container link when SOURCE is a link.")
@HISTORY
@INVENTORY
@ADOPT
@DELETION
@option("--bwlimit", type=Rate(), metavar="RATE", help="Bytes a second at most: 500k, 10M, 1.5Mi.")
@option("--transfers", type=CountOr("auto", most=1000), default="auto", show_default=True, help="Transfers at once.")
@option("-n", "--dry-run", is_flag=True, help="Print the plan with its reasons, write nothing.")
@NO_PROGRESS
@option("--report", type=FilePath(), help="Write the last JSON line, with every failure, to this file.")
@STATE_DIR
@REACH
@SERVING
@option("--server-copy", is_flag=True, help="Azure to Azure: the storage copies by itself, proven by its MD5.")
@ON_PUBLISH
@option(
    "--create-container", is_flag=True, envvar=None, help="Make the container of an az:// DEST where it is missing."
)
@SERVICE
@VOICE
@click.pass_context
def mirror(context: click.Context, /, source: str, dest: Place, *, dry_run: bool, **options: Any) -> int:
    """Mirror the latest finished export of SOURCE into DEST.

    SOURCE is an iModel id, or a container link https://…?SAS (better given as `-` on standard input, or in
    TILESYNC_SOURCE: others can see arguments), or what was mirrored before: a folder, az://…, s3://…. Run again to
    continue, or to fetch the next export.

    DEST is a folder, az://ACCOUNT/CONTAINER[/PREFIX], the link of a container that may write (better in TILESYNC_DEST),
    or s3://BUCKET[/PREFIX].
    """
    from tilesync.cli.output.summary import mirrored

    session = session_of(options, source=source, dest=dest, acts=not dry_run)
    session.summary.dry_run = dry_run
    seen = is_argument(context, "source") and source != "-"

    async def work() -> None:
        from dataclasses import replace

        from tilesync.app import commands as wiring
        from tilesync.events import Notice

        request = mirror_request(source, dest, options)
        session.summary.source = told_source(request, session.summary.source)
        if request.link is not None and seen:
            session.observe(Notice("others on this machine can see the link: better give it as - or TILESYNC_SOURCE"))
        if isinstance(dest, AzurePlace) and dest.link is not None and is_argument(context, "dest"):
            session.observe(Notice("others on this machine can see the link of DEST: better give it as TILESYNC_DEST"))
        if dry_run:
            heard = request.every_file or options["as_json"] or not options["quiet"]
            await wiring.preview(replace(request, every_file=heard), session.observe, session.tally)
        else:
            announce = session.announcing(options["on_publish"])
            await wiring.mirror(request, session.observe, session.tally, announce=announce)

    return session.run(work, closing=lambda: mirrored(session.summary, session.tally, dest, dry_run=dry_run))


@cli.command(short_help="List the exports.")
@click.argument("imodel_id", required=False, envvar="TILESYNC_SOURCE", type=Source())
@option("--held", metavar="DEST", type=Destination(), help="Say which of them this destination holds.")
@option("--state-dir", type=FilePath(), help="Where its state is, if not at its usual place.")
@REACH
@SERVICE
@VOICE
def exports(imodel_id: str | None, held: Place | None, state_dir: Path | None, **options: Any) -> int:
    """List the exports of IMODEL_ID, newest first; without an id, all that this identity can see."""
    from tilesync.cli.output.summary import export_row, export_table

    session = session_of(options, source=imodel_id, dest=held)
    rows: list[Export] = []

    async def work() -> None:
        from tilesync.app import commands as wiring
        from tilesync.events import Warned
        from tilesync.jobs.versions.listing import endangered

        imodel = imodel_of(imodel_id) if imodel_id else None
        await wiring.list_exports(service_of(options), imodel, session.observe, rows.append)
        there = None
        if held is not None:
            there = wiring.holdings(held, session.observe, state_dir=state_dir, retired=True, reach=reach_of(options))
        for row in rows if options["as_json"] else ():
            session.tell(export_row(row, there))
        if not options["as_json"]:
            session.print(export_table(rows, there, imodel=not imodel_id, width=session.width))
        for sentence in endangered(rows, there) if there is not None else ():
            session.observe(Warned(sentence))

    return session.run(work, closing=lambda: f"{len(rows)} exports" if len(rows) != 1 else "1 export")


@cli.command(short_help="Print a viewer URL: a secret.")
@click.argument("what", metavar="IMODEL_ID|DEST", envvar="TILESYNC_SOURCE", type=Source())
@SELECTION
@waiting("0s")
@option("--life", type=Duration(), default="1h", show_default=True, help="How long the URL of a DEST is good.")
@AZURE_ENDPOINT
@ALLOW_HTTP
@SERVICE
@VOICE
def link(what: str, **options: Any) -> int:
    """Print the URL that a viewer starts from: a secret that lives about an hour.

    Of an iModel it leads to the latest finished export, at the service. Of a private container (az://…, or a link to it
    that only reads) it leads to what is mirrored there, and reads that container until --life is over.
    """
    session = session_of(options, source=what)
    place = viewer_place(what, options["azure_endpoint"])

    async def work() -> None:
        from tilesync.app import commands as wiring

        if place is not None:
            url = _held_url(session, place, options)
        else:
            request = wiring.MirrorRequest(
                service=service_of(options),
                selector=selector_of(what, options),
                destination=Path(),
                cdn=options["cdn"],
                wait=options["wait"],
                poll=options["poll"],
            )
            url = await wiring.viewer_link(request, session.observe)
        if options["as_json"]:
            session.tell({"kind": "link", "url": url})
        else:
            session.print(url)

    return session.run(work)


def _held_url(session: Session, place: Place, options: dict[str, Any]) -> str:
    """The signed URL of what is mirrored; what it allows, and which viewers can use it, is said beside it."""
    from tilesync.app.requests import Where
    from tilesync.cli.output.summary import SIGNED_VIEWERS
    from tilesync.doctor.commands import viewer_url

    url, ends = viewer_url(Where(place, reach_of(options)), options["life"])
    until = f" until {ends:%Y-%m-%d %H:%M:%S} UTC" if ends is not None else ""
    session.say(f"a secret: whoever has it reads the whole container{until}")
    session.say(SIGNED_VIEWERS)
    return url


@cli.command(short_help="See it work; no account needed.")
@click.argument("folder", required=False, type=Folder())
@NO_PROGRESS
@VOICE
def demo(folder: Path | None, **options: Any) -> int:
    """Run the main job against an embedded stand-in of the service; no account needed."""
    from tilesync.cli.demo import FOLDER, show

    return show(session_of(options, dest=folder or FOLDER, acts=True), folder or FOLDER)


def _fill_gaps() -> None:
    """Where a standard stream is closed its number leads nowhere: else the next file or socket would get it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def main(arguments: list[str] | None = None) -> NoReturn:
    """The entry point: every way out has its exit code, and with `--json` its last line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _fill_gaps()
    raise_when_stopped()
    try:
        code = cli.main(arguments, prog_name="tilesync", standalone_mode=False)
    except click.exceptions.Abort:
        code = _told(arguments, Interrupted("interrupted"))
    except click.ClickException as error:
        code = _refused(arguments, error)
    except TilesyncError as error:
        code = _told(arguments, error)
    except Exception as error:  # noqa: BLE001 - the last door: a bug ends in exit 1, and is told
        code = _failed_to_print(arguments, error) or _met_a_bug(arguments, error)
    _leave(code if isinstance(code, int) else 0)


def _leave(code: int) -> NoReturn:
    """End the process. With the bulk engine loaded, at once: a thread of it that still wants the interpreter while that
    winds down would abort it, and the exit code with it (pyreqwest 0.15.1).
    """
    if "pyreqwest" in sys.modules:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            with contextlib.suppress(OSError):  # its reader went away
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _told(arguments: list[str], error: TilesyncError) -> int:
    """Tell an error of a request that never became a run; the exit code."""
    from tilesync.cli.early_exit import end_early
    from tilesync.cli.output.reporters import say_error

    say_error(error)
    return end_early(cli, arguments, error)


def _refused(arguments: list[str], error: click.ClickException) -> int:
    """Tell a usage error as click words it, with the usage of the command."""
    from tilesync.cli.early_exit import end_early
    from tilesync.cli.output.masking import Masking
    from tilesync.cli.output.streams import say

    text = io.StringIO()
    error.show(text)
    say(sys.stderr, Masking(os.environ).text(text.getvalue()))
    return end_early(cli, arguments, UsageError(error.format_message()))


def _failed_to_print(arguments: list[str], error: Exception) -> int:
    """The exit code where --help or --version could not be written; 0 for any other error."""
    from tilesync.cli.output.streams import output_lost, say

    if not isinstance(error, OSError) or not {"-h", "--help", "--version"} & set(arguments):
        return 0
    say(sys.stdout, "")  # what is left would be tried again at the end
    return _told(arguments, output_lost(error))


def _met_a_bug(arguments: list[str], error: Exception) -> int:
    import traceback

    from tilesync.cli.early_exit import end_early
    from tilesync.cli.output.masking import Masking
    from tilesync.cli.output.streams import say

    say(sys.stderr, Masking(os.environ).text(traceback.format_exc()))
    wrong = TilesyncError("tilesync met a bug", hint="please report it with the lines above")
    return end_early(cli, arguments, wrong, kind=type(error).__name__)
