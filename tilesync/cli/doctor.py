"""`tilesync doctor`: what stands in the way of a run, or of viewers, and what mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tilesync.cli.options import IDENTITY_OPTIONS, OUTPUT_OPTIONS, STATE_DIR_OPTION, STORE_OPTIONS, option
from tilesync.cli.output.table import wrap_text
from tilesync.cli.params import DestinationType, DurationType, Location, SourceType
from tilesync.cli.parse import create_session, is_on_command_line, read_source, service_options, store_options
from tilesync.errors import UsageError
from tilesync.model.storage import AzureLocation

if TYPE_CHECKING:
    from tilesync.cli.session import Session
    from tilesync.events import Event

RESULT_MARKS = {"ok": "ok", "warn": "warn", "fail": "FAIL", "skipped": "-"}
NAME_COLUMN_CHARS = 16


@click.command(short_help="Check identity and service; or, with DEST, what viewers need of it.")
@click.argument("dest", required=False, type=DestinationType())
@option(
    "--source",
    metavar="SOURCE",
    envvar="TILESYNC_SOURCE",
    type=SourceType(),
    help="iModel id, or a container link (`-`: on stdin).",
)
@option("--public-url", metavar="URL", help="Where viewers reach DEST: of a web server, or a CDN.")
@option("--origin", metavar="URL", help="Scheme, host and port of the viewer's page.  [default: an example]")
@IDENTITY_OPTIONS
@option(
    "--retry-for",
    type=DurationType(),
    envvar=None,  # a nightly job's patience is not that of someone who waits for an answer
    default="10s",
    show_default=True,
    help="How long to bear with failures.",
)
@STATE_DIR_OPTION
@STORE_OPTIONS
@OUTPUT_OPTIONS
@click.pass_context
def doctor(context: click.Context, /, dest: Location | None, source: str | None, **options: Any) -> int:
    """Check identity and service; or, with DEST, what viewers need of it. Nothing is written.

    Each line says what was checked, what was found, and what mends it. The exit code is that of the first check that
    fails.
    """
    if dest is None:
        _refuse_options_without_dest(context)
    session = create_session(options, source=source, dest=dest)
    unseen = list[str]()

    async def work() -> None:
        from tilesync.api import aio
        from tilesync.events import CheckCompleted, Notice

        def on_event(event: Event) -> None:
            session.show(event)
            if isinstance(event, CheckCompleted) and event.name == "outside":
                unseen.append(event.hint)
            _print_check(session, event, options)

        if isinstance(dest, AzureLocation) and dest.link is not None and is_on_command_line(context, "dest"):
            session.observe(Notice("others on this machine can see the link of DEST: az:// needs none"))
        found = await aio.doctor(
            dest,
            source=read_source(source) if source and dest is None else None,
            public_url=options["public_url"],
            origin=options["origin"],
            on_event=on_event,
            monitor=session.monitor,
            **service_options(options),
            **store_options(options),
        )
        if found.error is not None:
            raise found.error

    return session.run(work, closing_message=lambda: _format_conclusion(unseen))


def _format_conclusion(skipped_hints: list[str]) -> str:
    """What it comes to where no check failed. `unseen`: what would let it look at what it did not look at."""
    if not skipped_hints:
        return "nothing stands in the way"
    looked = "the pointer stands, and so do the files that were looked at"
    return f"{looked}; no web server was asked, so viewers may still fail: {skipped_hints[0]}"


def _refuse_options_without_dest(context: click.Context) -> None:
    for name in ("public_url", "origin"):
        if is_on_command_line(context, name):
            raise UsageError(f"--{name.replace('_', '-')} is about what viewers need of DEST, which is not given")


def _print_check(session: Session, event: Event, options: dict[str, Any]) -> None:
    """One check for people; with -q only what wants mending."""
    from tilesync.events import CheckCompleted

    if not isinstance(event, CheckCompleted) or options["as_json"]:
        return
    if options["quiet"] and event.result not in {"warn", "fail"}:
        return
    first, then = f"{RESULT_MARKS[event.result]:<5} {event.name:<{NAME_COLUMN_CHARS}} ", " " * (NAME_COLUMN_CHARS + 7)
    lines = [wrap_text(event.message, first_indent=first, next_indent=then, width=session.width)]
    hints = event.hint.splitlines()
    width = session.width if len(hints) == 1 else None  # several lines are a configuration: to be copied as they are
    lines += [wrap_text(line, first_indent="      ", next_indent="      ", width=width) for line in hints]
    session.print_output("\n".join(lines))
