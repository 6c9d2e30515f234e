"""Options of live exports, and their request: an iModel id or a container link that is served."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from tilesync.api.inputs import DEFAULT_WAIT, create_selector, create_service
from tilesync.api.locations import Source, parse_source_link
from tilesync.api.options import SelectionOptions, ServiceOptions
from tilesync.errors import UsageError
from tilesync.model import Secret

if TYPE_CHECKING:
    from tilesync.app.live import LiveRequest

SERVE_RETRY_FOR = timedelta(seconds=10)
"""How long requests are retried: a viewer does not wait longer."""

DEFAULT_FOLLOW_POLL = timedelta(seconds=60)
DEFAULT_CACHE_BYTES = 256 << 20


class LiveArguments(ServiceOptions, SelectionOptions, total=False):
    """Options of the export that is served: which one, how its service is reached, and how much memory it may take."""

    link_command: str | None
    """Command that prints a fresh container link when a link is served."""
    follow: bool
    """Take up a newer export when it is finished, looked for every `poll` (default: 60 s)."""
    cache_size: int
    """Bytes of memory for files of live exports. Default: 256 MB."""


def create_live_request(source: Source, options: LiveArguments) -> LiveRequest:
    """Create the request for a live export. Raises UsageError for what is neither a link nor an iModel id."""
    from tilesync.app.live import LiveRequest

    text = source.text if isinstance(source, Secret) else str(source)
    link = parse_source_link(text, is_secret=isinstance(source, Secret))
    selector = create_selector(None if link is not None else text, options)
    service: ServiceOptions = {
        "auth": options.get("auth"),
        "api_url": options.get("api_url"),
        "retry_for": options.get("retry_for", SERVE_RETRY_FOR),
    }
    request = LiveRequest(
        create_service(service),
        selector,
        link,
        (options.get("link_command") or None) if link is not None else None,
        cdn=options.get("cdn", False),
        wait=options.get("wait", DEFAULT_WAIT),
        follow=options.get("follow", False),
        poll=options.get("poll", DEFAULT_FOLLOW_POLL),
        cache_bytes=options.get("cache_size", DEFAULT_CACHE_BYTES),
        title=(link.base if link is not None else selector.imodel) or "",
    )
    request.check()
    return request


def refuse_live_options(options: LiveArguments, *, has_live: bool, has_link: bool) -> None:
    """Raise UsageError for options of live exports that would have no effect."""
    refused = (
        (
            options.get("follow") and not has_live,
            "--follow is for live exports: the server of a mirror always shows what its pointer names",
        ),
        (options.get("link_command") and not has_link, "--link-command needs a container link to serve"),
    )
    for is_refused, message in refused:
        if is_refused:
            raise UsageError(message, hint="leave the option out, or serve an iModel id or a container link")
