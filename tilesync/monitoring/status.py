"""Status of a mirror: fresh, stale or failing, with the reasons, computed from its history."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from tilesync.core.wording import format_age
from tilesync.model.history import MirrorHistory

PLANNED_STOP_EXIT = 14
"""Exit code of a run that the end of a window of time stopped: the next one continues."""


class Health(StrEnum):
    """Health of a mirror, the worst first."""

    FAILING = "failing"
    NEVER = "never"
    STALE = "stale"
    FRESH = "fresh"


@dataclass(frozen=True, slots=True)
class MirrorStatus:
    """Status of one mirror.

    `name`: name of the mirror in its fleet, or its destination. `dest`: its destination without secrets.
    `reasons`: sentences that say why it is not fresh. `command`: the command that continues it.
    """

    name: str
    dest: str
    health: Health
    reasons: tuple[str, ...]
    history: MirrorHistory
    command: str = ""
    imodel: str | None = None
    max_age: timedelta | None = None


def make_status(
    name: str,
    dest: str,
    history: MirrorHistory,
    *,
    now: datetime,
    max_age: timedelta | None = None,
    command: str = "",
    imodel: str | None = None,
) -> MirrorStatus:
    """Compute the status of a mirror at the time `now`."""
    failure = find_failure(history)
    stale = tuple(find_stale_reasons(history, now=now, max_age=max_age))
    if failure:
        health = Health.FAILING
    elif history.last_success is None:
        health = Health.NEVER
    else:
        health = Health.STALE if stale else Health.FRESH
    reasons = (*((failure,) if failure else ()), *stale)
    if health is Health.NEVER:
        reasons = ("no run has ended well yet", *reasons)
    return MirrorStatus(name, dest, health, reasons, history, command, imodel, max_age)


def find_failure(history: MirrorHistory) -> str:
    """Return why the latest run counts as failed; empty if it ended well or at the end of a window, or if none was."""
    run = history.last_run
    if run is None or run.is_success or run.exit == PLANNED_STOP_EXIT:
        return ""
    if run.exit is None:
        return f"the run that started at {run.started} is going on, or was killed"
    return run.message or f"the latest run ended with exit code {run.exit}"


def find_stale_reasons(history: MirrorHistory, *, now: datetime, max_age: timedelta | None) -> Iterator[str]:
    """Yield a sentence for each fact that is older than `max_age`: the last success, the published export, `behind`.

    The age of the published export counts only while a newer one exists. Nothing is stale without `max_age`.
    """
    if max_age is None:
        return
    limit = f"the limit is {format_age(max_age)}"
    last_success = parse_time(history.last_success)
    if last_success is not None and now - last_success > max_age:
        yield f"it last succeeded {format_age(now - last_success)} ago; {limit}"
    held = history.held
    exported = parse_time(held.modified or held.published) if held is not None else None
    has_newer = held is not None and history.newest is not None and history.newest != held.export
    if exported is not None and has_newer and now - exported > max_age:
        yield f"the published export is {format_age(now - exported)} old, and there is a newer one; {limit}"
    behind_since = parse_time(history.behind_since)
    if behind_since is not None and now - behind_since > max_age:
        yield f"the newest export could not be mirrored for {format_age(now - behind_since)}; {limit}"


def parse_time(text: str | None) -> datetime | None:
    """Parse a time in ISO 8601; UTC if it names no zone. None if it is missing or not a time."""
    try:
        moment = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return moment if moment is None or moment.tzinfo is not None else moment.replace(tzinfo=UTC)
