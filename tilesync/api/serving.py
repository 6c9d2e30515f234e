"""The Python API of the server: serve tilesets until cancelled."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack
from urllib.parse import urlsplit

from tilesync.api.call import Call, OnEvent
from tilesync.api.inputs import SERVE_RETRY_FOR, create_live_request, create_target, refuse_live_options
from tilesync.api.locations import Source, parse_mirror_source, redact_dest
from tilesync.api.monitor import RunMonitor
from tilesync.api.options import LiveArguments, StoreAccessOptions
from tilesync.api.results import RunResult
from tilesync.core.safe_names import make_version_name
from tilesync.errors import UsageError
from tilesync.model import Secret

if TYPE_CHECKING:
    from tilesync.app.live import LiveRequest
    from tilesync.app.requests import Target
    from tilesync.app.serving import ServeRequest, TilesetRequest

ServedSources = Source | Sequence[Source] | Mapping[str, Source]
"""One or more tilesets. A text may be NAME=WHAT; the keys of a mapping are names."""

MAX_PORT = 65_535

MIN_TOKEN_CHARACTERS = 8

_TOKEN_HINT = "`--token auto` makes a good one; without --token and TILESYNC_SERVE_TOKEN everybody may read"  # noqa: S105 - a sentence

_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)=(.+)", re.DOTALL)
_LOCATION_CHARACTERS = frozenset("/\\:?")
_NAME_HINT = "NAME has letters, digits, `.`, `-` and `_`, and begins with a letter or digit: NAME=WHAT"
_RESERVED_NAMES = frozenset({"_tilesync"})


class ServeOptions(StoreAccessOptions, LiveArguments, total=False):
    """Options of the server, and of the access to what it serves: destinations, and live exports."""

    host: str
    """Address to listen on. Default: 127.0.0.1, which only this machine reaches."""
    port: int
    """Port to listen on; 0 chooses a free one. Default: 8000."""
    token: str | Secret | None
    """Secret that each request must have, of 8 characters or more; None lets everybody in."""
    entry_code: str
    """One-time code: `/?code=…` lets one browser in without the token, within a minute from the start."""
    cors_origin: str | Sequence[str]
    """Origins whose pages may read the answers. Default: `*`, all of them."""
    every_request: bool
    """Send a RequestServed event for each request."""


async def serve(
    what: ServedSources,
    *,
    on_event: OnEvent | None = None,
    monitor: RunMonitor | None = None,
    **options: Unpack[ServeOptions],
) -> None:
    """Serve tilesets over HTTP until cancelled: destinations of tilesync in folders and stores, and live exports: an
    iModel id or a container link (better as a Secret). Raises TilesyncError.

    `on_event` gets a Serving event with the URLs when the server listens.
    """
    from tilesync.app import serving

    call = Call(monitor, on_event, None, None)
    with call.run(RunResult):
        request = create_serve_request(what, options)
        await serving.serve(request, call.observe)


def require_server_packages() -> None:
    """Raise UsageError unless the packages of the extra `serve` are installed."""
    from tilesync.serving.server import require_server_packages as require

    require()


def create_serve_request(what: ServedSources, options: ServeOptions) -> ServeRequest:
    """Resolve the arguments of a server into a request. Raises UsageError."""
    from tilesync.app.live import LiveRequest
    from tilesync.app.serving import ServeRequest

    port = options.get("port", 8000)
    if not 0 <= port <= MAX_PORT:
        raise UsageError(f"{port} is not a port", hint=f"give a number up to {MAX_PORT:,}; 0 chooses a free port")
    tilesets = [_create_tileset_request(name, each, options) for name, each in _name_sources(what)]
    _refuse_clashes(tilesets)
    live = [each.what for each in tilesets if isinstance(each.what, LiveRequest)]
    refuse_live_options(options, has_live=bool(live), has_link=any(each.link is not None for each in live))
    if len(tilesets) > 1 and options.get("state_dir"):
        raise UsageError("--state-dir needs a single destination", hint="serve each one by itself, on its own port")
    return ServeRequest(
        tilesets,
        options.get("host", "127.0.0.1"),
        port,
        _check_token(options.get("token")),
        options.get("entry_code", ""),
        _parse_origins(options.get("cors_origin", "*")),
        options.get("every_request", False),
    )


def _name_sources(what: ServedSources) -> Iterator[tuple[str, Source]]:
    """Yield each source with its name; an empty name is to be made from its location."""
    if isinstance(what, Mapping):
        yield from what.items()
        return
    sources: Sequence[Any] = what if isinstance(what, list | tuple) and not hasattr(what, "_fields") else [what]
    if not sources:
        raise UsageError("there is nothing to serve", hint="name a folder that `tilesync mirror` has filled")
    for each in sources:
        yield _split_name(each) if isinstance(each, str) and not os.path.exists(each) else ("", each)


def _split_name(text: str) -> tuple[str, str]:
    """Return the name and the source of NAME=WHAT; an empty name for a location alone. Raises UsageError."""
    if (named := _NAMED.fullmatch(text)) is not None:
        return named[1], named[2]
    name, separator, _ = text.partition("=")
    if not separator or _LOCATION_CHARACTERS.intersection(name):
        return "", text
    problem = (
        f"nothing follows {name}=" if _NAMED.fullmatch(f"{name}=x") else f"{name!r} cannot be the name of a tileset"
    )
    raise UsageError(problem, hint=_NAME_HINT)


def _create_tileset_request(name: str, source: Source, options: ServeOptions) -> TilesetRequest:
    """Create the request for one tileset. Raises UsageError for what is neither a destination nor an export."""
    location = parse_mirror_source(source, options.get("azure_endpoint"))
    if location is None:
        live = create_live_request(source, options)
        link, imodel = live.link, live.selector.imodel or ""
        return _name_tileset(name, link.container_name if link is not None else imodel, live.title, live)
    target = create_target(location, options, retry_for=options.get("retry_for", SERVE_RETRY_FOR))
    title = redact_dest(location) or name
    return _name_tileset(name, title.rstrip("/").rpartition("/")[2], title, target)


def has_live_export(what: ServedSources, azure_endpoint: str | None = None) -> bool:
    """Return whether one of the sources is a live export. Raises UsageError."""
    return any(parse_mirror_source(source, azure_endpoint) is None for _, source in _name_sources(what))


def _name_tileset(name: str, default_name: str, title: str, what: Target | LiveRequest) -> TilesetRequest:
    """Create the request for a tileset with a name that URLs can have. Raises UsageError for another one."""
    from tilesync.app.serving import TilesetRequest

    found = name or make_version_name(default_name)
    if found in _RESERVED_NAMES or make_version_name(found) != found:
        raise UsageError(f"{found!r} cannot be the name of a tileset", hint=_NAME_HINT)
    return TilesetRequest(found, title, what)


def _refuse_clashes(tilesets: Sequence[TilesetRequest]) -> None:
    """Raise UsageError if two tilesets have the same name."""
    titles: dict[str, str] = {}
    for each in tilesets:
        if each.name in titles:
            raise UsageError(
                f"two tilesets have the name {each.name!r}: {titles[each.name]} and {each.title}",
                hint=f"choose another name for one of them: NAME={each.title}",
            )
        titles[each.name] = each.title


def _check_token(token: str | Secret | None) -> str:
    """Return the token, empty for None. Raises UsageError for one that protects nothing, or that no client can send."""
    if token is None:
        return ""
    text = token.text if isinstance(token, Secret) else token
    refused = (
        (not text, "the token is empty, so everybody could read the tiles"),
        (not text.isprintable(), "the token has control characters, which no header can have"),
        (
            len(text) < MIN_TOKEN_CHARACTERS,
            f"the token is shorter than {MIN_TOKEN_CHARACTERS} characters: easy to guess",
        ),
    )
    for is_refused, message in refused:
        if is_refused:
            raise UsageError(message, hint=_TOKEN_HINT)
    return text


def _parse_origins(origins: str | Sequence[str]) -> tuple[str, ...]:
    """Parse the origins whose pages may read the answers. Raises UsageError."""
    found = (origins,) if isinstance(origins, str) else tuple(origins) or ("*",)
    for each in found:
        parts = urlsplit(each)
        if each not in {"*", "null"} and each != f"{parts.scheme}://{parts.netloc}":
            raise UsageError(
                f"{each!r} is not an origin", hint="write scheme and host, without a path: https://viewer.example.com"
            )
    return found
