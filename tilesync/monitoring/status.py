"""Status of a mirror: fresh, stale or failing, with the reasons, computed from its history."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from tilesync.core.manifest import format_timestamp
from tilesync.core.wording import format_age, format_count
from tilesync.errors import NotFresh
from tilesync.model.history import MirrorHistory, RunRecord
from tilesync.values import dataclass

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
    `reasons`: sentences that say why it is not fresh. `command`: the command that continues it. `is_running`: the
    latest run goes on now; health and reasons are those from before it.
    """

    name: str
    dest: str
    health: Health
    reasons: tuple[str, ...]
    history: MirrorHistory
    command: str = ""
    imodel: str | None = None
    max_age: timedelta | None = None
    is_running: bool = False

    @property
    def hint(self) -> str:
        """Sentence that says what to do; empty if the mirror is fresh."""
        if self.health is Health.FRESH:
            return ""
        run = find_ended_run(self.history, is_running=self.is_running)
        if run is not None and run.hint and self.health is not Health.STALE:
            return run.hint
        return "run it again, and check that the schedule runs it"


def make_status(
    name: str,
    dest: str,
    history: MirrorHistory,
    *,
    now: datetime,
    max_age: timedelta | None = None,
    command: str = "",
    imodel: str | None = None,
    is_running: bool | None = None,
    problems: Sequence[str] = (),
) -> MirrorStatus:
    """Compute the status of a mirror at the time `now`.

    `is_running`: a run goes on now; None if that is not known. `problems`: sentences about the published version; with
    one of them the mirror is failing.
    """
    is_running = is_running and history.last_run is not None and history.last_run.exit is None
    failure = find_failure(history, is_running=is_running)
    stale = tuple(find_stale_reasons(history, now=now, max_age=max_age))
    if failure or problems:
        health = Health.FAILING
    elif history.last_success is None:
        health = Health.NEVER
    else:
        health = Health.STALE if stale else Health.FRESH
    reasons = tuple(dict.fromkeys([*((failure,) if failure else ()), *problems, *stale]))
    if health is Health.NEVER:
        reasons = ("no run has ended well yet", *reasons)
    return MirrorStatus(name, dest, health, reasons, history, command, imodel, max_age, bool(is_running))


def find_ended_run(history: MirrorHistory, *, is_running: bool | None) -> RunRecord | None:
    """Return the latest run; with `is_running` the one before it. None if there is none."""
    runs = history.runs[:-1] if is_running else history.runs
    return runs[-1] if runs else None


def find_failure(history: MirrorHistory, *, is_running: bool | None = None) -> str:
    """Return why the latest run that ended counts as failed; empty if it ended well or at the end of a
    window of time, or if there was none.

    A success after it counts: another machine may have made it.
    """
    run = find_ended_run(history, is_running=is_running)
    if run is None or run.is_success or run.exit == PLANNED_STOP_EXIT:
        return ""
    ended, last_success = parse_time(run.finished or run.started), parse_time(history.last_success)
    if ended is not None and last_success is not None and last_success > ended:
        return ""
    if run.exit is None:
        started = parse_time(run.started)
        end = "is going on, or was killed" if is_running is None else "was killed"
        return f"the run that started at {format_timestamp(started) if started else run.started} {end}"
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


def with_later_success(history: MirrorHistory, checked: str | None) -> MirrorHistory:
    """Return the history with the time of `checked.json` as that of the last success, if that is later."""
    known, stated = parse_time(history.last_success), parse_time(checked)
    is_later = stated is not None and (known is None or stated > known)
    return replace(history, last_success=checked) if is_later else history


def sort_problems_first(statuses: Iterable[MirrorStatus]) -> list[MirrorStatus]:
    """Sort by health, the worst first, and by name."""
    order = list(Health)
    return sorted(statuses, key=lambda status: (order.index(status.health), status.name.casefold(), status.name))


def find_error(statuses: Sequence[MirrorStatus]) -> NotFresh | None:
    """Return the error that says how many mirrors are not fresh; None if all are."""
    problems = [status for status in statuses if status.health is not Health.FRESH]
    if not problems:
        return None
    if len(statuses) == 1:
        (status,) = problems
        hint = f"{status.hint}; to continue: {status.command}" if status.command else status.hint
        return NotFresh(f"{status.name} is {describe_health(status.health)}: {'; '.join(status.reasons)}", hint=hint)
    counts = [(health, sum(status.health is health for status in problems)) for health in Health]
    parts = ", ".join(f"{count:,} {describe_health(health)}" for health, count in counts if count)
    return NotFresh(f"{len(problems):,} of {format_count(len(statuses), 'mirror')} are not fresh: {parts}")


def describe_health(health: Health) -> str:
    """Describe a health in words that follow `is`."""
    return "not mirrored yet" if health is Health.NEVER else health.value


def parse_time(text: str | None) -> datetime | None:
    """Parse a time in ISO 8601; UTC if it names no zone. None if it is missing or not a time."""
    try:
        moment = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return moment if moment is None or moment.tzinfo is not None else moment.replace(tzinfo=UTC)
