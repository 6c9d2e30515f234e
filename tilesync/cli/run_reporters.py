"""Report the start and the end of a run to monitors: metrics, pings, commands and the service manager."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tilesync.cli.output.atomic_file import replace_file
from tilesync.cli.signals import signals_as_errors
from tilesync.errors import Interrupted
from tilesync.monitoring.status import PLANNED_STOP_EXIT
from tilesync.values import dataclass

if TYPE_CHECKING:
    from tilesync.monitoring.ping import Pinger
    from tilesync.monitoring.status import MirrorStatus

METRICS_FILE_MODE: Final = 0o644
"""Permissions of a metrics file: node_exporter runs as another user."""

GOOD_EXITS: Final = frozenset({0, PLANNED_STOP_EXIT})
"""Exit codes that are no failure for monitors: a fleet that its window stopped did what it could."""

URGENT_TIME_LIMIT: Final = timedelta(seconds=3)
"""Longest time for a command, and for the pings, if a second signal asked to stop at once."""


@dataclass(frozen=True)
class ReporterOptions:
    """Options of the reporters, as the command line has them. An empty text is no option."""

    metrics_file: Path | None = None
    ping: str | None = None
    on_success: str | None = None
    on_failure: str | None = None


@dataclass(frozen=True)
class RunFacts:
    """Facts of a run that ended, for monitors, without secrets.

    `summary`: text for people; its first line is the status of the service. `disk_free`: free bytes at the destination,
    by the name of the mirror.
    """

    summary: str
    statuses: Sequence[MirrorStatus] = ()
    disk_free: Mapping[str, int] = field(default_factory=dict)


class RunReporters:
    """Reporters of one run. Nothing that they do fails the run: `warn` is called with a sentence for each problem.

    `title`: the run in a few words. `collect_facts` returns the facts of the run for its report. Raises UsageError for
    options that cannot work.
    """

    def __init__(
        self,
        options: ReporterOptions,
        *,
        title: str,
        collect_facts: Callable[[Mapping[str, Any]], RunFacts],
        warn: Callable[[str], None],
    ) -> None:
        from tilesync.monitoring.metrics import check_metrics_file
        from tilesync.monitoring.outcome_command import parse_command

        if options.metrics_file is not None:
            check_metrics_file(options.metrics_file)
        self._metrics_file = options.metrics_file
        self._pinger = _create_pinger((options.ping or "").strip())
        commands = {"--on-success": options.on_success, "--on-failure": options.on_failure}
        self._commands = {option: parse_command(text, option) for option, text in commands.items() if text}
        self._title = title
        self._collect_facts = collect_facts
        self._warn = warn

    def start(self) -> None:
        """Report the start. Does not wait."""
        from tilesync.monitoring.service_manager import notify_ready

        notify_ready(self._title)
        if self._pinger is not None:
            self._pinger.start(self._title)

    def update(self, status: str) -> None:
        """Report how far the run is. Does not wait."""
        from tilesync.monitoring.service_manager import notify_status

        notify_status(status)

    def finish(self, report: Mapping[str, Any], *, is_urgent: bool = False) -> None:
        """Report the end, by the report of the run; blocks within the time limits.

        A signal cuts the present step short. With `is_urgent` the limits are short, and a signal ends the process.
        """
        try:
            facts = self._collect_facts(report)
        except Exception as error:  # noqa: BLE001 - a monitor never fails a run
            self._warn(f"the facts of the run for monitors are missing: {error!r}")
            facts = RunFacts(self._title)
        limit = URGENT_TIME_LIMIT if is_urgent else None
        for step, name in (
            (self._notify_service_manager, "service manager"),
            (self._write_metrics, "metrics file"),
            (self._ping, "ping"),
            (self._run_command, "command"),
        ):
            try:
                if is_urgent:
                    problems = list(step(report, facts, limit))
                else:
                    with signals_as_errors():
                        problems = list(step(report, facts, limit))
            except (KeyboardInterrupt, Interrupted):
                problems = [f"the report to the monitor ({name}) was cut short by a signal"]
            except Exception as error:  # noqa: BLE001 - a monitor never fails a run
                problems = [f"the report to the monitor ({name}) failed: {error!r}"]
            for problem in problems:
                self._warn(problem)

    def write_metrics(self, statuses: Sequence[MirrorStatus], disk_free: Mapping[str, int]) -> None:
        """Write the metrics file, whole or not at all. Does nothing without one. Raises OSError."""
        from tilesync.monitoring.metrics import format_metrics

        if self._metrics_file is not None:
            data = format_metrics(statuses, now=datetime.now(UTC), disk_free=disk_free)
            replace_file(self._metrics_file, data, mode=METRICS_FILE_MODE)

    def _notify_service_manager(
        self, report: Mapping[str, Any], facts: RunFacts, limit: timedelta | None
    ) -> Iterator[str]:
        from tilesync.monitoring.service_manager import notify_stopping

        notify_stopping(facts.summary.partition("\n")[0])
        yield from ()

    def _write_metrics(self, report: Mapping[str, Any], facts: RunFacts, limit: timedelta | None) -> Iterator[str]:
        try:
            self.write_metrics(facts.statuses, facts.disk_free)
        except OSError as error:
            yield f"the metrics file {self._metrics_file} cannot be written ({error.strerror})"

    def _run_command(self, report: Mapping[str, Any], facts: RunFacts, limit: timedelta | None) -> Iterator[str]:
        from tilesync.monitoring.outcome_command import COMMAND_TIME_LIMIT, run_outcome_command

        option = "--on-success" if report["exit"] in GOOD_EXITS else "--on-failure"
        if option in self._commands:
            problem = run_outcome_command(
                self._commands[option], option, report, output=sys.stderr, time_limit=limit or COMMAND_TIME_LIMIT
            )
            if problem:
                yield problem

    def _ping(self, report: Mapping[str, Any], facts: RunFacts, limit: timedelta | None) -> Iterator[str]:
        if self._pinger is not None:
            yield from self._pinger.finish(facts.summary, is_success=report["exit"] in GOOD_EXITS, time_limit=limit)


def _create_pinger(url: str) -> Pinger | None:
    """Create the pinger of a URL; None for an empty one. The import has an effect: see `main._exit_process`."""
    if not url:
        return None
    from tilesync.monitoring.ping import Pinger

    return Pinger(url)
