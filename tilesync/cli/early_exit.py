"""Errors before a session exists (usage errors, bugs, signals): report them on stderr, in JSON and in the report."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from tilesync.api.locations import redact_dest, redact_source
from tilesync.api.monitor import RunMonitor
from tilesync.cli.config_file import read_command_values
from tilesync.cli.output.path_checks import OutputFiles, find_local_folders
from tilesync.cli.output.report import report_write_error, write_report
from tilesync.cli.output.reporters import JsonLinesWriter, print_error
from tilesync.cli.output.streams import StdoutWriter
from tilesync.errors import TilesyncError, UsageError

_TRUE_WORDS = {"1", "true", "yes", "on", "t", "y"}


def report_early_error(command: click.Group, arguments: list[str], error: TilesyncError, *, kind: str = "") -> int:
    """Write the last JSON line and the report, if requested, for an error outside a session; return the exit code.

    The arguments may be the error, so they are only scanned, not parsed. `kind` replaces the name of the error class in
    JSON.
    """
    positionals = list(_positional_arguments(command, arguments))
    source, dest = (
        _argument_or_variable(positionals, 0, "TILESYNC_SOURCE"),
        _argument_or_variable(positionals, 1, "TILESYNC_DEST"),
    )
    if arguments[:1] in (["verify"], ["status"]):
        source, dest = None, _argument_or_variable(positionals, 0, "TILESYNC_DEST")
    elif arguments[:1] == ["fleet"]:
        source, dest = _argument_or_variable(positionals, 0, "TILESYNC_FLEET"), None
    monitor = _create_monitor(arguments, source, dest)
    config = _read_config_values(command, arguments)
    monitor.dry_run = arguments[:1] == ["mirror"] and _is_dry_run(arguments, config)
    line = monitor.failed_line(error)
    line["error"] = kind or line["error"]
    if "--json" in arguments or _is_set("TILESYNC_JSON", config.get("as_json")):
        JsonLinesWriter(StdoutWriter(), verbose=False).write(line)
    if (path := _find_report_path(command, arguments, config)) is not None:
        places = (*positionals, *(os.environ.get(name) for name in ("TILESYNC_SOURCE", "TILESYNC_DEST")))
        log_file, state_dir = (_find_option_path(arguments, option, config) for option in ("--log-file", "--state-dir"))
        fleet_file = Path(source) if arguments[:1] == ["fleet"] and source else None
        try:
            OutputFiles(path, log_file, find_local_folders(places), state_dir, fleet_file=fleet_file).check()
            write_report(path, line, monitor)
        except UsageError as refusal:
            if str(refusal) != str(error):  # printed already
                print_error(refusal)
        except OSError as write_error:
            print_error(report_write_error(path, write_error))
    return error.exit_code


def _create_monitor(arguments: list[str], source: str | None, dest: str | None) -> RunMonitor:
    """Create the monitor that makes the last line and the report: for a fleet they are other ones."""
    if arguments[:1] == ["fleet"]:
        from tilesync.fleets.monitor import FleetMonitor

        return FleetMonitor(redact_source(source) or "")
    return RunMonitor(source=redact_source(source), dest=redact_dest(dest))


def _read_config_values(group: click.Group, arguments: list[str]) -> dict[str, Any]:
    """Return the values of the config file for the command; none if the file has a mistake, maybe the error itself."""
    name = arguments[0] if arguments and arguments[0] in group.commands else ""
    try:
        return {key: each.value for key, each in read_command_values(group, name, os.environ).items()}
    except UsageError:
        return {}


def _is_dry_run(arguments: list[str], config: dict[str, Any]) -> bool:
    return not {"-n", "--dry-run"}.isdisjoint(arguments) or _is_set("TILESYNC_DRY_RUN", config.get("dry_run"))


def _is_set(variable: str, configured: object) -> bool:
    text = os.environ.get(variable, "")
    return text.lower() in _TRUE_WORDS if text else bool(configured)


def _find_report_path(group: click.Group, arguments: list[str], config: dict[str, Any]) -> Path | None:
    """Return the path of --report for commands that write one, and for an unknown (maybe misspelled) command."""
    if arguments[:1] not in (["mirror"], ["verify"], ["fleet"]) and set(arguments[:1]) <= set(group.commands):
        return None
    return _find_option_path(arguments, "--report", config)


def _find_option_path(arguments: list[str], option: str, config: dict[str, Any]) -> Path | None:
    """Return the path from an option, its variable or the config file; None if it is a URL, a dash, or not given."""
    name = option.lstrip("-").replace("-", "_")
    path = os.environ.get(f"TILESYNC_{name.upper()}") or str(config.get(name, ""))
    for index, word in enumerate(arguments):
        if word == "--":
            break
        if word == option and index + 1 < len(arguments):
            path = arguments[index + 1]
        elif word.startswith(f"{option}="):
            path = word.partition("=")[2]
    return Path(path) if path.strip() not in {"", "-"} and "://" not in path else None


def _positional_arguments(group: click.Group, arguments: list[str]) -> Iterator[str]:
    """Yield the arguments after the command that are neither options nor their values."""
    command = group.commands.get(arguments[0]) if arguments else None
    options_with_value = {
        name
        for option in (command.params if command is not None else [])
        if isinstance(option, click.Option) and not option.is_flag
        for name in option.opts
    }
    rest = iter(arguments[1:] if command is not None else ())
    for word in rest:
        if word == "--":
            yield from rest
        elif word in options_with_value:
            next(rest, None)
        elif word == "-" or not word.startswith("-"):
            yield word


def _argument_or_variable(words: list[str], index: int, variable: str) -> str | None:
    return words[index] if index < len(words) else os.environ.get(variable)
