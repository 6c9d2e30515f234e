"""Monitor a run: live counts, the last JSON line, and the report."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from tilesync import __version__
from tilesync.api.masking import SecretMasker
from tilesync.api.results import RunCounts, RunResult
from tilesync.core.manifest import format_timestamp
from tilesync.core.wording import format_count
from tilesync.errors import Interrupted, TilesyncError
from tilesync.events import (
    DiagnosticReported,
    Event,
    ExportFailed,
    ExportResolved,
    FileFailed,
    Finding,
    GzipStored,
    OwnerIdentified,
    Planned,
    PointerKept,
    VersionChosen,
    VersionPacked,
    VersionPublished,
    VersionRetired,
    Warned,
)
from tilesync.jobs.run.stats import RunStats as RunStats
from tilesync.jobs.versions.run_history import RunRecording
from tilesync.model.history import MirrorHistory, RunRecord

R = TypeVar("R", bound=RunResult)

MAX_RECORDED_CHARS = 500
"""Maximum characters of the message and of the hint of a run in the history, which must stay small."""

MAX_RECORDED_WARNINGS = 1000
"""Warnings that are kept: a server may run for months."""


class RunMonitor:
    """Collects the events of a run. `stats` are its counts, updated with each event, to show progress."""

    def __init__(self, *, source: str | None = None, dest: str | None = None) -> None:
        self.stats = RunStats()
        self.source = source
        self.dest = dest
        self.more_facts: dict[str, Any] = {}
        """Facts that the command adds to the last line of a successful run."""
        self.success_exit = 0
        """Exit code of a successful run."""
        self.dry_run = False
        """True if nothing is written: the counts are those of a plan."""
        self.owner: str | None = None
        self.imodel: str | None = None
        self.export: str | None = None
        self.version: str | None = None
        self.newest: str | None = None
        self.newest_modified = ""
        self.is_behind = False
        self.history: MirrorHistory | None = None
        """History of the destination, with this run once it is recorded; None until then."""
        self.published = False
        self.published_version = ""
        self.published_files = 0
        self.is_pointer_kept = False
        self.state = ""
        self.packed: VersionPacked | None = None
        self.retired_versions = 0
        self.gzip_files = 0
        self.gzip_endings: tuple[str, ...] = ()
        self.failures: list[FileFailed | Finding | ExportFailed] = []
        self.diagnostics: list[DiagnosticReported] = []
        self._warnings: list[str] = []
        self._more_warnings = 0
        self._masker = SecretMasker(os.environ)
        self._lock = threading.RLock()
        self._began = time.monotonic()
        self._started = datetime.now(UTC)

    def record(self, event: Event) -> Event:
        """Record an event and return it without secrets. Thread-safe."""
        event = self._masker.mask_event(event)
        with self._lock:
            self.stats(event)
            self._store_facts(event)
        return event

    def _store_facts(self, event: Event) -> None:
        match event:
            case OwnerIdentified():
                self.owner = event.owner
            case ExportResolved():
                self.imodel, self.export = event.imodel, event.export
                self.newest, self.newest_modified, self.is_behind = event.newest, event.newest_modified, event.behind
            case VersionChosen():
                self.version, self.state, self.is_pointer_kept = event.version, event.state, False
            case PointerKept():
                self.is_pointer_kept = True
            case GzipStored():
                self.gzip_files, self.gzip_endings = self.gzip_files + event.files, event.endings
            case VersionPublished():
                self.published, self.published_version, self.published_files = True, event.version, event.files
            case VersionPacked():
                self.packed = event
            case VersionRetired() | Planned(action="retire"):
                self.retired_versions += 1
            case FileFailed() | Finding() | ExportFailed():
                self.failures.append(event)
            case DiagnosticReported():
                self.diagnostics.append(event)
            case Warned():
                self._record_warning(event.message)

    def _record_warning(self, message: str) -> None:
        if len(self._warnings) < MAX_RECORDED_WARNINGS:
            self._warnings.append(message)
        else:
            self._more_warnings += 1

    @property
    def warnings(self) -> list[str]:
        """The first warnings, and a sentence that counts the further ones, if there are any."""
        further = format_count(self._more_warnings, "further warning")
        return [*self._warnings, f"{further} came later"] if self._more_warnings else list(self._warnings)

    def mask(self, error: TilesyncError) -> TilesyncError:
        """Mask secrets in the message and hint of an error; return the error."""
        error.args = (self._masker.mask_text(str(error)), *error.args[1:])
        error.hint = self._masker.mask_text(error.hint)
        return error

    def mask_text(self, text: str) -> str:
        """Return the text without secrets."""
        return self._masker.mask_text(text)

    def restart_clock(self) -> None:
        """Count the seconds of the run from now on, since it has waited for its turn until now."""
        self._began, self._started = time.monotonic(), datetime.now(UTC)

    def elapsed_seconds(self) -> float:
        """Return the seconds since the run began."""
        return time.monotonic() - self._began

    def counts(self) -> RunCounts:
        """Return the current counts."""
        stats = self.stats
        return RunCounts(
            listed=stats.listed,
            fetched=stats.fetched,
            reused=stats.reused,
            reused_bytes=stats.reused_bytes,
            kept=stats.kept,
            excluded=stats.excluded,
            failed=stats.failed,
            deleted=stats.deleted,
            retired=self.retired_versions,
            gzip_files=self.gzip_files,
            **asdict(stats.completeness),
            verified=stats.verified,
            looked=stats.presence_checked,
            bytes=stats.transferred_bytes,
            renewals=stats.renewals,
            retries=stats.retries,
        )

    def result(self, kind: type[R], error: TilesyncError | None = None, **fields: Any) -> R:
        """Return the result of the run so far."""
        line = self.finished_line() if error is None else self.failed_line(error)
        return kind(
            error=error,
            source=self.source,
            dest=self.dest,
            owner=self.owner,
            stats=self.counts(),
            seconds=line["seconds"],
            started=self._started,
            finished=datetime.now(UTC),
            failures=tuple(self.failures),
            diagnostics=tuple(self.diagnostics),
            warnings=tuple(self.warnings),
            line=line,
            **fields,
        )

    def mirror_fields(self) -> dict[str, Any]:
        """Return the fields that a MirrorResult adds to a RunResult."""
        return {
            "imodel": self.imodel,
            "export": self.export,
            "version": self.version,
            "newest": self.newest,
            "behind": self.is_behind,
            "published": self.published,
        }

    def finished_line(self) -> dict[str, Any]:
        """Return the last line of a successful run."""
        return {"kind": "finished", "exit": self.success_exit, **self._facts(), **self.more_facts}

    def failed_line(
        self,
        error: TilesyncError | None = None,
        *,
        exit_code: int = 1,
        name: str = "",
        message: str = "",
        hint: str = "",
    ) -> dict[str, Any]:
        """Return the last line of a failed run: from an error of tilesync, or from the other arguments."""
        if error is not None:
            exit_code, name, message, hint = error.exit_code, type(error).__name__, str(error), error.hint
        failure = {"exit": exit_code, "error": name, "message": self.mask_text(message), "hint": self.mask_text(hint)}
        return {"kind": "failed", **failure, **self._facts()}

    def make_recording(self) -> RunRecording:
        """Make the record of this run for the history of its destination."""

        def describe_end(error: BaseException | None) -> RunRecord:
            record = self.record_of_line(self.finished_line() if error is None else self._failed_line_of(error))
            return replace(record, message=record.message[:MAX_RECORDED_CHARS], hint=record.hint[:MAX_RECORDED_CHARS])

        return RunRecording(_format_precisely(self._started), describe_end, self._keep_history)

    def _keep_history(self, history: MirrorHistory) -> None:
        self.history = history

    def _failed_line_of(self, error: BaseException) -> dict[str, Any]:
        if isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
            error = Interrupted("interrupted")
        if isinstance(error, TilesyncError):
            return self.failed_line(error)
        return self.failed_line(name=type(error).__name__, message="this is a bug in tilesync")

    def _facts(self) -> dict[str, Any]:
        counts = asdict(self.counts())
        return {
            "owner": self.owner,
            "imodel": self.imodel,
            "export": self.export,
            "version": self.version,
            "newest": self.newest,
            "behind": self.is_behind,
            **counts,
            "seconds": round(self.elapsed_seconds(), 3),
            "published": self.published,
            **({"dry_run": True} if self.dry_run else {}),
            **self._package_facts(),
            "started": format_timestamp(self._started),
            "finished": format_timestamp(datetime.now(UTC)),
            "source": self.source,
            "dest": self.dest,
            "host": socket.gethostname(),
            "tilesync": __version__,
        }

    def _package_facts(self) -> dict[str, Any]:
        """Return the fields of a package, if this run has written one."""
        if self.packed is None:
            return {}
        names = "files", "package", "format", "package_bytes"
        return {name: getattr(self.packed, name) for name in names}

    def record_of_run(self, error: TilesyncError | None = None) -> RunRecord:
        """Return the record of the run for the history, as if it ended now: well, or with an error."""
        return self.record_of_line(self.finished_line() if error is None else self.failed_line(error))

    def record_of_line(self, line: Mapping[str, Any]) -> RunRecord:
        """Return the record of the run for the history, from its last line. It always has the same `started`."""
        names = {each.name for each in fields(RunRecord)}
        known = {name: value for name, value in line.items() if name in names}
        known |= {"started": _format_precisely(self._started), "finished": _format_precisely(datetime.now(UTC))}
        return RunRecord(**known, newest_modified=self.newest_modified)

    def report(self, line: dict[str, Any]) -> dict[str, Any]:
        """Return the last line with every failure, diagnostic and warning, as --report writes it."""
        return {
            **line,
            "failures": [asdict(each) for each in self.failures],
            "remarks": [asdict(each) for each in self.diagnostics],
            "warnings": self.warnings,
        }


def _format_precisely(moment: datetime) -> str:
    """Format a time in milliseconds, since two runs may begin within one second."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
