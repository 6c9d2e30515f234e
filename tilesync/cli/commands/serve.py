"""`tilesync serve` and `tilesync view`: an HTTP server for tilesets, with a viewer page."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tilesync.cli.help_groups import OptionGroup, command
from tilesync.cli.options import OUTPUT_OPTIONS, STATE_DIR_OPTION, STORE_OPTIONS, combine_decorators, option
from tilesync.cli.params import DurationType, SourceType
from tilesync.cli.parse import create_session, is_on_command_line, store_options
from tilesync.events import Event, Serving

if TYPE_CHECKING:
    from tilesync.api.serving import ServeOptions
    from tilesync.cli.session import Session

F = TypeVar("F", bound=Callable[..., Any])

AUTO_TOKEN = "auto"  # noqa: S105
TOKEN_BYTES = 16

_SERVE_OPTIONS = combine_decorators(
    option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 is all of them."),
    option(
        "--port",
        type=click.IntRange(0, 65_535),
        default=8000,
        show_default=True,
        help="Port to listen on; 0 chooses a free one.",
    ),
    option(
        "--token",
        envvar="TILESYNC_SERVE_TOKEN",
        is_secret=True,
        metavar="TEXT",
        help="Answer only requests with this secret; `auto` makes one. Other users can see it in the arguments.",
    ),
    option(
        "--cors-origin",
        multiple=True,
        metavar="ORIGIN",
        help="Let only pages of this origin read the tiles; repeatable.  [default: all pages]",
    ),
    option(
        "--retry-for",
        group=OptionGroup.SPEED,
        type=DurationType(),
        default="10s",
        show_default=True,
        help="How long to retry failed requests to a store, before the viewer gets an error.",
    ),
    STATE_DIR_OPTION,
    STORE_OPTIONS,
    OUTPUT_OPTIONS,
)


@command(short_help="Serve tilesets over HTTP, with a viewer page.")
@click.argument("what", nargs=-1, required=True, type=SourceType())
@option("--open", "open_page", is_flag=True, envvar=None, help="Open the viewer page in the browser.")
@_SERVE_OPTIONS
def serve(what: tuple[str, ...], *, open_page: bool, **options: Any) -> int:
    """Serve each WHAT over HTTP until Ctrl-C: a folder, az://… or s3://… that tilesync has filled.

    The root tileset is at /tileset.json, and a viewer page at /. Several WHAT are below their names: NAME=WHAT chooses
    a name. Only this machine reaches the server, unless --host says otherwise.
    """
    return run_server(what, options, open_page=open_page)


@command(short_help="Look at tilesets in the browser.")
@click.argument("what", nargs=-1, required=True, type=SourceType())
@_SERVE_OPTIONS
def view(what: tuple[str, ...], **options: Any) -> int:
    """Serve each WHAT, as `tilesync serve` does, and open the viewer page in the browser."""
    return run_server(what, options, open_page=True)


def run_server(what: tuple[str | Path, ...], options: dict[str, Any], *, open_page: bool) -> int:
    """Serve until a signal, and return the exit code."""
    from tilesync.runtime.open_files import raise_open_file_limit

    raise_open_file_limit()
    session = create_session({**options, "no_progress": True}, ends_by_signal=True)
    token = secrets.token_urlsafe(TOKEN_BYTES) if options["token"] == AUTO_TOKEN else options["token"] or ""
    shows_token = options["token"] == AUTO_TOKEN or is_on_command_line(click.get_current_context(), "token")
    arguments: ServeOptions = {
        **store_options(options),
        "retry_for": options["retry_for"],
        "host": options["host"],
        "port": options["port"],
        "token": token,
        "cors_origin": options["cors_origin"] or "*",
        "every_request": options["verbose"] or options["log_file"] is not None,
    }

    def show(event: Event) -> None:
        session.show(event)
        if isinstance(event, Serving):
            announce(session, event, token=token, shows_token=shows_token, open_page=open_page)

    async def work() -> None:
        from tilesync.api import serving

        await serving.serve(list(what), on_event=show, monitor=session.monitor, **arguments)

    return session.run(work)


def announce(session: Session, event: Serving, *, token: str, shows_token: bool, open_page: bool) -> None:
    """Print the URLs, tell the service manager, and open the page. Only these lines ever show the token."""
    from tilesync.monitoring.service_manager import notify_ready

    for url in event.urls:
        session.print_message(f"serving {url}")
    page = f"{event.viewer}?token={token}" if token else event.viewer
    session.print_message(f"viewer: {page if shows_token else event.viewer} (Ctrl-C ends the server)")
    notify_ready(f"serving {event.viewer}")
    if open_page:
        open_in_browser(session, page)


def open_in_browser(session: Session, page: str) -> None:
    """Open a page in the browser, without waiting for it."""
    import threading
    import webbrowser

    def work() -> None:
        if not webbrowser.open(page):
            session.print_message("no browser could be opened: open the address above yourself")

    threading.Thread(target=work, daemon=True, name="tilesync-browser").start()
