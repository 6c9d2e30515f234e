"""Monitor of a fleet: its running mirrors, its outcomes, the last JSON line, and the report."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tilesync import __version__
from tilesync.api.monitor import RunMonitor
from tilesync.errors import TilesyncError
from tilesync.events import Event
from tilesync.fleets.outcome import MirrorOutcome, Result, find_gravest, sort_problems_first, sum_counts

if TYPE_CHECKING:
    from tilesync.app.shared import SharedResources
    from tilesync.fleets.night.mirror_run import MirrorRun
    from tilesync.fleets.roster import FleetMirror

OnFleetEvent = Callable[[str, Event], None]
"""Called with the name of a mirror and each of its events; the name is empty for events of the fleet as a whole.

Perhaps in another thread, but never twice at once.
"""

OnOutcome = Callable[[MirrorOutcome], None]
"""Called with the outcome of each mirror."""


class FleetMonitor(RunMonitor):
    """Collects what happens in a run of a fleet.

    `total`: mirrors of this run, None until that is known. `runs`: mirrors that search their export, wait, or run.
    """

    def __init__(self, file: str, *, on_event: OnFleetEvent | None = None, on_outcome: OnOutcome | None = None) -> None:
        super().__init__(source=file)
        self.total: int | None = None
        self.runs: dict[str, MirrorRun] = {}
        self.outcomes: list[MirrorOutcome] = []
        self.unselected: list[FleetMirror] = []
        """Mirrors of the fleet that are not part of this run."""
        self.on_event = on_event
        self.on_outcome = on_outcome
        self._shared: SharedResources | None = None
        self._output_lock = threading.RLock()

    def start(self, shared: SharedResources) -> None:
        """Begin to count the calls of the API."""
        self._shared = shared

    def observe_mirror(self, name: str, event: Event) -> None:
        """Pass an event of a mirror on, which its own monitor has recorded."""
        with self._output_lock:
            if self.on_event is not None:
                self.on_event(name, event)

    def observe_fleet(self, event: Event) -> None:
        """Record an event of the fleet as a whole, and pass it on."""
        self.observe_mirror("", self.record(event))

    def add_outcome(self, outcome: MirrorOutcome) -> None:
        """Add the outcome of a mirror."""
        self.outcomes.append(outcome)
        with self._output_lock:
            if self.on_outcome is not None:
                self.on_outcome(outcome)

    @property
    def calls(self) -> int:
        """Number of calls of the API so far."""
        return self._shared.pace.calls if self._shared is not None else 0

    @property
    def transferred_bytes(self) -> int:
        """Bytes transferred so far."""
        running = sum(attempt.monitor.stats.transferred_bytes for run in self.runs.values() for attempt in run.attempts)
        return running + sum_counts(self.outcomes)["bytes"]

    @property
    def exit_code(self) -> int:
        """Gravest exit code of all mirrors."""
        return find_gravest(outcome.exit_code for outcome in self.outcomes)

    def finished_line(self) -> dict[str, Any]:
        """Return the last JSON line of a run that ended by itself."""
        return {"kind": "fleet-finished", "exit": self.exit_code, **self._fleet_facts()}

    def failed_line(
        self,
        error: TilesyncError | None = None,
        *,
        exit_code: int = 1,
        name: str = "",
        message: str = "",
        hint: str = "",
    ) -> dict[str, Any]:
        """Return the last JSON line of a run that an error ended, for all mirrors."""
        line = super().failed_line(error, exit_code=exit_code, name=name, message=message, hint=hint)
        failure = {key: line[key] for key in ("exit", "error", "message", "hint")}
        return {"kind": "fleet-finished", **failure, **self._fleet_facts()}

    def _fleet_facts(self) -> dict[str, Any]:
        results = {str(result): sum(each.result is result for each in self.outcomes) for result in Result}
        times = super().finished_line()
        return {
            "mirrors": len(self.outcomes),
            **results,
            "stale": sum(bool(each.stale) for each in self.outcomes),
            "endangered": sum(len(each.endangered) for each in self.outcomes),
            "calls": self.calls,
            **{f"files_{name}" if name == "failed" else name: n for name, n in sum_counts(self.outcomes).items()},
            "planned_bytes": sum(each.planned_bytes for each in self.outcomes),
            **{name: times[name] for name in ("seconds", "started", "finished")},
            "file": self.source,
            "host": socket.gethostname(),
            "tilesync": __version__,
        }

    def report(self, line: dict[str, Any]) -> dict[str, Any]:
        """Return the last line with the outcome of each mirror, problems first, as --report writes it."""
        outcomes = [outcome.to_dict() for outcome in sort_problems_first(self.outcomes)]
        return {**line, "warnings": self.warnings, "outcomes": outcomes}
