"""Results of the mirrors of a night: each becomes an outcome, and a run in the history of its mirror."""

from __future__ import annotations

import glob
import shlex
from collections.abc import Mapping
from typing import Any

from tilesync.fleets.monitor import FleetMonitor
from tilesync.fleets.night.journal import HistoryJournal
from tilesync.fleets.night.mirror_run import MirrorRun
from tilesync.fleets.outcome import STOPPED_EXIT, CopyOutcome, MirrorOutcome, Result, find_gravest_line
from tilesync.model.history import RunRecord
from tilesync.monitoring.status import find_stale_reasons
from tilesync.protocols import Clock
from tilesync.values import dataclass


def format_command(file: str, name: str) -> str:
    """Format the command that runs one mirror of a fleet again. Its glob matches no other name."""
    return f"tilesync fleet {shlex.quote(file)} --only {shlex.quote(glob.escape(name))}"


@dataclass(frozen=True)
class ResultRecorder:
    """Records how each mirror of a night ended, in the monitor and in the journal."""

    file: str
    monitor: FleetMonitor
    journal: HistoryJournal
    clock: Clock
    dry_run: bool

    def begin(self, run: MirrorRun) -> None:
        """Record that a mirror begins: if the fleet is killed, its status says so."""
        started = run.download.monitor.make_recording().started
        self.journal.add(run.mirror.key, run.mirror.known.history.with_run(RunRecord(started)))

    def finish(self, run: MirrorRun) -> None:
        """Record a mirror that ended by itself."""
        line = run.download.line()
        if line["exit"]:
            result = Result.FAILED
        elif self.dry_run:
            result = Result.PLANNED
        else:
            has_changed = line["fetched"] or line["reused"] or line["published"]
            result = Result.UPDATED if has_changed else Result.UNCHANGED
        self._record(run, line, result)

    def stop(self, run: MirrorRun, *, is_planned: bool) -> None:
        """Record a mirror that was stopped, by the end of the window (`is_planned`) or by a signal."""
        if is_planned:
            code, name = STOPPED_EXIT, "WindowEnded"
            when = "while it ran" if run.is_running else "before its turn"
            message = f"the window of time ended {when}; the next run continues"
        else:
            code, name, message = 130, "Interrupted", "interrupted; what has arrived is kept"
        hint = f"run it again: {format_command(self.file, run.mirror.name)}"
        for attempt in run.attempts:
            attempt.stop(exit_code=code, name=name, message=message, hint=hint)
        self._record(run, run.download.line(), Result.STOPPED)

    def _record(self, run: MirrorRun, line: Mapping[str, Any], result: Result) -> None:
        mirror, monitor, max_age = run.mirror, run.download.monitor, run.mirror.entry.max_age
        copies = tuple(CopyOutcome(each.dest, each.line()) for each in run.others)
        gravest = find_gravest_line([line, *(copy.line for copy in copies)])
        failure = {key: gravest[key] for key in ("exit", "error", "message", "hint") if key in gravest}
        held = monitor.history.held if monitor.history is not None else None
        history = mirror.known.history.with_run(monitor.record_of_line({**line, **failure}), held)
        outcome = MirrorOutcome(
            mirror.name,
            mirror.key,
            run.download.dest,
            result,
            line,
            copies=copies,
            warnings=tuple(monitor.warnings),
            stale=tuple(find_stale_reasons(history, now=self.clock.now(), max_age=max_age)),
            endangered=tuple(run.endangered),
            command=format_command(self.file, mirror.name),
            imodel=mirror.imodel,
            history=history,
            max_age=max_age,
            folder=mirror.folder,
            tracebacks=tuple(each.traceback for each in run.attempts if each.traceback),
            planned_bytes=monitor.stats.planned_bytes if self.dry_run else 0,
        )
        self.journal.add(mirror.key, history)
        self.monitor.add_outcome(outcome)
