"""Observers that print events: messages for people on stderr, JSON lines for programs on stdout."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from functools import singledispatchmethod
from typing import Any

from tilesync.api.masking import SecretMasker
from tilesync.cli.output.streams import StdoutWriter, format_json_line, terminal_columns, write_stream
from tilesync.cli.output.table import truncate_start
from tilesync.cli.params import format_error, format_size, replace_control_characters
from tilesync.core.retention import TRASH_RETENTION
from tilesync.core.wording import format_file_count
from tilesync.errors import TilesyncError
from tilesync.events import (
    DiagnosticReported,
    Event,
    ExportEndangered,
    ExportFailed,
    ExportResolved,
    FileDeleted,
    FileFailed,
    FileReused,
    FileStored,
    Finding,
    LinkRenewed,
    Notice,
    PageListed,
    Planned,
    PointerKept,
    RequestServed,
    Retried,
    VersionChosen,
    VersionRetired,
    Waiting,
    Warned,
)

_MIN_NAME_CHARS = 24
"""Minimum characters of a file name that a plan shows, even in a narrow terminal."""

MAX_LISTED_FAILURES = 20
"""Failures and findings that are printed one by one; the report has all of them."""


def print_error(error: TilesyncError) -> None:
    """Print an error on stderr. A failed write is ignored."""
    write_stream(sys.stderr, replace_control_characters(SecretMasker(os.environ).mask_text(format_error(error))) + "\n")


class JsonLinesWriter:
    """Observer that writes each event as a flat JSON object on a line of stdout."""

    def __init__(self, stdout: StdoutWriter, *, verbose: bool) -> None:
        self._stdout = stdout
        self._verbose = verbose

    def __call__(self, event: Event) -> None:
        """Write an event; events about single files only with `-v`."""
        if self.shows(event):
            self.write({"kind": event.kind, **asdict(event)})

    def shows(self, event: Event) -> bool:
        """Return whether an event is written: those about single files only with `-v`."""
        return self._verbose or not isinstance(event, Retried | FileReused | FileStored | FileDeleted | RequestServed)

    def write(self, line: dict[str, Any]) -> None:
        """Write one line."""
        self._stdout.write(format_json_line(line))


class MessagePrinter:
    """Observer that prints events as sentences for people. `print_line` prints above the progress bar."""

    def __init__(
        self, print_line: Callable[[str], None], *, verbose: bool, quiet: bool, plan_out: StdoutWriter | None
    ) -> None:
        self._print = print_line
        self._verbose = verbose
        self._quiet = quiet
        self._plan_out = plan_out
        self._failure_count = 0
        self._last_wait_message = ""

    def __call__(self, event: Event) -> None:
        """Print an event; with `quiet` only failures and warnings."""
        if not self._quiet or isinstance(event, FileFailed | Finding | Warned | ExportFailed):
            self.print_event(event)

    @singledispatchmethod
    def print_event(self, event: Event) -> None:
        """Print nothing: the default for events without a sentence."""

    @print_event.register
    def _(self, event: ExportResolved) -> None:
        changeset = f", changeset {event.changeset[:12]}" if event.changeset else ""
        modified = f", modified {event.modified}" if event.modified else ""
        self._print(f"export {event.export}{changeset}{modified}")

    @print_event.register
    def _(self, event: ExportEndangered) -> None:
        if self._verbose:
            self._print(event.message)

    @print_event.register
    def _(self, event: VersionChosen) -> None:
        if event.state == "continued":
            self._print(f"continuing with version {event.version}")

    @print_event.register
    def _(self, event: Notice) -> None:
        self._print(event.message)

    @print_event.register
    def _(self, event: PointerKept) -> None:
        self._print(event.message)

    @print_event.register
    def _(self, event: Warned) -> None:
        self._print(f"warning: {event.message}")

    @print_event.register
    def _(self, event: RequestServed) -> None:
        if self._verbose:
            self._print(_format_request(event))

    @print_event.register
    def _(self, event: Waiting) -> None:
        if event.message != self._last_wait_message:
            hint = "" if self._last_wait_message else f"\n  {event.hint}"
            self._print(f"{event.message}; looking again every {event.seconds:.0f} s{hint}")
            self._last_wait_message = event.message

    @print_event.register
    def _(self, event: PageListed) -> None:
        if event.complete:
            self._print(f"listed {format_file_count(event.files)}, {format_size(event.bytes)}")

    @print_event.register
    def _(self, event: FileFailed) -> None:
        self._print_limited(f"failed: {event.message}")

    @print_event.register
    def _(self, event: ExportFailed) -> None:
        self._print(f"export {event.export} failed: {event.message}")

    @print_event.register
    def _(self, event: VersionRetired) -> None:
        version = f"version {event.version} ({format_file_count(event.files)}, {format_size(event.bytes)})"
        self._print(f"retired {version}: {event.reason}; it stays in the trash for {TRASH_RETENTION.days} days")

    @print_event.register
    def _(self, event: FileDeleted) -> None:
        if self._verbose:
            self._print(f"deleted {event.name} ({format_size(event.bytes)})")

    @print_event.register
    def _(self, event: Finding) -> None:
        referrer = f"; {event.asked_by} refers to it" if event.asked_by else ""
        self._print_limited(f"{event.problem}: {event.name} {event.message}{referrer}")

    @print_event.register
    def _(self, event: DiagnosticReported) -> None:
        if self._verbose:
            self._print(f"{event.problem}: {event.name}: {event.message}")

    def _print_limited(self, line: str) -> None:
        self._failure_count += 1
        if self._failure_count <= MAX_LISTED_FAILURES or self._verbose:
            self._print(line)
        elif self._failure_count == MAX_LISTED_FAILURES + 1:
            self._print("… and more: --report FILE writes them all to a file, -v prints them all")

    @print_event.register
    def _(self, event: Planned) -> None:
        if self._plan_out is not None:
            start, reason = f"{event.action:<6} {format_size(event.bytes):>10}  ", f"  ({event.reason})"
            width = terminal_columns(sys.stdout)
            room = len(event.name) if width is None else max(width - len(start) - len(reason), _MIN_NAME_CHARS)
            self._plan_out.write(f"{start}{truncate_start(event.name, room)}{reason}\n")

    @print_event.register
    def _(self, event: LinkRenewed) -> None:
        if self._verbose:
            self._print(f"link renewed{f', valid until {event.expires}' if event.expires else ''}")

    @print_event.register
    def _(self, event: Retried) -> None:
        if self._verbose:
            again = f"again in {event.seconds:.1f} s" if event.seconds else "again"
            self._print(f"{event.what}: {event.reason}; {again}")

    @print_event.register
    def _(self, event: FileStored) -> None:
        if self._verbose:
            self._print(f"stored {event.name} ({format_size(event.bytes)})")

    @print_event.register
    def _(self, event: FileReused) -> None:
        if self._verbose:
            self._print(f"reused {event.name} ({format_size(event.bytes)})")


def _format_request(event: RequestServed) -> str:
    """Format a request as a line of an access log: time, client, method, path, status, bytes, milliseconds."""
    parts = [event.client, event.method, replace_control_characters(event.path), str(event.status)]
    details = [event.cache, f"({event.failure})" if event.failure else ""]
    figures = [f"{event.bytes} B", f"{event.milliseconds:.1f} ms"]
    return " ".join(
        [datetime.now().astimezone().isoformat(timespec="seconds"), *parts, *figures, *filter(None, details)]
    )
