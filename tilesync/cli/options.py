"""Options that commands share, each with its environment variable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from tilesync.cli.help_groups import GroupedOption, OptionGroup
from tilesync.cli.params import CountOrWordType, DeleteLimitType, DurationType, FilePathType
from tilesync.core.option_values import DEFAULT_POLL, DEFAULT_RETRY_FOR

F = TypeVar("F", bound=Callable[..., Any])


def option(*names: str, group: OptionGroup | None = None, **attributes: Any) -> Callable[[F], F]:
    """Create an option that can also be set by the variable TILESYNC_<OPTION>, and by the config file.

    `group`: its group in --help; None for an option of one command that fits none.
    """
    long = next(name for name in names if name.startswith("--")).split("/")[0]
    variable = "TILESYNC_" + long.lstrip("-").replace("-", "_").upper()
    attributes.setdefault("envvar", variable)
    return click.option(*names, cls=GroupedOption, group=group, **attributes)


def combine_decorators(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Combine several decorators into one; the first is outermost."""

    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


IDENTITY_OPTIONS = combine_decorators(
    option(
        "--api-url",
        group=OptionGroup.IDENTITY,
        envvar=["TILESYNC_API_URL", "ITP_API_URL"],
        help="Base URL of the service, if not the public service.",
    ),
    option(
        "--token-file",
        group=OptionGroup.IDENTITY,
        type=FilePathType(),
        help="File with an access token; read again when the token is refused.",
    ),
    option(
        "--token-command",
        group=OptionGroup.IDENTITY,
        help="Command that prints an access token; run again when the token is refused.",
    ),
)


def retry_option(default: str) -> Callable[[F], F]:
    """Create the option for how long failed requests are retried."""
    return option(
        "--retry-for",
        group=OptionGroup.SPEED,
        type=DurationType(),
        default=default,
        show_default=True,
        help="How long to retry failed requests.",
    )


SERVICE_OPTIONS = combine_decorators(IDENTITY_OPTIONS, retry_option(DEFAULT_RETRY_FOR))


def _silence_dask(_: click.Context, __: click.Parameter, address: str | None) -> str | None:
    """Silence Dask where a cluster is used: it would write tracebacks beside our error."""
    if address is not None:
        import logging

        for name in ("client", "core", "comm.core", "comm.tcp", "nanny", "scheduler", "utils"):
            logging.getLogger(f"distributed.{name}").disabled = True
    return address


CLUSTER_OPTION = option(
    "--cluster",
    callback=_silence_dask,
    group=OptionGroup.SPEED,
    metavar="ADDRESS",
    help="Let the workers of a Dask cluster do it: tcp://HOST:PORT, tls://HOST:PORT, a scheduler file, or local:N.",
)

OUTPUT_OPTIONS = combine_decorators(
    option(
        "--json", "as_json", group=OptionGroup.OUTPUT, is_flag=True, help="Print one JSON object per line on stdout."
    ),
    option("-q", "--quiet", group=OptionGroup.OUTPUT, is_flag=True, help="Print only warnings and errors."),
    option("-v", "--verbose", group=OptionGroup.OUTPUT, is_flag=True, help="Print every file, retry and link renewal."),
    option(
        "--log-file",
        group=OptionGroup.OUTPUT,
        type=FilePathType(),
        help="Append every event to this file as a JSON line.",
    ),
)

MONITORING_OPTIONS = combine_decorators(
    option(
        "--metrics-file",
        group=OptionGroup.MONITORING,
        type=FilePathType(),
        metavar="FILE.prom",
        help="Write metrics to this file at the end, for the textfile collector of Prometheus' node_exporter.",
    ),
    option(
        "--ping",
        group=OptionGroup.MONITORING,
        metavar="URL",
        help="Ping this URL as healthchecks services expect: URL/start, then URL, or URL/fail.",
    ),
    option(
        "--on-success",
        group=OptionGroup.MONITORING,
        metavar="COMMAND",
        help="Run this command, without a shell, after a run that ended well; it gets the report on stdin.",
    ),
    option(
        "--on-failure",
        group=OptionGroup.MONITORING,
        metavar="COMMAND",
        help="Run this command, without a shell, after a run that failed; it gets the report on stdin.",
    ),
)
NAME_OPTION = option(
    "--name",
    group=OptionGroup.MONITORING,
    metavar="NAME",
    help="Name of this mirror in metrics and pings.  [default: DEST]",
)


def poll_option(default: str, help_text: str) -> Callable[[F], F]:
    """Create the option for how often a command looks for an export."""
    return option(
        "--poll", group=OptionGroup.SOURCE, type=DurationType(), default=default, show_default=True, help=help_text
    )


EXPORT_OPTIONS = combine_decorators(
    option("--changeset-id", group=OptionGroup.SOURCE, help="Select the export of this changeset."),
    option("--export-id", group=OptionGroup.SOURCE, help="Select the export with this id."),
    option(
        "--export-type",
        group=OptionGroup.SOURCE,
        default="3DTiles",
        show_default=True,
        help="Select exports of this type.",
    ),
    option("--tile-version", group=OptionGroup.SOURCE, help="Select only exports compatible with this tile version."),
    option("--itwinjs", group=OptionGroup.SOURCE, help="Select only exports compatible with this iTwin.js version."),
    option(
        "--cdn",
        group=OptionGroup.SOURCE,
        is_flag=True,
        help="Use links to the CDN for files; the container is still listed directly.",
    ),
)

SELECTION_OPTIONS = combine_decorators(
    EXPORT_OPTIONS,
    poll_option(DEFAULT_POLL, "How often to look for an export while waiting."),
)

