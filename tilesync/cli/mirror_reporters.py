"""Reporters of `tilesync mirror`: the status and the summary of one mirror."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tilesync.cli.params import format_size
from tilesync.cli.run_reporters import ReporterOptions, RunFacts, RunReporters
from tilesync.core.wording import format_file_count
from tilesync.errors import TilesyncError
from tilesync.events import Warned

if TYPE_CHECKING:
    from tilesync.api.locations import Location
    from tilesync.api.monitor import RunMonitor
    from tilesync.cli.session import Session
    from tilesync.model.history import MirrorHistory

_MAX_LISTED: Final = 50
"""Failures and warnings in a summary; the report has all of them."""


def create_mirror_reporters(session: Session, options: Mapping[str, Any], dest: Location) -> RunReporters:
    """Create the reporters of `tilesync mirror` from its options. Raises UsageError."""
    monitor = session.monitor
    name = options["name"] or monitor.dest or "mirror"
    return RunReporters(
        ReporterOptions(options["metrics_file"], options["ping"], options["on_success"], options["on_failure"]),
        title=f"mirroring {name}",
        collect_facts=lambda report: collect_mirror_facts(name, monitor, dest, report, state_dir=options["state_dir"]),
        warn=lambda message: session.observe(Warned(message)),
    )


def collect_mirror_facts(
    name: str, monitor: RunMonitor, dest: Location, report: Mapping[str, Any], *, state_dir: Path | None
) -> RunFacts:
    """Collect the facts of a mirror from its monitor, its history and the report of its run."""
    from tilesync.api.locations import is_folder
    from tilesync.monitoring.metrics import measure_free_bytes
    from tilesync.monitoring.status import make_status

    history, record = monitor.history or _read_history(dest, state_dir), monitor.record_of_line(report)
    last = history.last_run
    if last is None or (last.started, last.exit) != (record.started, record.exit):  # not recorded, or not as it ended
        history = history.with_run(record)
    status = make_status(name, monitor.dest or "", history, now=datetime.now(UTC), imodel=monitor.imodel)
    free = measure_free_bytes(Path(str(dest))) if is_folder(dest) else None
    return RunFacts(format_mirror_outcome(name, report), (status,), {} if free is None else {name: free})


def _read_history(dest: Location, state_dir: Path | None) -> MirrorHistory:
    """Read the history of a folder that the run could not open, such as one in use; an empty one if that fails too.

    That of a store is not read: it may be the store that does not answer.
    """
    from tilesync.api import sync
    from tilesync.api.locations import is_folder
    from tilesync.model.history import MirrorHistory

    if not is_folder(dest):
        return MirrorHistory()
    try:
        (status,) = sync.status(dest, state_dir=state_dir).mirrors
    except TilesyncError:
        return MirrorHistory()
    history = status.history
    return replace(history, runs=history.runs[:-1]) if status.is_running else history


def format_mirror_outcome(name: str, report: Mapping[str, Any]) -> str:
    """Format the outcome of a run as text; the first line says whether it ended well."""
    seconds = f"{report['seconds']:.1f} s"
    if report["exit"]:
        lines = [f"{name}: failed after {seconds} with exit code {report['exit']} ({report['error']})"]
        lines += [text for text in (report["message"], report["hint"]) if text]
    else:
        lines = [f"{name}: ended well after {seconds}"]
    if report["export"]:
        lines.append(f"export {report['export']}" + (", published" if report["published"] else ""))
    if report["behind"]:
        lines.append(f"the newest export {report['newest']} could not be mirrored yet")
    lines.append(
        f"{format_file_count(report['listed'])}: {report['fetched']:,} fetched ({format_size(report['bytes'])}),"
        f" {report['reused']:,} reused, {report['kept']:,} kept, {report['deleted']:,} deleted,"
        f" {report['failed']:,} failed"
    )
    lines += [f"failed: {row.get('name') or row.get('export')}: {row['message']}" for row in report["failures"]][
        :_MAX_LISTED
    ]
    lines += [f"warning: {text}" for text in report["warnings"]][:_MAX_LISTED]
    lines.append(f"{report['source'] or 'link'} -> {report['dest']} on {report['host']}, tilesync {report['tilesync']}")
    return "\n".join(lines) + "\n"
