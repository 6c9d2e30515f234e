"""`tilesync doctor`: find what would make a run or a viewer fail, and how to fix it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tilesync.cli.help_groups import OptionGroup, command
from tilesync.cli.options import IDENTITY_OPTIONS, OUTPUT_OPTIONS, STATE_DIR_OPTION, STORE_OPTIONS, option
from tilesync.cli.output.table import wrap_text
from tilesync.cli.params import DestinationType, DurationType, SourceType
from tilesync.cli.parse import create_session, is_on_command_line, read_source, service_options, store_options
from tilesync.core.option_values import DOCTOR_RETRY_FOR
from tilesync.errors import UsageError

if TYPE_CHECKING:
    from tilesync.api.locations import Location
    from tilesync.cli.session import Session
    from tilesync.events import Event

RESULT_MARKS = {"ok": "ok", "warn": "warn", "fail": "FAIL", "skipped": "-"}
NAME_COLUMN_CHARS = 16


@command(short_help="Check identity and service, or whether viewers can load DEST.")
@click.argument("dest", required=False, type=DestinationType())
@option(
    "--source",
    metavar="SOURCE",
    envvar="TILESYNC_SOURCE",
    type=SourceType(),
    help="iModel id, or a container link (`-` reads it from stdin).",
)
@option("--public-url", metavar="URL", help="URL at which viewers load DEST: a web server or a CDN.")
@option("--origin", metavar="URL", help="Scheme, host and port of the page with the viewer.  [default: an example]")
@IDENTITY_OPTIONS
@option(
    "--retry-for",
    group=OptionGroup.SPEED,
    type=DurationType(),
    envvar=None,  # a long retry time for nightly jobs would be too long for a person who waits
    default=DOCTOR_RETRY_FOR,
    show_default=True,
    help="How long to retry failed requests.",
)
@STATE_DIR_OPTION
@STORE_OPTIONS
@OUTPUT_OPTIONS
@click.pass_context
def doctor(context: click.Context, /, dest: Location | None, source: str | None, **options: Any) -> int:
    """Check identity and service; or, with DEST, whether viewers can load it. Nothing is written.

    Each line names the check, its result, and how to fix a problem. The exit code is that of the first check that
    fails.
    """
    if dest is None:
        _refuse_options_without_dest(context)
    session = create_session(options, source=source, dest=dest)
    skipped_hints = list[str]()

    async def work() -> None:
        from tilesync.api import aio
        from tilesync.api.locations import find_link
        from tilesync.events import CheckCompleted, Notice

        def on_event(event: Event) -> None:
            session.show(event)
            if isinstance(event, CheckCompleted) and event.name == "outside":
                skipped_hints.append(event.hint)
            _print_check(session, event, options)

        if dest is not None and find_link(dest) is not None and is_on_command_line(context, "dest"):
            session.observe(
                Notice("other users of this machine can see the link of DEST; an az:// address needs no link")
            )
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

    return session.run(work, closing_message=lambda: _format_conclusion(skipped_hints))


def _format_conclusion(skipped_hints: list[str]) -> str:
    """Return the last sentence if no check failed. `skipped_hints`: how to enable the checks that were skipped."""
    if not skipped_hints:
        return "no problem found"
    checked = "the pointer and the files that were checked are in place"
    return f"{checked}; no web server was asked, so viewers may still fail: {skipped_hints[0]}"


def _refuse_options_without_dest(context: click.Context) -> None:
    for name in ("public_url", "origin"):
        if is_on_command_line(context, name):
            raise UsageError(f"--{name.replace('_', '-')} is only for checks of a DEST", hint="give DEST as well")


def _print_check(session: Session, event: Event, options: dict[str, Any]) -> None:
    """Print one check for people; with -q only warnings and failures."""
    from tilesync.events import CheckCompleted

    if not isinstance(event, CheckCompleted) or options["as_json"]:
        return
    if options["quiet"] and event.result not in {"warn", "fail"}:
        return
    first_indent, next_indent = (
        f"{RESULT_MARKS[event.result]:<5} {event.name:<{NAME_COLUMN_CHARS}} ",
        " " * (NAME_COLUMN_CHARS + 7),
    )
    lines = [wrap_text(event.message, first_indent=first_indent, next_indent=next_indent, width=session.width)]
    hints = event.hint.splitlines()
    width = session.width if len(hints) == 1 else None  # several lines are a configuration to copy: do not wrap it
    lines += [wrap_text(line, first_indent="      ", next_indent="      ", width=width) for line in hints]
    session.print_output("\n".join(lines))
