"""`tilesync serve` and `tilesync view`: an HTTP server for tilesets, with a viewer page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tilesync.cli.help_groups import OptionGroup, command
from tilesync.cli.options import (
    EXPORT_OPTIONS,
    IDENTITY_OPTIONS,
    OUTPUT_OPTIONS,
    STATE_DIR_OPTION,
    STORE_OPTIONS,
    combine_decorators,
    option,
    poll_option,
    retry_option,
    wait_option,
)
from tilesync.cli.params import SizeType, SourceType
from tilesync.cli.parse import (
    create_session,
    is_on_command_line,
    read_source,
    selection_options,
    service_options,
    store_options,
)
from tilesync.core.option_values import DEFAULT_CACHE_SIZE, DEFAULT_FOLLOW_POLL, DEFAULT_WAIT, SERVE_RETRY_FOR
from tilesync.values import dataclass

if TYPE_CHECKING:
    import webbrowser

    from tilesync.api.options import LiveArguments
    from tilesync.api.serving import ServeOptions
    from tilesync.cli.session import Session
    from tilesync.events import Event, Serving

F = TypeVar("F", bound=Callable[..., Any])

AGAIN_HINT = "start the server again"

LIVE_OPTIONS = (
    *("changeset_id", "export_id", "export_type", "tile_version", "itwinjs", "cdn", "poll", "wait", "cache_size"),
    *("api_url", "token_file", "token_command"),
)
"""Options that only live exports need."""

AUTO_TOKEN = "auto"  # noqa: S105 - a word for the option
TOKEN_BYTES = 16
TOKEN_VARIABLE = "TILESYNC_SERVE_TOKEN"  # noqa: S105 - a name

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
        envvar=TOKEN_VARIABLE,
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
    EXPORT_OPTIONS,
    poll_option(DEFAULT_FOLLOW_POLL, "How often to look for a newer export with --follow."),
    wait_option(DEFAULT_WAIT),
    option(
        "--link-command",
        group=OptionGroup.SOURCE,
        help="Command that prints a fresh container link when a link is served.",
    ),
    option(
        "--follow",
        group=OptionGroup.SOURCE,
        is_flag=True,
        help="Of a live export: take up a newer one when it is finished.",
    ),
    option(
        "--cache-size",
        group=OptionGroup.SPEED,
        type=SizeType(),
        metavar="SIZE",
        default=DEFAULT_CACHE_SIZE,
        show_default=True,
        help="Memory for the files of live exports.",
    ),
    STATE_DIR_OPTION,
    STORE_OPTIONS,
    IDENTITY_OPTIONS,
    retry_option(SERVE_RETRY_FOR),
    OUTPUT_OPTIONS,
)


@command(short_help="Serve tilesets over HTTP, with a viewer page.")
@click.argument("what", nargs=-1, required=True, envvar="TILESYNC_SOURCE", type=SourceType())
@option("--open", "open_page", is_flag=True, envvar=None, help="Open the viewer page in the browser.")
@_SERVE_OPTIONS
def serve(what: tuple[str, ...], *, open_page: bool, **options: Any) -> int:
    """Serve each WHAT over HTTP until Ctrl-C: a folder, az://… or s3://… that tilesync has filled, a package, or a live
    export.

    The root tileset is at /tileset.json, and a viewer page at /. Several WHAT are below their names: NAME=WHAT chooses
    a name. Only this machine reaches the server, unless --host says otherwise.

    A live export is named by an iModel id or a container link (pass a link on standard input, `-`, or in
    TILESYNC_SOURCE). Its address stays the same while the links behind it are renewed; nothing is stored on disk.
    """
    return run_server(what, options, open_page=open_page, live=live_options(options))


@command(short_help="Look at tilesets in the browser.")
@click.argument("what", nargs=-1, required=True, envvar="TILESYNC_SOURCE", type=SourceType())
@_SERVE_OPTIONS
def view(what: tuple[str, ...], **options: Any) -> int:
    """Serve each WHAT, as `tilesync serve` does, and open the viewer page in the browser."""
    return run_server(what, options, open_page=True, live=live_options(options))


def live_options(options: dict[str, Any]) -> LiveArguments:
    """Return the options of live exports."""
    return {
        **service_options(options),
        **selection_options(options),
        "link_command": options["link_command"],
        "follow": options["follow"],
        "cache_size": options["cache_size"],
    }


def run_server(
    what: tuple[str | Path, ...], options: dict[str, Any], *, open_page: bool, live: LiveArguments | None = None
) -> int:
    """Serve until a signal, and return the exit code. `live`: options of live exports, if there may be any."""
    import secrets

    from tilesync.errors import TilesyncError
    from tilesync.events import Serving
    from tilesync.monitoring.service_manager import notify_stopping
    from tilesync.runtime.open_files import raise_open_file_limit

    raise_open_file_limit()
    session = create_session(
        {**options, "no_progress": True}, ends_by_signal=True, is_queued=True, interrupted_hint=AGAIN_HINT
    )
    token = secrets.token_urlsafe(TOKEN_BYTES) if options["token"] == AUTO_TOKEN else read_token(options["token"])
    entry_code = secrets.token_urlsafe(TOKEN_BYTES) if token else ""
    pages = Pages(
        token or "",
        entry_code,
        shows_token=options["token"] == AUTO_TOKEN or is_on_command_line(click.get_current_context(), "token"),
        is_token_new=options["token"] == AUTO_TOKEN,
    )
    arguments: ServeOptions = {
        **store_options(options),
        **(live or {}),
        "host": options["host"],
        "port": options["port"],
        "token": token,
        "entry_code": entry_code,
        "cors_origin": options["cors_origin"] or "*",
        "every_request": options["verbose"],
    }

    def show(event: Event) -> None:
        session.show(event)
        if isinstance(event, Serving):
            announce(session, event, pages, open_page=open_page)

    async def work() -> None:
        from tilesync.api import serving

        warn_of_visible_links(session, what)
        sources = [read_source(each) if isinstance(each, str) else each for each in what]
        if live is not None:
            refuse_live_options(sources, options.get("azure_endpoint"))
        try:
            await serving.serve(sources, on_event=show, monitor=session.monitor, **arguments)
        except TilesyncError as error:
            notify_stopping(f"the server failed: {error}")
            raise

    return session.run(work, on_stop=lambda: notify_stopping("the server stops"))


def refuse_live_options(sources: Sequence[Any], azure_endpoint: str | None) -> None:
    """Raise UsageError for options of live exports on the command line that would have no effect."""
    from tilesync.api.serving import has_live_export
    from tilesync.errors import UsageError

    context = click.get_current_context()
    given = [each.opts[0] for each in context.command.params if is_given_in_vain(context, each)]
    if given and not has_live_export(sources, azure_endpoint):
        raise UsageError(
            f"{' and '.join(given)}: only for live exports, and nothing that is served here is one",
            hint="leave the option out, or serve an iModel id or a container link",
        )


def is_given_in_vain(context: click.Context, parameter: click.Parameter) -> bool:
    """Return whether a parameter is an option of live exports that was given on the command line."""
    return parameter.name in LIVE_OPTIONS and is_on_command_line(context, str(parameter.name))


def warn_of_visible_links(session: Session, what: tuple[str | Path, ...]) -> None:
    """Warn of a container link on the command line, where other users can see it."""
    from tilesync.core.masking import looks_like_secret
    from tilesync.events import Notice

    if is_on_command_line(click.get_current_context(), "what") and any(looks_like_secret(str(each)) for each in what):
        session.observe(
            Notice("other users of this machine can see the link: pass it on stdin (-) or in TILESYNC_SOURCE")
        )


def read_token(token: str | None) -> str | None:
    """Return the token; an empty one if the variable is set, but empty, which click takes for not set."""
    import os

    return "" if token is None and TOKEN_VARIABLE in os.environ else token


@dataclass(frozen=True)
class Pages:
    """Addresses of the page: with the token if it may be shown, and with the one-time code for the own browser."""

    token: str = field(repr=False)
    entry_code: str = field(repr=False)
    shows_token: bool
    is_token_new: bool

    def printed(self, page: str) -> str:
        """Return the address to print."""
        from urllib.parse import quote

        return f"{page}?token={quote(self.token, safe='')}" if self.token and self.shows_token else page

    def opened(self, page: str) -> str:
        """Return the address to open in the browser, whose arguments other users can see."""
        return f"{page}?code={self.entry_code}" if self.token else page


def announce(session: Session, event: Serving, pages: Pages, *, open_page: bool) -> None:
    """Print the URLs, tell the service manager, and open the page. Only these lines ever show the token."""
    from tilesync.monitoring.service_manager import notify_ready

    for url in event.urls:
        session.print_message(f"serving {url}")
    # A token that nobody else knows is a result: -q does not hide it.
    print_page = session.print_always if pages.is_token_new else session.print_message
    for page in event.network:
        session.print_message(f"for other machines: {pages.printed(page)}")
    print_page(f"viewer: {pages.printed(event.viewer)} (Ctrl-C ends the server)")
    notify_ready(f"serving {event.viewer}")
    if open_page:
        open_in_browser(session, pages.opened(event.viewer))


def open_in_browser(session: Session, page: str) -> None:
    """Open a page in the browser, without waiting for it."""
    import threading

    def work() -> None:
        browser = find_browser()
        if browser is None or not browser.open(page):
            session.print_message("no browser could be opened: open the address above yourself")

    threading.Thread(target=work, daemon=True, name="tilesync-browser").start()


def find_browser() -> webbrowser.BaseBrowser | None:
    """Return the browser that the variable BROWSER names, or else one of the desktop; None if there is none.

    Browsers of the terminal, which Python chooses where there is no desktop, cannot draw tiles.
    """
    import os
    import webbrowser

    try:
        found = webbrowser.get()
    except webbrowser.Error:
        return None
    is_of_terminal = type(found) is webbrowser.GenericBrowser and not os.environ.get("BROWSER")
    return None if is_of_terminal else found
