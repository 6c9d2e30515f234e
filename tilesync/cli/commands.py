"""The commands: parse, call wiring, return an exit code. What a command needs it imports itself."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from tilesync import __version__
from tilesync.cli.text import Destination, Duration, FilePath, Transfers
from tilesync.errors import UsageError

if TYPE_CHECKING:
    from tilesync.cli.session import Session
    from tilesync.model import Export, SasUrl, Selector
    from tilesync.wiring import Service

F = TypeVar("F", bound=Callable[..., Any])


def option(*names: str, **attributes: Any) -> Callable[[F], F]:
    """An option that reads TILESYNC_<OPTION> too."""
    long = next(name for name in names if name.startswith("--")).split("/")[0]
    variable = "TILESYNC_" + long.lstrip("-").replace("-", "_").upper()
    attributes.setdefault("envvar", variable)
    return click.option(*names, **attributes)


def stacked(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several decorators as one, the first outermost."""

    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


SERVICE = stacked(
    option(
        "--api-url",
        envvar=["TILESYNC_API_URL", "ITP_API_URL"],
        help="Base URL of the service, if not the public one.",
    ),
    option("--token-file", type=FilePath(), help="File that holds an access token; read again when it is refused."),
    option("--token-command", help="Command that prints an access token; run again when it is refused."),
    option("--retry-for", type=Duration(), default="60s", show_default=True, help="How long to bear with failures."),
)

VOICE = stacked(
    option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout."),
    option("-q", "--quiet", is_flag=True, help="Only warnings and errors."),
    option("-v", "--verbose", is_flag=True, help="Every file, retry and renewal."),
    option("--log-file", type=FilePath(), help="Append every event to this file, as JSON lines."),
)

SELECTION = stacked(
    option("--changeset-id", help="The export of this changeset."),
    option("--export-id", help="This very export."),
    option("--export-type", default="3DTiles", show_default=True, help="Type of the export."),
    option("--tile-version", help="Only exports compatible with this tile version."),
    option("--itwinjs", help="Only exports compatible with this iTwin.js version."),
    option("--cdn", is_flag=True, help="Bytes through the CDN; the listing goes to the storage directly."),
    option("--poll", type=Duration(), default="15s", show_default=True, help="How often to look while waiting."),
)


def waiting(default: str) -> Callable[[F], F]:
    """How long a command waits when nothing is finished."""
    return option("--wait", type=Duration(), default=default, show_default=True, help="How long to wait for an export.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tilesync")
def cli() -> None:
    """Mirror 3D Tiles exports of the iTwin Mesh Export service, whole and verified.

    Start with `tilesync demo`: it needs no account. Every option reads TILESYNC_<OPTION> too.
    """


@cli.command(short_help="Mirror an export into a folder.")
@click.argument("source", envvar="TILESYNC_SOURCE")
@click.argument("dest", envvar="TILESYNC_DEST", type=Destination())
@SELECTION
@waiting("10m")
@option("--link-command", help="Command that prints a fresh container link when SOURCE is a link.")
@option(
    "--inventory",
    type=click.Choice(["auto", "list", "walk"]),
    default="auto",
    show_default=True,
    help="List the container, or walk from its tileset.json; auto walks where listing is denied.",
)
@option("--include", multiple=True, metavar="GLOB", help="Only files of this name (`*.glb`, `tiles/**`); repeatable.")
@option("--exclude", multiple=True, metavar="GLOB", help="No files of this name; wins over --include; repeatable.")
@option(
    "--allow-missing", is_flag=True, envvar=None, help="Publish although the tilesets ask for files that are not there."
)
@option("--transfers", type=Transfers(), default="auto", show_default=True, help="Transfers at once.")
@option("--allow-shrink", is_flag=True, envvar=None, help="Publish an export with under half the files or bytes.")
@option("-n", "--dry-run", is_flag=True, help="Print the plan with its reasons, write nothing.")
@option("--no-progress", is_flag=True, help="No bar, and no line a minute.")
@option("--report", type=FilePath(), help="Write the last JSON line, with every failure, to this file.")
@option("--state-dir", type=FilePath(), help="Keep the state here instead of DEST/.tilesync.")
@SERVICE
@VOICE
@click.pass_context
def mirror(context: click.Context, /, source: str, dest: Path, *, dry_run: bool, **options: Any) -> int:
    """Mirror the latest finished export of SOURCE into the folder DEST.

    SOURCE is an iModel id, or a container link https://…?SAS (better given as `-` on standard input, or in
    TILESYNC_SOURCE: others can see arguments). Run again to continue, or to fetch the next export.
    """
    from tilesync.cli.summary import mirrored

    session = _session(options)
    work = _mirroring(session, source, dest, dry_run=dry_run, seen=_on_command_line(context, "source"), options=options)
    return session.run(work, closing=lambda: mirrored(session.summary, session.tally, dest, dry_run=dry_run))


