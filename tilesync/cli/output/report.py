"""Run report: the last JSON line of a run, and the report file (`--report`) with every failure."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tilesync import __version__
from tilesync.cli.output.atomic_file import replace_file
from tilesync.core.manifest import format_timestamp
from tilesync.errors import UsageError
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
    VersionPublished,
    VersionRetired,
    Warned,
)
from tilesync.jobs.run.stats import RunStats


class RunSummary:
    """Observer that collects the content of the last line and of the report."""

    def __init__(self, stats: RunStats, *, source: str | None = None, dest: str | None = None) -> None:
        self._stats = stats
        self._start_monotonic_s = time.monotonic()
        self.dry_run = False
        """True if nothing was changed and the counts are those of a plan."""
        self.owner: str | None = None
        self._started_at = datetime.now(UTC)
        self.source = source
        self.dest = dest
        self.imodel: str | None = None
        self.export: str | None = None
        self.version: str | None = None
        self.newest: str | None = None
        self.is_behind = False
        self.published = False
        self.published_version = ""
        self.published_files = 0
        self.is_pointer_kept = False
        self.state = ""
        self.retired_versions = 0
        self.gzip_files = 0
        self.gzip_endings: tuple[str, ...] = ()
        self.failures: list[dict[str, Any]] = []
        self.remarks: list[dict[str, Any]] = []
        self.warnings: list[str] = []

    def __call__(self, event: Event) -> None:
        """Record an event."""
        match event:
            case OwnerIdentified():
                self.owner = event.owner
            case ExportResolved():
                self.imodel, self.export = event.imodel, event.export
                self.newest, self.is_behind = event.newest, event.behind
            case VersionChosen():
                self.version, self.state, self.is_pointer_kept = event.version, event.state, False
            case PointerKept():
                self.is_pointer_kept = True
            case GzipStored():
                self.gzip_files, self.gzip_endings = self.gzip_files + event.files, event.endings
            case VersionPublished():
                self.published, self.published_version, self.published_files = True, event.version, event.files
            case VersionRetired() | Planned(action="retire"):
                self.retired_versions += 1
            case FileFailed() | Finding() | ExportFailed():
                self.failures.append(asdict(event))
            case DiagnosticReported():
                self.remarks.append(asdict(event))
            case Warned():
                self.warnings.append(event.message)

    def elapsed_seconds(self) -> float:
        """Return the seconds since the run began."""
        return time.monotonic() - self._start_monotonic_s

    def build_finished_line(self) -> dict[str, Any]:
        """Build the last line of a run that succeeded."""
        return {"kind": "finished", "exit": 0, **self._common_fields()}

    def build_failed_line(self, exit_code: int, error: str, message: str, hint: str) -> dict[str, Any]:
        """Build the last line of a run that failed."""
        outcome = {"kind": "failed", "exit": exit_code, "error": error, "message": message, "hint": hint}
        return {**outcome, **self._common_fields()}

    def _common_fields(self) -> dict[str, Any]:
        stats = self._stats
        return {
            "owner": self.owner,
            "imodel": self.imodel,
            "export": self.export,
            "version": self.version,
            "newest": self.newest,
            "behind": self.is_behind,
            "listed": stats.listed,
            "fetched": stats.fetched,
            "reused": stats.reused,
            "reused_bytes": stats.reused_bytes,
            "kept": stats.kept,
            "excluded": stats.excluded,
            "failed": stats.failed,
            "deleted": stats.deleted,
            "retired": self.retired_versions,
            "gzip_files": self.gzip_files,
            **asdict(stats.completeness),
            "verified": stats.verified,
            "looked": stats.presence_checked,
            "bytes": stats.transferred_bytes,
            "renewals": stats.renewals,
            "retries": stats.retries,
            "seconds": round(self.elapsed_seconds(), 3),
            "published": self.published,
            **({"dry_run": True} if self.dry_run else {}),
            "started": format_timestamp(self._started_at),
            "finished": format_timestamp(datetime.now(UTC)),
            "source": self.source,
            "dest": self.dest,
            "host": socket.gethostname(),
            "tilesync": __version__,
        }


def build_report(last_line: dict[str, Any], summary: RunSummary) -> dict[str, Any]:
    """Build the report: the last line with every failure, remark and warning."""
    return {**last_line, "failures": summary.failures, "remarks": summary.remarks, "warnings": summary.warnings}


def write_report(path: Path, last_line: dict[str, Any], summary: RunSummary) -> None:
    """Write the report in one step; to a device or FIFO, write directly. Raises OSError."""
    data = build_report(last_line, summary)
    text = json.dumps(data, ensure_ascii=False, indent=2) + "\n"
    replace_file(path, text.encode(errors="surrogatepass"))


def report_write_error(path: Path, error: OSError) -> UsageError:
    """Build the error for a report that cannot be written."""
    return UsageError(f"the report {path} cannot be written ({error.strerror})", hint="check --report")
