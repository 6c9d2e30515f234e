"""What a run says: bars, lines, JSON, log. All of them are Observers; people read stderr, programs read stdout."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import singledispatchmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilesync import __version__
from tilesync.cli.masking import Masking
from tilesync.cli.outfile import open_to_append, replace_file
from tilesync.cli.streams import Out, say
from tilesync.cli.table import cut_front
from tilesync.cli.terminal import columns_of
from tilesync.cli.text import files, size
from tilesync.errors import TilesyncError, UsageError
from tilesync.events import (
    Deleted,
    Event,
    ExportFailed,
    Failed,
    Finding,
    GzipStored,
    Notice,
    Owned,
    PageListed,
    Planned,
    PointerStays,
    Published,
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
from tilesync.jobs.tally import Tally
from tilesync.rules.manifest import stamp
from tilesync.rules.retention import TRASH_FOR

if TYPE_CHECKING:
    pass

_SHORTEST_NAME = 24
"""Letters of a name that a plan shows at least, however narrow the terminal."""

LISTED = 20
"""Failures and findings that are shown one by one; a report holds them all."""


class Summary:
    """Collects what the last line and the report say."""

    def __init__(self, tally: Tally, *, source: str | None = None, dest: str | None = None) -> None:
        self._tally = tally
        self._began = time.monotonic()
        self.owner: str | None = None
        self._started = datetime.now(UTC)
        self.source = source
        self.dest = dest
        self.imodel: str | None = None
        self.export: str | None = None
        self.version: str | None = None
        self.newest: str | None = None
        self.behind = False
        self.published = False
        self.pointed = ""
        self.files = 0
        self.stays = False
        self.state = ""
        self.retired = 0
        self.gzip_files = 0
        self.gzip_endings: tuple[str, ...] = ()
        self.failures: list[dict[str, Any]] = []
        self.remarks: list[dict[str, Any]] = []
        self.warnings: list[str] = []

    def __call__(self, event: Event) -> None:
        """Take note."""
        match event:
            case Owned():
                self.owner = event.owner
            case Resolved():
                self.imodel, self.export = event.imodel, event.export
                self.newest, self.behind = event.newest, event.behind
            case VersionChosen():
                self.version, self.state, self.stays = event.version, event.state, False
            case PointerStays():
                self.stays = True
            case GzipStored():
                self.gzip_files, self.gzip_endings = self.gzip_files + event.files, event.endings
            case Published():
                self.published, self.pointed, self.files = True, event.version, event.files
            case Retired() | Planned(action="retire"):
                self.retired += 1
            case Failed() | Finding() | ExportFailed():
                self.failures.append(asdict(event))
            case Remarked():
                self.remarks.append(asdict(event))
            case Warned():
                self.warnings.append(event.message)

    def seconds(self) -> float:
        """How long the run has taken."""
        return time.monotonic() - self._began

    def finished(self) -> dict[str, Any]:
        """The last line of a run that ended well."""
        return {"kind": "finished", "exit": 0, **self._facts()}

    def failed(self, exit_code: int, error: str, message: str, hint: str) -> dict[str, Any]:
        """The last line of any other run."""
        said = {"kind": "failed", "exit": exit_code, "error": error, "message": message, "hint": hint}
        return {**said, **self._facts()}

    def _facts(self) -> dict[str, Any]:
        tally = self._tally
        return {
            "owner": self.owner,
            "imodel": self.imodel,
            "export": self.export,
            "version": self.version,
            "newest": self.newest,
            "behind": self.behind,
            "listed": tally.listed,
            "fetched": tally.fetched,
            "reused": tally.reused,
            "reused_bytes": tally.reused_bytes,
            "kept": tally.kept,
            "excluded": tally.excluded,
            "failed": tally.failed,
            "deleted": tally.deleted,
            "retired": self.retired,
            "gzip_files": self.gzip_files,
            **asdict(tally.completeness),
            "verified": tally.verified,
            "looked": tally.looked,
            "bytes": tally.bytes,
            "renewals": tally.renewals,
            "retries": tally.retries,
            "seconds": round(self.seconds(), 3),
            "published": self.published,
            "started": stamp(self._started),
            "finished": stamp(datetime.now(UTC)),
            "source": self.source,
            "dest": self.dest,
            "host": socket.gethostname(),
            "tilesync": __version__,
        }


def say_error(error: TilesyncError) -> None:
    """Tell an error on stderr, as far as that can be written."""
    say(sys.stderr, Masking(os.environ).text(explain(error)) + "\n")


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


class LogFile:
    """Every event as a JSON line with its time, appended to a file. One that cannot be written any more is warned of
    once, and ends no run.
    """

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self._path = path
        self._warn = warn
        self._broken = False
        try:
            self._file = open(open_to_append(path, create=True), "a", encoding="utf-8", buffering=1)  # noqa: SIM115
        except OSError as error:
            raise UsageError(
                f"the log file {path} cannot be written ({error.strerror})", hint="check --log-file"
            ) from None

    def __call__(self, event: Event) -> None:
        """Write it down."""
        self.write({"kind": event.kind, **asdict(event)})

    def write(self, said: dict[str, Any]) -> None:
        """One line, with its time."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._guarded(lambda: self._file.write(json.dumps({"time": now, **said}, ensure_ascii=False) + "\n"))

    def close(self) -> None:
        """Let go of the file."""
        self._guarded(self._file.close)

    def _guarded(self, action: Callable[[], object]) -> None:
        if self._broken:
            return
        try:
            action()
        except OSError as error:
            self._broken = True
            self._warn(f"the log file {self._path} cannot be written ({error.strerror}): it ends here")


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


def reported(last: dict[str, Any], summary: Summary) -> dict[str, Any]:
    """The last line with every failure, remark and warning."""
    return {**last, "failures": summary.failures, "remarks": summary.remarks, "warnings": summary.warnings}


def write_report(path: Path, last: dict[str, Any], summary: Summary) -> None:
    """The report, written in one step; where a device or FIFO stands, to that. Raises OSError."""
    data = reported(last, summary)
    text = json.dumps(data, ensure_ascii=False, indent=2) + "\n"
    replace_file(path, text.encode(errors="surrogatepass"))


def failed_to_write(path: Path, error: OSError) -> UsageError:
    """The error of a report that cannot be written."""
    return UsageError(f"the report {path} cannot be written ({error.strerror})", hint="check --report")


def explain(error: TilesyncError) -> str:
    """An error and what to do about it."""
    return f"error: {error}" + (f"\n  {error.hint}" if error.hint else "")
