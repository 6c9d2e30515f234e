"""What a run says: bars, lines, JSON, log. All of them are Observers; people read stderr, programs read stdout."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import singledispatchmethod
from typing import Any

from tilesync.cli.output.masking import Masking
from tilesync.cli.output.streams import Out, say
from tilesync.cli.output.table import cut_front
from tilesync.cli.output.terminal import columns_of
from tilesync.cli.params import explain, printable, size
from tilesync.core.retention import TRASH_FOR
from tilesync.core.wording import files
from tilesync.errors import TilesyncError
from tilesync.events import (
    Deleted,
    Event,
    ExportFailed,
    Failed,
    Finding,
    Notice,
    PageListed,
    Planned,
    PointerStays,
    Remarked,
    Renewed,
    Resolved,
    Retired,
    Retried,
    Reused,
    Stored,
    VersionChosen,
    Waiting,
    Warned,
)

_SHORTEST_NAME = 24
"""Letters of a name that a plan shows at least, however narrow the terminal."""

LISTED = 20
"""Failures and findings that are shown one by one; a report holds them all."""


def say_error(error: TilesyncError) -> None:
    """Tell an error on stderr, as far as that can be written."""
    say(sys.stderr, printable(Masking(os.environ).text(explain(error))) + "\n")


class JsonLines:
    """One flat object a line on stdout."""

    def __init__(self, out: Out, *, verbose: bool) -> None:
        self._out = out
        self._verbose = verbose

    def __call__(self, event: Event) -> None:
        """Say it, but for what only `-v` asks for."""
        if self._verbose or not isinstance(event, Retried | Reused | Stored | Deleted):
            self.write({"kind": event.kind, **asdict(event)})

    def write(self, said: dict[str, Any]) -> None:
        """One line."""
        self._out.write(json.dumps(said, ensure_ascii=False, separators=(",", ":")) + "\n")


class Lines:
    """Sentences on stderr for people; `print_line` keeps clear of a bar."""

    def __init__(self, print_line: Callable[[str], None], *, verbose: bool, quiet: bool, plan_out: Out | None) -> None:
        self._print = print_line
        self._verbose = verbose
        self._quiet = quiet
        self._plan_out = plan_out
        self._failures = 0
        self._waited_for = ""

    def __call__(self, event: Event) -> None:
        """Say it."""
        if not self._quiet or isinstance(event, Failed | Finding | Warned | ExportFailed):
            self.say(event)

    @singledispatchmethod
    def say(self, event: Event) -> None:
        """Events without a sentence of their own are silent."""

    @say.register
    def _(self, event: Resolved) -> None:
        changeset = f", changeset {event.changeset[:12]}" if event.changeset else ""
        modified = f", modified {event.modified}" if event.modified else ""
        self._print(f"export {event.export}{changeset}{modified}")

    @say.register
    def _(self, event: VersionChosen) -> None:
        if event.state == "continued":
            self._print(f"continuing with version {event.version}")

    @say.register
    def _(self, event: Notice) -> None:
        self._print(event.message)

    @say.register
    def _(self, event: PointerStays) -> None:
        self._print(event.message)

    @say.register
    def _(self, event: Warned) -> None:
        self._print(f"warning: {event.message}")

    @say.register
    def _(self, event: Waiting) -> None:
        if event.message != self._waited_for:
            hint = "" if self._waited_for else f"\n  {event.hint}"
            self._print(f"{event.message}; looking again every {event.seconds:.0f} s{hint}")
            self._waited_for = event.message

    @say.register
    def _(self, event: PageListed) -> None:
        if event.complete:
            self._print(f"listed {files(event.files)}, {size(event.bytes)}")

    @say.register
    def _(self, event: Failed) -> None:
        self._one_by_one(f"failed: {event.message}")

    @say.register
    def _(self, event: ExportFailed) -> None:
        self._print(f"export {event.export} failed: {event.message}")

    @say.register
    def _(self, event: Retired) -> None:
        what = f"version {event.version} ({files(event.files)}, {size(event.bytes)})"
        self._print(f"retired {what}: {event.reason}; it lies in the trash for {TRASH_FOR.days} days")

    @say.register
    def _(self, event: Deleted) -> None:
        if self._verbose:
            self._print(f"deleted {event.name} ({size(event.bytes)})")

    @say.register
    def _(self, event: Finding) -> None:
        asked = f"; {event.asked_by} asks for it" if event.asked_by else ""
        self._one_by_one(f"{event.problem}: {event.name} {event.message}{asked}")

    @say.register
    def _(self, event: Remarked) -> None:
        if self._verbose:
            self._print(f"{event.problem}: {event.name}: {event.message}")

    def _one_by_one(self, line: str) -> None:
        self._failures += 1
        if self._failures <= LISTED or self._verbose:
            self._print(line)
        elif self._failures == LISTED + 1:
            self._print("… and more: --report FILE names them all, -v shows them all")

    @say.register
    def _(self, event: Planned) -> None:
        if self._plan_out is not None:
            lead, why = f"{event.action:<6} {size(event.bytes):>10}  ", f"  ({event.reason})"
            width = columns_of(sys.stdout)
            room = len(event.name) if width is None else max(width - len(lead) - len(why), _SHORTEST_NAME)
            self._plan_out.write(f"{lead}{cut_front(event.name, room)}{why}\n")

    @say.register
    def _(self, event: Renewed) -> None:
        if self._verbose:
            self._print(f"link renewed{f', good until {event.expires}' if event.expires else ''}")

    @say.register
    def _(self, event: Retried) -> None:
        if self._verbose:
            again = f"again in {event.seconds:.1f} s" if event.seconds else "again"
            self._print(f"{event.what}: {event.reason}; {again}")

    @say.register
    def _(self, event: Stored) -> None:
        if self._verbose:
            self._print(f"stored {event.name} ({size(event.bytes)})")

    @say.register
    def _(self, event: Reused) -> None:
        if self._verbose:
            self._print(f"reused {event.name} ({size(event.bytes)})")
