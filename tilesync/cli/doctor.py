"""`tilesync doctor`: what stands in the way of a run, or of viewers, and what mends it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilesync.cli.options import IDENTITY, REACH, STATE_DIR, VOICE, option
from tilesync.cli.output.table import wrapped
from tilesync.cli.params import Destination, Duration, Place, Source
from tilesync.cli.parse import imodel_of, is_argument, link_of, reach_of, service_of, session_of
from tilesync.errors import UsageError
from tilesync.model.storage import AzurePlace

if TYPE_CHECKING:
    from tilesync.cli.session import Session
    from tilesync.doctor.commands import HostingRequest
    from tilesync.events import Event

MARKS = {"ok": "ok", "warn": "warn", "fail": "FAIL", "skipped": "-"}
WIDTH = 16


@click.command(short_help="Check identity and service; or, with DEST, what viewers need of it.")
@click.argument("dest", required=False, type=Destination())
@option(
    "--source",
    metavar="SOURCE",
    envvar="TILESYNC_SOURCE",
    type=Source(),
    help="iModel id, or a container link (`-`: on stdin).",
)
@option("--public-url", metavar="URL", help="Where viewers reach DEST: of a web server, or a CDN.")
@option("--origin", metavar="URL", help="Scheme, host and port of the viewer's page.  [default: an example]")
@IDENTITY
@option(
    "--retry-for",
    type=Duration(),
    envvar=None,  # a nightly job's patience is not that of someone who waits for an answer
    default="10s",
    show_default=True,
    help="How long to bear with failures.",
)
@STATE_DIR
@REACH
@VOICE
@click.pass_context
def doctor(context: click.Context, /, dest: Place | None, source: str | None, **options: Any) -> int:
    """Check identity and service; or, with DEST, what viewers need of it. Nothing is written.

    Each line says what was checked, what was found, and what mends it. The exit code is that of the first check that
    fails.
    """
    if dest is None:
        _refuse_lost(context)
    session = session_of(options, source=source, dest=dest)
    unseen = list[str]()

    async def work() -> None:
        from tilesync.doctor import commands as checkups
        from tilesync.events import Checked, Notice
        from tilesync.model import Selector

        def hear(event: Event) -> None:
            session.observe(event)
            if isinstance(event, Checked) and event.name == "outside":
                unseen.append(event.hint)
            _print(session, event, options)

        if dest is not None:
            if isinstance(dest, AzurePlace) and dest.link is not None and is_argument(context, "dest"):
                session.observe(Notice("others on this machine can see the link of DEST: az:// needs none"))
            await checkups.check_hosting(_request(dest, options), hear)
            return
        link = link_of(source) if source else None
        imodel = imodel_of(source) if source and link is None else None
        await checkups.check_service(service_of(options), Selector(imodel, export_type="3DTiles"), link, hear)

    return session.run(work, closing=lambda: _told(unseen))


def _told(unseen: list[str]) -> str:
    """What it comes to where no check failed. `unseen`: what would let it look at what it did not look at."""
    if not unseen:
        return "nothing stands in the way"
    looked = "the pointer stands, and so do the files that were looked at"
    return f"{looked}; no web server was asked, so viewers may still fail: {unseen[0]}"


def _refuse_lost(context: click.Context) -> None:
    for name in ("public_url", "origin"):
        if is_argument(context, name):
            raise UsageError(f"--{name.replace('_', '-')} is about what viewers need of DEST, which is not given")


def _request(dest: Place, options: dict[str, Any]) -> HostingRequest:
    from tilesync.app.requests import Where
    from tilesync.doctor.commands import HostingRequest
    from tilesync.doctor.public_url import given_origin, given_url

    return HostingRequest(
        Where(dest, reach_of(options), options["state_dir"]),
        public=given_url(options["public_url"]) if options["public_url"] else None,
        origin=given_origin(options["origin"]) if options["origin"] else None,
        budget=options["retry_for"],
    )


def _print(session: Session, event: Event, options: dict[str, Any]) -> None:
    """One check for people; with -q only what wants mending."""
    from tilesync.events import Checked

    if not isinstance(event, Checked) or options["as_json"]:
        return
    if options["quiet"] and event.result not in {"warn", "fail"}:
        return
    first, then = f"{MARKS[event.result]:<5} {event.name:<{WIDTH}} ", " " * (WIDTH + 7)
    lines = [wrapped(event.message, first=first, then=then, width=session.width)]
    hints = event.hint.splitlines()
    width = session.width if len(hints) == 1 else None  # several lines are a configuration: to be copied as they are
    lines += [wrapped(line, first="      ", then="      ", width=width) for line in hints]
    session.print("\n".join(lines))


def viewer_place(text: str, endpoint: str | None) -> Place | None:
    """The destination that `link` is asked about; None where it is an iModel id."""
    from tilesync.app.locations import parse_place
    from tilesync.itwin.portal_urls import imodel_in

    if "://" in text and imodel_in(text) is not None:
        return None
    if "://" in text or text.startswith(("az:", "s3:")):
        return parse_place(text, endpoint=endpoint)
    bare = not any(letter in "?&=" for letter in text)
    return Path(text) if bare and ("/" in text or text in {".", ".."} or Path(text).is_dir()) else None
