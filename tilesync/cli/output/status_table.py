"""Tables of `status`: one row per mirror, problems first; and one row per run of a mirror."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tilesync.cli.output.table import format_table
from tilesync.cli.params import format_size
from tilesync.core.manifest import format_timestamp
from tilesync.core.wording import format_age, format_count
from tilesync.model.history import HeldVersion, RunRecord
from tilesync.monitoring.status import Health, MirrorStatus, parse_time

NO_VERSION = HeldVersion("", "")


def format_status_table(statuses: Sequence[MirrorStatus], *, now: datetime, width: int | None = None) -> str:
    """Format the table of mirrors."""
    head = ["NAME", "HEALTH", "EXPORT", "EXPORTED", "FILES", "SIZE", "LAST SUCCESS", "REASON"]
    return format_table(
        head, [_format_mirror(status, now) for status in statuses], width=width, truncated=("NAME", "REASON")
    )


def _format_mirror(status: MirrorStatus, now: datetime) -> list[str]:
    history = status.history
    held = history.held or NO_VERSION
    return [
        status.name,
        f"{status.health}, running" if status.is_running else str(status.health),
        held.export or "-",
        format_ago(held.modified, now),
        f"{held.files:,}" if held.version else "-",
        format_size(held.bytes) if held.version else "-",
        format_ago(history.last_success, now),
        "; ".join(status.reasons),
    ]


def format_ago(text: str | None, now: datetime) -> str:
    """Format the age of a time; a dash if it is not known."""
    moment = parse_time(text)
    return f"{format_age(now - moment)} ago" if moment is not None else "-"


def format_run_table(status: MirrorStatus, *, width: int | None = None) -> str:
    """Format the table of the runs of a mirror, the latest first."""
    head = ["STARTED", "OUTCOME", "FETCHED", "BYTES", "SECONDS", "MESSAGE"]
    rows = [_format_run(run, is_running=False) for run in status.history.runs]
    if status.is_running:
        rows[-1] = _format_run(status.history.runs[-1], is_running=True)
    return format_table(head, rows[::-1], width=width, truncated=("MESSAGE",))


def _format_run(run: RunRecord, *, is_running: bool) -> list[str]:
    started = parse_time(run.started)
    has_ended = run.exit is not None
    return [
        format_timestamp(started) if started is not None else run.started,
        format_outcome(run, is_running=is_running),
        f"{run.fetched:,}" if has_ended else "-",
        format_size(run.bytes) if has_ended else "-",
        f"{run.seconds:,.1f}" if has_ended else "-",
        run.message,
    ]


def format_outcome(run: RunRecord, *, is_running: bool) -> str:
    """Format how a run ended, in a word or two."""
    if run.exit is None:
        return "running" if is_running else "killed"
    if run.exit:
        return f"exit {run.exit}"
    return "published" if run.published else "no change"


def format_status_summary(statuses: Sequence[MirrorStatus]) -> str:
    """Summarize mirrors that are all fresh."""
    if len(statuses) == 1:
        return f"{statuses[0].name} is {Health.FRESH}"
    return f"all {format_count(len(statuses), 'mirror')} are {Health.FRESH}"