def _mirroring(
    session: Session, source: str, dest: Path, *, dry_run: bool, seen: bool, options: dict[str, Any]
) -> Callable[[], Any]:
    async def work() -> None:
        from tilesync import wiring
        from tilesync.events import Notice
        from tilesync.model import Inventory
        from tilesync.rules.filters import globs

        link = _link(source)
        if link is not None and seen and source != "-":
            session.observe(Notice("others on this machine can see the link: better give it as - or TILESYNC_SOURCE"))
        request = wiring.MirrorRequest(
            service=_service(options),
            selector=_selector(None if link else source, options),
            destination=dest,
            link=link,
            link_command=options["link_command"] or None,
            cdn=options["cdn"],
            wait=options["wait"],
            poll=options["poll"],
            transfers=options["transfers"],
            state_dir=options["state_dir"],
            allow_shrink=options["allow_shrink"],
            allow_missing=options["allow_missing"],
            globs=globs(options["include"], options["exclude"]),
            inventory=None if options["inventory"] == "auto" else Inventory(options["inventory"]),
            every_file=options["verbose"] or options["log_file"] is not None,
        )
        run = wiring.preview if dry_run else wiring.mirror
        await run(request, session.observe, session.tally)

    return work


@cli.command(short_help="List the exports.")
@click.argument("imodel_id", required=False, envvar="TILESYNC_SOURCE")
@SERVICE
@VOICE
def exports(imodel_id: str | None, **options: Any) -> int:
    """List the exports of IMODEL_ID, newest first; without an id, all that this identity can see."""
    from tilesync.cli.summary import export_row, export_table

    session = _session(options)
    rows: list[Export] = []

    async def work() -> None:
        from tilesync import wiring

        await wiring.list_exports(
            _service(options), _imodel(imodel_id) if imodel_id else None, session.observe, rows.append
        )
        for row in rows if options["as_json"] else []:
            session.tell(export_row(row))
        if not options["as_json"]:
            session.print(export_table(rows, imodel=not imodel_id))

    return session.run(work, closing=lambda: f"{len(rows)} exports" if len(rows) != 1 else "1 export")


