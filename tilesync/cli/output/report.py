"""The report: what the last JSON line of a run says, and the file with every failure that --report names."""

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
from tilesync.core.manifest import stamp
from tilesync.errors import UsageError
from tilesync.events import (
    Event,
    ExportFailed,
    Failed,
    Finding,
    GzipStored,
    Owned,
    Planned,
    PointerStays,
    Published,
    Remarked,
    Resolved,
    Retired,
    VersionChosen,
    Warned,
)
from tilesync.jobs.run.stats import Tally


class Summary:
    """Collects what the last line and the report say."""

    def __init__(self, tally: Tally, *, source: str | None = None, dest: str | None = None) -> None:
        self._tally = tally
        self._began = time.monotonic()
        self.dry_run = False
        """Nothing was done: the counts are those of a plan."""
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
            **({"dry_run": True} if self.dry_run else {}),
            "started": stamp(self._started),
            "finished": stamp(datetime.now(UTC)),
            "source": self.source,
            "dest": self.dest,
            "host": socket.gethostname(),
            "tilesync": __version__,
        }


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
