"""The options that commands share, each with its variable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from tilesync.cli.params import CountOrWordType, DeleteLimitType, DurationType, FilePathType

F = TypeVar("F", bound=Callable[..., Any])


def option(*names: str, **attributes: Any) -> Callable[[F], F]:
    """An option that reads TILESYNC_<OPTION> too."""
    long = next(name for name in names if name.startswith("--")).split("/")[0]
    variable = "TILESYNC_" + long.lstrip("-").replace("-", "_").upper()
    attributes.setdefault("envvar", variable)
    return click.option(*names, **attributes)


def combine_decorators(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several decorators as one, the first outermost."""

    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


IDENTITY_OPTIONS = combine_decorators(
    option(
        "--api-url",
        envvar=["TILESYNC_API_URL", "ITP_API_URL"],
        help="Base URL of the service, if not the public one.",
    ),
    option("--token-file", type=FilePathType(), help="File that holds an access token; read again when it is refused."),
    option("--token-command", help="Command that prints an access token; run again when it is refused."),
)
SERVICE_OPTIONS = combine_decorators(
    IDENTITY_OPTIONS,
    option(
        "--retry-for", type=DurationType(), default="60s", show_default=True, help="How long to bear with failures."
    ),
)

OUTPUT_OPTIONS = combine_decorators(
    option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout."),
    option("-q", "--quiet", is_flag=True, help="Only warnings and errors."),
    option("-v", "--verbose", is_flag=True, help="Every file, retry and renewal."),
    option("--log-file", type=FilePathType(), help="Append every event to this file, as JSON lines."),
)

SELECTION_OPTIONS = combine_decorators(
    option("--changeset-id", help="The export of this changeset."),
    option("--export-id", help="This very export."),
    option("--export-type", default="3DTiles", show_default=True, help="Type of the export."),
    option("--tile-version", help="Only exports compatible with this tile version."),
    option("--itwinjs", help="Only exports compatible with this iTwin.js version."),
    option("--cdn", is_flag=True, help="Bytes through the CDN; the listing goes to the storage directly."),
    option("--poll", type=DurationType(), default="15s", show_default=True, help="How often to look while waiting."),
)

INVENTORY_OPTIONS = combine_decorators(
    option(
        "--inventory",
        type=click.Choice(["auto", "list", "walk"]),
        default="auto",
        show_default=True,
        help="List the container, or walk from its tileset.json; auto walks where listing is denied.",
    ),
    option(
        "--include", multiple=True, metavar="GLOB", help="Only files of this name (`*.glb`, `tiles/**`); repeatable."
    ),
    option("--exclude", multiple=True, metavar="GLOB", help="No files of this name; wins over --include; repeatable."),
    option(
        "--allow-missing",
        is_flag=True,
        envvar=None,
        help="Publish although the tilesets ask for files that are not there, or that lie elsewhere.",
    ),
    option(
        "--allow-shrink",
        is_flag=True,
        envvar=None,
        help="Publish an export with under half the files or bytes, or of which filters leave only the root.",
    ),
)

HISTORY_OPTIONS = combine_decorators(
    option("--all-exports", is_flag=True, help="Every finished export that is not held yet, oldest first."),
    option("--no-publish", is_flag=True, help="Mirror, and leave the pointer where it is."),
    option(
        "--layout",
        type=click.Choice(["versioned", "flat"]),
        default="versioned",
        show_default=True,
        help="Every export in a folder of its own behind a pointer, or the last one at the container's paths.",
    ),
    option(
        "--content",
        type=click.Choice(["stored", "decoded"]),
        default="stored",
        show_default=True,
        help="Folders: files as the container stores them, or those that are gzip unpacked, for any web server.",
    ),
)

ADOPT_OPTION = option(
    "--adopt",
    is_flag=True,
    envvar=None,
    help="Give DEST to SOURCE, though it belongs to another iModel, or holds other files that are not in the way.",
)

RETENTION_OPTIONS = combine_decorators(
    option(
        "--keep-versions",
        type=CountOrWordType("all", max_count=1_000_000),
        envvar=None,
        default="all",
        show_default=True,
        help="Retire all but the newest versions; never the current one or a pinned one.",
    ),
    option(
        "--keep-for",
        type=DurationType(),
        envvar=None,
        default="48h",
        show_default=True,
        help="Retire none that was current so recently: viewers may still stream it.",
    ),
    option("--delete", is_flag=True, envvar=None, help="Flat layout: delete mirrored files that the container lost."),
    option(
        "--max-delete",
        type=DeleteLimitType(),
        envvar=None,
        help="Stop where --delete would delete more files than this, or than this share of them.  [default: 50%]",
    ),
)

STATE_DIR_OPTION = option("--state-dir", type=FilePathType(), help="Where the state is, if not at its usual place.")
AZURE_ENDPOINT_OPTION = option(
    "--azure-endpoint",
    is_eager=True,
    metavar="URL",
    help="Blob service of the account, if not https://ACCOUNT.blob.core.windows.net (sovereign clouds, emulators).",
)
ALLOW_HTTP_OPTION = option(
    "--allow-http",
    is_flag=True,
    help="A store in a network of your own may be reached over plain http: tiles and signatures go in the clear.",
)
STORE_OPTIONS = combine_decorators(
    AZURE_ENDPOINT_OPTION,
    option("--endpoint-url", metavar="URL", help="S3 service, if not Amazon's."),
    ALLOW_HTTP_OPTION,
    option("--dest-link-command", help="Command that prints a fresh link to the container of DEST."),
)
ON_PUBLISH_OPTION = option(
    "--on-publish",
    metavar="COMMAND",
    help="Run this program, without a shell, when the pointer has moved; report on its stdin.",
)
CACHE_OPTIONS = combine_decorators(
    option("--cache-control", metavar="TEXT", help="How long caches keep what lies in a version.  [default: for ever]"),
    option("--pointer-cache-control", metavar="TEXT", help="The same for the pointer.  [default: no-cache]"),
)
NO_PROGRESS_OPTION = option("--no-progress", is_flag=True, help="No bar, and no line a minute.")


def wait_option(default: str) -> Callable[[F], F]:
    """How long a command waits when nothing is finished."""
    return option(
        "--wait", type=DurationType(), default=default, show_default=True, help="How long to wait for an export."
    )
