"""Reporters of `tilesync fleet`: the statuses of its mirrors, and the summary of a run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilesync.cli.run_reporters import ReporterOptions, RunFacts, RunReporters
from tilesync.events import Warned

if TYPE_CHECKING:
    from tilesync.cli.session import Session
    from tilesync.fleets.monitor import FleetMonitor


def create_fleet_reporters(session: Session, monitor: FleetMonitor, options: ReporterOptions) -> RunReporters:
    """Create the reporters of a fleet. Raises UsageError."""
    return RunReporters(
        options,
        title=f"running the fleet {monitor.source}",
        collect_facts=lambda report: collect_fleet_facts(monitor, report),
        warn=lambda message: session.observe(Warned(message)),
    )


def collect_fleet_facts(monitor: FleetMonitor, report: Mapping[str, Any]) -> RunFacts:
    """Collect the facts of a fleet: the status of each of its mirrors, and the free bytes of its destination.

    Mirrors that are not part of this run have the status of their last one.
    """
    from tilesync.fleets.status import make_fleet_status
    from tilesync.monitoring.metrics import measure_free_bytes
    from tilesync.monitoring.status import make_status

    now, free = datetime.now(UTC), {}
    places = [(mirror.name, mirror.folder) for mirror in monitor.unselected]
    places += [(outcome.name, outcome.folder) for outcome in monitor.outcomes]
    for name, folder in places:
        if folder is not None and (count := measure_free_bytes(Path(folder))) is not None:
            free[name] = count
    statuses = [make_fleet_status(each, Path(monitor.source or ""), now=now) for each in monitor.unselected]
    for outcome in monitor.outcomes:
        if not outcome.key:
            continue
        statuses.append(
            make_status(
                outcome.name,
                outcome.dest,
                outcome.history,
                now=now,
                max_age=outcome.max_age,
                command=outcome.command,
                imodel=outcome.imodel,
            )
        )
    return RunFacts(format_fleet_outcome(monitor, report), statuses, free)


def format_fleet_outcome(monitor: FleetMonitor, report: Mapping[str, Any]) -> str:
    """Format the outcome of a run as text; the first line says whether it ended well."""
    from tilesync.cli.output.fleet_messages import format_fleet_summary, format_fleet_table

    ending = f"ended with exit code {report['exit']}" if report["exit"] else "ended well"
    table = format_fleet_table(monitor.outcomes, width=None)
    lines = [f"fleet {monitor.source}: {ending}", format_fleet_summary(monitor), table]
    return "\n".join(line for line in lines if line) + "\n"
