"""Convert options of commands to arguments of the Python API, create sessions, read a link from standard input."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from tilesync.cli.environment import find_unknown_variables
from tilesync.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from tilesync.api.auth import Auth
    from tilesync.api.locations import Location, Source
    from tilesync.api.monitor import RunMonitor
    from tilesync.api.options import MirrorArguments, SelectionOptions, ServiceOptions, StoreAccessOptions
    from tilesync.cli.session import DisplayClass, Session
    from tilesync.model import Secret


def create_session(
    options: dict[str, Any],
    *,
    source: str | None = None,
    dest: Location | None = None,
    changes_dest: bool = False,
    is_stepwise: bool = False,
    ends_by_signal: bool = False,
    is_queued: bool = False,
    monitor: RunMonitor | None = None,
    display_class: DisplayClass | None = None,
    fleet_file: Path | None = None,
    completed_hint: str | None = None,
    interrupted_hint: str | None = None,
) -> Session:
    """Create the session of a command from its output options, SOURCE and DEST.

    Of a fleet: `monitor`, `display_class`, `fleet_file`, and the `completed_hint`.

    Raises UsageError for output files that must not be written.
    """
    from tilesync.api.locations import redact_dest, redact_source
    from tilesync.cli.session import COMPLETED_HINT, OutputOptions, Session

    _check_output_files(options, source, dest, fleet_file=fleet_file)
    session = Session(
        OutputOptions(
            json=options["as_json"],
            quiet=options["quiet"],
            verbose=options["verbose"],
            progress=not options.get("no_progress", False),
            log_file=options["log_file"],
            report=options.get("report"),
            source=redact_source(source),
            dest=redact_dest(dest),
            changes_dest=changes_dest,
            is_stepwise=is_stepwise,
            ends_by_signal=ends_by_signal,
            is_queued=is_queued,
            completed_hint=completed_hint or COMPLETED_HINT,
            interrupted_hint=interrupted_hint,
        ),
        monitor=monitor,
        display_class=display_class,
    )
    _warn_of_unknown_variables(session)
    return session


def _check_output_files(
    options: dict[str, Any], source: str | None, dest: Location | None, *, fleet_file: Path | None
) -> None:
    """Raise UsageError for output files that must not be written."""
    from tilesync.cli.output.path_checks import OutputFiles, find_local_folders

    folders = find_local_folders((source, dest))
    state_dir, metrics_file = options.get("state_dir"), options.get("metrics_file")
    OutputFiles(
        options.get("report"), options["log_file"], folders, state_dir, metrics_file, options.get("page"), fleet_file
    ).check()


def _warn_of_unknown_variables(session: Session) -> None:
    from tilesync.events import Warned

    group = click.get_current_context().find_root().command
    for sentence in find_unknown_variables(group, os.environ) if isinstance(group, click.Group) else ():
        session.observe(Warned(sentence))


def create_auth(options: dict[str, Any]) -> Auth:
    """Create the identity from the options and the environment."""
    from tilesync.api.auth import Environment

    return Environment(options["token_file"], options["token_command"] or None)


def service_options(options: dict[str, Any]) -> ServiceOptions:
    """Return the options of the service connection."""
    return {
        "auth": create_auth(options),
        "api_url": options["api_url"] or None,
        "retry_for": options["retry_for"],
    }


def selection_options(options: dict[str, Any]) -> SelectionOptions:
    """Return the options that select an export, and how long to wait for it."""
    return {
        "changeset_id": options["changeset_id"],
        "export_id": options["export_id"],
        "export_type": options["export_type"],
        "tile_version": options["tile_version"],
        "itwinjs": options["itwinjs"],
        "cdn": options["cdn"],
        "wait": options["wait"],
        "poll": options["poll"],
    }


def store_options(options: dict[str, Any]) -> StoreAccessOptions:
    """Return the options of the connection to an object store."""
    return {
        "state_dir": options.get("state_dir"),
        "azure_endpoint": options.get("azure_endpoint"),
        "endpoint_url": options.get("endpoint_url"),
        "allow_http": bool(options.get("allow_http")),
        "dest_link_command": options.get("dest_link_command"),
    }


def mirror_options(options: dict[str, Any]) -> MirrorArguments:
    """Return all options of `mirror`."""
    from tilesync.core.retention import RetentionPolicy

    return {
        **service_options(options),
        **selection_options(options),
        **store_options(options),
        "link_command": options["link_command"],
        "all_exports": options["all_exports"],
        "publish": not options["no_publish"],
        "layout": options["layout"],
        "content": options["content"],
        "inventory": options["inventory"],
        "include": options["include"],
        "exclude": options["exclude"],
        "allow_missing": options["allow_missing"],
        "allow_shrink": options["allow_shrink"],
        "adopt": options["adopt"],
        "retention": RetentionPolicy(options["keep_versions"], options["keep_for"]),
        "delete": options["delete"],
        "max_delete": options["max_delete"],
        "transfers": options["transfers"],
        "bwlimit": options["bwlimit"],
        "create_container": options["create_container"],
        "cache_control": options["cache_control"],
        "pointer_cache_control": options["pointer_cache_control"],
        "server_copy": options["server_copy"],
        "cluster": options["cluster"],
        "every_file": options["verbose"] or options["log_file"] is not None,
    }


def read_source(source: str) -> Source:
    """Return SOURCE unchanged, or for `-` the container link from standard input. Raises UsageError without one."""
    if source != "-":
        return source
    from tilesync.model import Secret

    link = _read_stdin_line()
    if not link:
        raise UsageError("standard input is empty, but SOURCE is -", hint="pipe the container link into tilesync")
    return Secret(link)


def read_diff_side(text: str) -> str | Secret:
    """Return a side of `diff` unchanged, but `latest@-` as the container link from standard input, and `latest@` with
    the SOURCE of its variable. Raises UsageError without one.
    """
    from tilesync.api.diffing import LATEST_OF
    from tilesync.model import Secret

    if not text.startswith(LATEST_OF):
        return text
    source = text.removeprefix(LATEST_OF) or os.environ.get("TILESYNC_SOURCE", "").strip()
    if not source:
        raise UsageError("SOURCE is empty", hint=f"write {LATEST_OF}SOURCE, or set TILESYNC_SOURCE")
    value = read_source(source)
    return value if isinstance(value, Secret) else f"{LATEST_OF}{value}"


def _read_stdin_line() -> str:
    """Read the first line of standard input; empty if there is none. Raises UsageError if it is not UTF-8."""
    try:
        return (sys.stdin.readline() if sys.stdin else "").strip("\ufeff \t\r\n")
    except UnicodeDecodeError:
        raise UsageError("standard input is not UTF-8 text", hint="write the link as plain text in UTF-8") from None


def is_on_command_line(context: click.Context, name: str) -> bool:
    """Return whether a value was given on the command line, where other users can see it."""
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