@cli.command(short_help="Print a viewer URL: a secret.")
@click.argument("imodel_id", envvar="TILESYNC_SOURCE")
@SELECTION
@waiting("0s")
@SERVICE
@VOICE
def link(imodel_id: str, **options: Any) -> int:
    """Print the URL that a viewer starts from: a secret that lives about an hour."""
    session = _session(options)

    async def work() -> None:
        from tilesync import wiring

        request = wiring.MirrorRequest(
            service=_service(options),
            selector=_selector(imodel_id, options),
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


@cli.command(short_help="Audit what a folder holds.")
@click.argument("dest", envvar="TILESYNC_DEST", type=Destination())
@option("--quick", is_flag=True, help="Compare names and sizes only.")
@option("--no-progress", is_flag=True, help="No bar, and no line a minute.")
@option("--report", type=FilePath(), help="Write the last JSON line, with every finding, to this file.")
@option("--state-dir", type=FilePath(), help="Where the state is, if not in DEST/.tilesync.")
@VOICE
def verify(dest: Path, *, quick: bool, **options: Any) -> int:
    """Audit what DEST holds against its manifest; what is found bad is fetched again by the next mirror."""
    from tilesync.cli.summary import verified

    session = _session(options)

    async def work() -> None:
        from tilesync import wiring

        await wiring.verify(dest, session.observe, session.tally, state_dir=options["state_dir"], quick=quick)

    return session.run(work, closing=lambda: verified(session.tally, dest, quick=quick))


@cli.command(short_help="See it work; no account needed.")
@click.argument("folder", required=False, type=Destination())
@option("--no-progress", is_flag=True, help="No bar, and no line a minute.")
@VOICE
def demo(folder: Path | None, **options: Any) -> int:
    """Run the main job against an embedded stand-in of the service; no account needed."""
    from tilesync.cli.show import FOLDER, show

    return show(_session(options), folder or FOLDER)


def _session(options: dict[str, Any]) -> Session:
    from tilesync.cli.session import Session, Voice

    return Session(
        Voice(
            json=options["as_json"],
            quiet=options["quiet"],
            verbose=options["verbose"],
            progress=not options.get("no_progress", False),
            log_file=options["log_file"],
            report=options.get("report"),
        )
    )


def _service(options: dict[str, Any]) -> Service:
    from tilesync import wiring
    from tilesync.model import Secret

    def secret(name: str) -> Secret | None:
        return Secret(os.environ[name]) if os.environ.get(name) else None

    identity = wiring.Identity(
        token=secret("TILESYNC_TOKEN"),
        token_file=options["token_file"],
        token_command=options["token_command"] or None,
        share_key=secret("TILESYNC_SHARE_KEY"),
        client_id=os.environ.get("ITP_SERVICE_CLIENT_ID"),
        client_secret=secret("ITP_SERVICE_CLIENT_SECRET"),
        issuer=os.environ.get("ITP_ISSUER_URL") or wiring.ISSUER,
    )
    if bool(identity.client_id) != bool(identity.client_secret):
        missing = "ITP_SERVICE_CLIENT_SECRET" if identity.client_id else "ITP_SERVICE_CLIENT_ID"
        raise UsageError(f"half of the client credentials is missing: {missing}", hint="set both, or neither")
    return wiring.Service(options["api_url"] or wiring.API, identity, options["retry_for"])


def _imodel(text: str) -> str:
    """An iModel id. Raises UsageError for anything else, which is not repeated: it may be a link with its signature."""
    if not text.strip() or any(letter in "/?&=" or letter.isspace() for letter in text):
        raise UsageError(
            "that is no iModel id" + (", but a link" if "?" in text else ""),
            hint="an iModel id looks like 5c6b3f0e-0d3e-4b5a-9a51-6f2d3c1e7a40; `mirror` takes https://…?SAS too",
        )
    return text


def _selector(imodel: str | None, options: dict[str, Any]) -> Selector:
    from tilesync.model import Selector

    return Selector(
        imodel=_imodel(imodel) if imodel is not None else None,
        changeset=options["changeset_id"],
        export_id=options["export_id"],
        export_type=options["export_type"],
        tile_version=options["tile_version"],
        itwinjs=options["itwinjs"],
    )


def _link(source: str) -> SasUrl | None:
    """The container link that SOURCE is; None when it is an iModel id."""
    from time import monotonic

    from tilesync.rules.links import parse_link

    text = (sys.stdin.readline() if sys.stdin else "").strip() if source == "-" else source
    if not text:
        raise UsageError("a container link is expected on standard input, and nothing came")
    is_link = source == "-" or "://" in text
    return parse_link(text, fetched=monotonic()) if is_link else None


def _on_command_line(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def main(arguments: list[str] | None = None) -> NoReturn:
    """The entry point: every way out has its exit code, and with `--json` its last line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = cli.main(arguments, prog_name="tilesync", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = _refused(arguments, error.format_message(), "see `tilesync --help`")
    except UsageError as error:
        click.echo(f"error: {error}\n  {error.hint}", err=True)
        code = _refused(arguments, str(error), error.hint)
    except click.exceptions.Abort:
        code = 130
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


def _refused(arguments: list[str], message: str, hint: str) -> int:
    """The last line of a request that never became a run; the exit code."""
    if "--json" in arguments or os.environ.get("TILESYNC_JSON", "").lower() in {"1", "true", "yes", "on", "t", "y"}:
        said = {"kind": "failed", "exit": 2, "error": "UsageError", "message": message, "hint": hint}
        click.echo(json.dumps(said, separators=(",", ":")))
    return 2