INVENTORY_OPTIONS = combine_decorators(
    option(
        "--inventory",
        group=OptionGroup.SELECTION,
        type=click.Choice(["auto", "list", "walk"]),
        default="auto",
        show_default=True,
        help="List the container, or follow references from tileset.json; auto lists, and walks if listing is denied.",
    ),
    option(
        "--include",
        group=OptionGroup.SELECTION,
        multiple=True,
        metavar="GLOB",
        help="Mirror only files whose name matches (`*.glb`, `tiles/**`); repeatable.",
    ),
    option(
        "--exclude",
        group=OptionGroup.SELECTION,
        multiple=True,
        metavar="GLOB",
        help="Leave out files whose name matches, even if --include matches too; repeatable.",
    ),
    option(
        "--allow-missing",
        group=OptionGroup.PUBLISHING,
        is_flag=True,
        envvar=None,
        help="Publish even if files that the tilesets reference are missing, or are outside the container.",
    ),
    option(
        "--allow-shrink",
        group=OptionGroup.PUBLISHING,
        is_flag=True,
        envvar=None,
        help="Publish an export even if it has less than half the files or bytes, or filters leave only its root.",
    ),
)

HISTORY_OPTIONS = combine_decorators(
    option(
        "--all-exports",
        group=OptionGroup.SELECTION,
        is_flag=True,
        help="Mirror every finished export that DEST does not have yet, oldest first.",
    ),
    option("--no-publish", group=OptionGroup.PUBLISHING, is_flag=True, help="Mirror, but do not move the pointer."),
    option(
        "--layout",
        group=OptionGroup.DESTINATION,
        type=click.Choice(["versioned", "flat"]),
        default="versioned",
        show_default=True,
        help="One folder per export and a pointer to the current one, or only the last export without a pointer.",
    ),
    option(
        "--content",
        group=OptionGroup.DESTINATION,
        type=click.Choice(["stored", "decoded"]),
        default="stored",
        show_default=True,
        help="For a folder: keep gzip files as stored, or decode them so that any web server can serve them.",
    ),
)

ADOPT_OPTION = option(
    "--adopt",
    group=OptionGroup.DESTINATION,
    is_flag=True,
    envvar=None,
    help="Use DEST for SOURCE even if it belongs to another iModel, or has other files that do not conflict.",
)

RETENTION_OPTIONS = combine_decorators(
    option(
        "--keep-versions",
        group=OptionGroup.RETENTION,
        type=CountOrWordType("all", max_count=1_000_000),
        envvar=None,
        default="all",
        show_default=True,
        help="Keep this many of the newest versions and retire the rest, but never the current or a pinned version.",
    ),
    option(
        "--keep-for",
        group=OptionGroup.RETENTION,
        type=DurationType(),
        envvar=None,
        default="48h",
        show_default=True,
        help="Do not retire a version that was current within this time: viewers may still load it.",
    ),
    option(
        "--delete",
        group=OptionGroup.RETENTION,
        is_flag=True,
        envvar=None,
        help="Flat layout: delete mirrored files that are no longer in the container.",
    ),
    option(
        "--max-delete",
        group=OptionGroup.RETENTION,
        type=DeleteLimitType(),
        envvar=None,
        help="Stop if --delete would delete more files than this number or percentage.  [default: 50%]",
    ),
)

STATE_DIR_OPTION = option(
    "--state-dir",
    group=OptionGroup.DESTINATION,
    type=FilePathType(is_folder=True),
    help="Folder for the state of DEST, if not the default.",
)
AZURE_ENDPOINT_OPTION = option(
    "--azure-endpoint",
    group=OptionGroup.DESTINATION,
    is_eager=True,
    metavar="URL",
    help="Blob service of the account, if not https://ACCOUNT.blob.core.windows.net (sovereign clouds, emulators).",
)
ALLOW_HTTP_OPTION = option(
    "--allow-http",
    group=OptionGroup.DESTINATION,
    is_flag=True,
    help="Allow plain http to a store in your own network: tiles and signatures are not encrypted.",
)
STORE_OPTIONS = combine_decorators(
    AZURE_ENDPOINT_OPTION,
    option(
        "--endpoint-url", group=OptionGroup.DESTINATION, metavar="URL", help="URL of the S3 service, if not Amazon S3."
    ),
    ALLOW_HTTP_OPTION,
    option(
        "--dest-link-command",
        group=OptionGroup.DESTINATION,
        help="Command that prints a fresh link to the container of DEST.",
    ),
)
ON_PUBLISH_OPTION = option(
    "--on-publish",
    group=OptionGroup.PUBLISHING,
    metavar="COMMAND",
    help="Run this command, without a shell, after the pointer has moved; it gets the report on stdin.",
)
CACHE_OPTIONS = combine_decorators(
    option(
        "--cache-control",
        group=OptionGroup.PUBLISHING,
        metavar="TEXT",
        help="Cache-Control of the files in a version.  [default: immutable]",
    ),
    option(
        "--pointer-cache-control",
        group=OptionGroup.PUBLISHING,
        metavar="TEXT",
        help="Cache-Control of the pointer.  [default: no-cache]",
    ),
)
NO_PROGRESS_OPTION = option(
    "--no-progress",
    group=OptionGroup.OUTPUT,
    is_flag=True,
    help="Show no progress bar, and print no line every minute.",
)


def wait_option(default: str) -> Callable[[F], F]:
    """Create the option for how long a command waits for a finished export."""
    return option(
        "--wait",
        group=OptionGroup.SOURCE,
        type=DurationType(),
        default=default,
        show_default=True,
        help="How long to wait for an export.",
    )
