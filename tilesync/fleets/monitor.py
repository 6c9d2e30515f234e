"""Monitor of a fleet: its running mirrors, its outcomes, and the last JSON line."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tilesync import __version__
from tilesync.api.masking import SecretMasker
from tilesync.core.manifest import format_timestamp
from tilesync.events import Event
from tilesync.fleets.outcome import MirrorOutcome, Result, find_gravest, sort_problems_first, sum_counts

if TYPE_CHECKING:
    from tilesync.app.shared import SharedResources
    from tilesync.fleets.night.mirror_run import MirrorRun

OnFleetEvent = Callable[[str, Event], None]
"""Called with the name of a mirror and each of its events; the name is empty for events of the fleet as a whole."""

OnOutcome = Callable[[MirrorOutcome], None]


class FleetMonitor:
    """Collects what happens in a run of a fleet. `total`: mirrors of this run, None until that is known.

    `runs`: mirrors that search their export, wait, or run.
    """

    def __init__(self, file: str, *, on_event: OnFleetEvent | None = None, on_outcome: OnOutcome | None = None) -> None:
        self.file = file
        self.total: int | None = None
        self.runs: dict[str, MirrorRun] = {}
        self.outcomes: list[MirrorOutcome] = []
        self.tracebacks: list[str] = []
        self._on_event = on_event
        self._on_outcome = on_outcome
        self._shared: SharedResources | None = None
        self._masker = SecretMasker(os.environ)
        self._began = time.monotonic()
        self._started = datetime.now(UTC)

    def start(self, shared: SharedResources) -> None:
        """Begin to count the calls of the API."""
        self._shared = shared

    def expect(self, total: int) -> None:
        """Set the number of mirrors of this run."""
        self.total = total

    def observe(self, name: str, event: Event) -> None:
        """Pass an event of a mirror on, which its own monitor has recorded."""
        if self._on_event is not None:
            self._on_event(name, event)

    def observe_fleet(self, event: Event) -> None:
        """Pass an event of the fleet as a whole on, without secrets."""
        self.observe("", self._masker.mask_event(event))

    def add_run(self, run: MirrorRun) -> None:
        """Add a mirror that begins."""
        self.runs[run.mirror.name] = run

    def remove_run(self, run: MirrorRun) -> None:
        """Remove a mirror that has ended."""
        self.runs.pop(run.mirror.name, None)

    def add_outcome(self, outcome: MirrorOutcome, *, tracebacks: Sequence[str] = ()) -> None:
        """Add the outcome of a mirror. `tracebacks`: those of bugs."""
        self.outcomes.append(outcome)
        self.tracebacks += tracebacks
        if self._on_outcome is not None:
            self._on_outcome(outcome)

    @property
    def calls(self) -> int:
        """Number of calls of the API so far."""
        return self._shared.pace.calls if self._shared is not None else 0

    @property
    def bytes(self) -> int:
        """Bytes transferred so far."""
        running = sum(attempt.monitor.stats.transferred_bytes for run in self.runs.values() for attempt in run.attempts)
        return running + sum_counts(self.outcomes)["bytes"]

    def elapsed_seconds(self) -> float:
        """Return the seconds since the run began."""
        return time.monotonic() - self._began

    @property
    def exit_code(self) -> int:
        """Gravest exit code of all mirrors."""
        return find_gravest(outcome.exit_code for outcome in self.outcomes)

    def finished_line(self, *, exit_code: int | None = None, message: str = "") -> dict[str, Any]:
        """Return the last JSON line. `exit_code`, `message`: if the run as a whole ended badly."""
        results = {str(result): sum(each.result is result for each in self.outcomes) for result in Result}
        return {
            "kind": "fleet-finished",
            "exit": self.exit_code if exit_code is None else exit_code,
            **({"message": self._masker.mask_text(message)} if message else {}),
            "mirrors": len(self.outcomes),
            **results,
            "stale": sum(bool(each.stale) for each in self.outcomes),
            "endangered": sum(len(each.endangered) for each in self.outcomes),
            "calls": self.calls,
            **sum_counts(self.outcomes),
            "seconds": round(self.elapsed_seconds(), 3),
            "started": format_timestamp(self._started),
            "finished": format_timestamp(datetime.now(UTC)),
            "file": self.file,
            "host": socket.gethostname(),
            "tilesync": __version__,
        }

    def report(self, line: dict[str, Any]) -> dict[str, Any]:
        """Return the last line with the outcome of each mirror, problems first, as --report writes it."""
        return {**line, "outcomes": [outcome.to_dict() for outcome in sort_problems_first(self.outcomes)]}
