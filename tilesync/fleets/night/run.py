"""One run of a fleet: list the iTwins, make the roster, run the mirrors under one budget, and keep what they did."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any, Final

from tilesync.api.auth import Auth
from tilesync.api.inputs import create_service
from tilesync.api.locations import is_folder, parse_dest
from tilesync.api.monitor import RunMonitor
from tilesync.app.service import list_imodels
from tilesync.app.shared import SharedResources, count_cores, open_shared_resources
from tilesync.errors import TilesyncError, UsageError
from tilesync.events import ForecastMade, Notice, Warned
from tilesync.fleets.file.option_table import make_mirror_arguments
from tilesync.fleets.file.secrets import create_auth
from tilesync.fleets.file.settings import FleetSettings, MirrorEntry
from tilesync.fleets.monitor import FleetMonitor
from tilesync.fleets.night.forecast import Estimate, make_forecast
from tilesync.fleets.night.job_places import JobPlaces
from tilesync.fleets.night.journal import HistoryJournal
from tilesync.fleets.night.mirror_run import Attempt, MirrorRun, NightTools
from tilesync.fleets.night.window import compute_end
from tilesync.fleets.outcome import STOPPED_EXIT, CopyOutcome, MirrorOutcome, Result, find_gravest
from tilesync.fleets.roster import FleetMirror, ModelNames, Roster, make_roster
from tilesync.fleets.state import FleetState, KnownMirror, default_state_dir
from tilesync.model.history import MirrorHistory
from tilesync.monitoring.status import find_stale_reasons
from tilesync.protocols import Clock
from tilesync.runtime.clock import WallClock
from tilesync.runtime.threads import own_thread_pool, run_in_thread

JOBS_PER_CORE: Final = 4
"""Mirrors at the same time for each core, unless the user chooses: most of them wait for answers."""

MAX_AUTO_JOBS: Final = 16

PRESENCE_TIME: Final = timedelta(seconds=60)
"""Time of all unchanged mirrors of a night to look for lost files; the next night continues where it stopped."""

MIN_BYTES_FOR_RATE: Final = 100_000_000
"""Bytes that a night must move to say anything about the rate of the next one."""


@dataclass(frozen=True, slots=True)
class NightRequest:
    """Request for one run of a fleet. `only`: globs of names. `failed_only`: mirrors that failed the last time.

    `auth`, `api_url`: for mirrors to which the file gives none. The other fields override the settings of the file, if
    they are not None.
    """

    settings: FleetSettings
    only: Sequence[str] = ()
    failed_only: bool = False
    dry_run: bool = False
    jobs: int | None = None
    until: time | None = None
    max_duration: timedelta | None = None
    state_dir: Path | None = None
    auth: Auth | None = None
    api_url: str | None = None


@dataclass
class Night:
    """One run of a fleet. `monitor` has the counts and receives every event; run it once."""

    request: NightRequest
    monitor: FleetMonitor
    clock: Clock = field(default_factory=WallClock)

    async def run(self) -> None:
        """Run the fleet; the outcomes are in the monitor. Raises UsageError and the errors of the state."""
        settings = self.request.settings
        state_dir = self.request.state_dir or settings.state_dir or default_state_dir(settings.path)
        with own_thread_pool(), contextlib.ExitStack() as closing:
            state = closing.enter_context(await run_in_thread(FleetState, state_dir, read_only=self.request.dry_run))
            known = await run_in_thread(state.mirrors)
            async with open_shared_resources(
                self.monitor.observe_fleet,
                max_transfers=settings.connections,
                calls_per_minute=settings.calls_per_minute,
                bwlimit=settings.bwlimit,
            ) as shared:
                self.monitor.start(shared)
                roster = make_roster(settings, known, await self._list_imodels(shared), self.clock)
                if not self.request.dry_run:
                    await run_in_thread(state.save, roster.changed)
                selected = self._select(roster, known)
                for entry, error in roster.failed_entries:
                    if not self.request.only or any(mirror.entry is entry for mirror in selected):
                        self._report_failed_entry(entry, error, known)
                await self._run_mirrors(selected, shared, state)

    # --- which mirrors ---

    async def _list_imodels(self, shared: SharedResources) -> dict[str, ModelNames | TilesyncError]:
        """List the iModels of each entry with an iTwin, by the name of the entry; or the error."""
        entries = [entry for entry in self.request.settings.mirrors if entry.itwin is not None]
        return dict(
            zip(
                [entry.name for entry in entries],
                await asyncio.gather(*(self._list_entry(entry, shared) for entry in entries)),
                strict=True,
            )
        )

    async def _list_entry(self, entry: MirrorEntry, shared: SharedResources) -> ModelNames | TilesyncError:
        assert entry.itwin is not None
        try:
            arguments = make_mirror_arguments({**self._service_options(), **entry.options})
            arguments["auth"] = await create_auth(entry.credentials) or self.request.auth
            rows = await list_imodels(create_service(arguments), entry.itwin, self.monitor.observe_fleet, shared)
        except TilesyncError as error:
            return error
        return {row.id: row.name for row in rows}

    def _service_options(self) -> dict[str, Any]:
        return {"api-url": self.request.api_url} if self.request.api_url else {}

    def _select(self, roster: Roster, known: Mapping[str, KnownMirror]) -> list[FleetMirror]:
        selected = list(roster.mirrors)
        if self.request.only:
            selected = [mirror for mirror in selected if mirror.matches(self.request.only)]
            if not selected:
                raise UsageError(
                    f"no mirror matches --only {' --only '.join(map(shlex.quote, self.request.only))}",
                    hint=f"`tilesync status {self.request.settings.path}` lists the mirrors",
                )
        if self.request.failed_only:
            selected = [m for m in selected if m.problem is not None or _has_failed(known.get(m.key))]
        return selected

    def _report_failed_entry(self, entry: MirrorEntry, error: TilesyncError, known: Mapping[str, KnownMirror]) -> None:
        """Report an iTwin that could not be listed, as an outcome of its own."""
        count = sum(each.entry == entry.name for each in known.values())
        monitor = RunMonitor(source=entry.itwin)
        line = monitor.failed_line(monitor.mask(error))
        line["message"] = f"the iModels of the iTwin could not be listed: {line['message']}"
        if count:
            line["message"] += f"; {count} known from earlier nights are tried"
        self.monitor.add_outcome(
            MirrorOutcome(entry.name, "", "", Result.FAILED, line, command=self._command(entry.name), imodel=None)
        )

    # --- run them ---

    async def _run_mirrors(self, mirrors: Sequence[FleetMirror], shared: SharedResources, state: FleetState) -> None:
        end = compute_end(
            self.clock.now().astimezone(),
            self.request.until or self.request.settings.until,
            self.request.max_duration or self.request.settings.max_duration,
        )
        if end is not None:
            self.monitor.observe_fleet(Notice(f"this run stops at {end:%Y-%m-%d %H:%M}, and the next one continues"))
        self.monitor.total = len(mirrors)
        rate = await run_in_thread(state.read_rate)
        forecast = _ForecastCollector(self, mirrors, end, rate)
        tools = NightTools(
            shared,
            JobPlaces(self._count_jobs()),
            self.clock,
            min(timedelta(seconds=2), PRESENCE_TIME / max(1, len(mirrors))),
            self.monitor.observe_mirror,
            forecast.add,
            auth=self.request.auth,
            api_url=self.request.api_url,
            dry_run=self.request.dry_run,
        )
        runs = [MirrorRun(mirror, tools, _first_attempt(mirror)) for mirror in mirrors]
        async with HistoryJournal(state, is_enabled=not self.request.dry_run) as journal:
            tasks = {asyncio.create_task(self._run_mirror(run, forecast, journal)): run for run in runs}
            try:
                await self._wait(set(tasks), end)
            finally:
                has_ended_window = end is not None and self.clock.now() >= end
                unfinished = [task for task in tasks if not task.done()]
                for task in unfinished:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                for task in unfinished:
                    self._stop(tasks[task], journal, is_planned=has_ended_window)
        await self._store_rate(state)

    async def _wait(self, tasks: set[asyncio.Task[None]], end: datetime | None) -> None:
        """Wait until all mirrors are done, or until the end of the window."""
        if not tasks:
            return
        if end is None:
            await asyncio.wait(tasks)
            return
        timer = asyncio.create_task(self.clock.sleep((end - self.clock.now()).total_seconds()))
        try:
            while tasks and not timer.done():
                done, _ = await asyncio.wait({*tasks, timer}, return_when=asyncio.FIRST_COMPLETED)
                tasks -= done
        finally:
            timer.cancel()

    def _count_jobs(self) -> int:
        jobs = self.request.jobs or self.request.settings.jobs
        return jobs or min(MAX_AUTO_JOBS, JOBS_PER_CORE * count_cores())

    async def _run_mirror(self, run: MirrorRun, forecast: _ForecastCollector, journal: HistoryJournal) -> None:
        self.monitor.runs[run.mirror.name] = run
        try:
            await run.run()
        finally:
            forecast.skip(run.mirror)
            self.monitor.runs.pop(run.mirror.name, None)
        self._finish(run, journal)

    def _finish(self, run: MirrorRun, journal: HistoryJournal) -> None:
        """Report the outcome of a mirror that ended by itself."""
        line = run.download.line()
        result = Result.FAILED if line["exit"] else _name_success(line, dry_run=self.request.dry_run)
        self._add_outcome(run, line, result, journal)

    def _stop(self, run: MirrorRun, journal: HistoryJournal, *, is_planned: bool) -> None:
        """Report the outcome of a mirror that was stopped, by the end of the window or by a signal."""
        if is_planned:
            when = "while it ran" if run.is_running else "before its turn"
            code, name, message = (
                STOPPED_EXIT,
                "WindowEnded",
                f"the window of time ended {when}; the next run continues",
            )
        else:
            code, name, message = 130, "Interrupted", "interrupted; what has arrived is kept"
        line = run.download.monitor.failed_line(
            exit_code=code, name=name, message=message, hint=f"run it again: {self._command(run.mirror.name)}"
        )
        self._add_outcome(run, line, Result.STOPPED, journal)

    def _add_outcome(self, run: MirrorRun, line: Mapping[str, Any], result: Result, journal: HistoryJournal) -> None:
        mirror = run.mirror
        history = self._add_to_history(run, line)
        max_age = mirror.entry.max_age
        stale = () if max_age is None else tuple(find_stale_reasons(history, now=self.clock.now(), max_age=max_age))
        outcome = MirrorOutcome(
            mirror.name,
            mirror.key,
            run.download.dest,
            result,
            line,
            copies=tuple(CopyOutcome(each.dest, each.line()) for each in run.others),
            warnings=tuple(run.download.monitor.warnings),
            stale=stale,
            endangered=tuple(run.endangered),
            command=self._command(mirror.name),
            imodel=mirror.imodel,
            history=history,
            max_age=max_age,
            folder=str(folder) if (folder := _find_folder(mirror)) is not None else None,
        )
        journal.add(mirror.key, history)
        self.monitor.add_outcome(outcome, tracebacks=[each.traceback for each in run.attempts if each.traceback])

    def _add_to_history(self, run: MirrorRun, line: Mapping[str, Any]) -> MirrorHistory:
        """Return the history of the mirror with this run. Its exit code is the gravest of all its destinations."""
        monitor = run.download.monitor
        record = monitor.record_of_line({**line, "exit": find_gravest([line["exit"], *_exit_codes(run.others)])})
        held = monitor.history.held if monitor.history is not None else None
        return run.mirror.known.history.with_run(record, held)

    def _command(self, name: str) -> str:
        """Return the command that runs one mirror again."""
        return f"tilesync fleet {shlex.quote(str(self.request.settings.path))} --only {shlex.quote(name)}"

    async def _store_rate(self, state: FleetState) -> None:
        if self.request.dry_run or self.monitor.transferred_bytes < MIN_BYTES_FOR_RATE:
            return
        await run_in_thread(state.store_rate, self.monitor.transferred_bytes / max(1.0, self.monitor.elapsed_seconds()))


class _ForecastCollector:
    """Collects the estimates of the mirrors, and reports the forecast once all are known."""

    def __init__(
        self, night: Night, mirrors: Sequence[FleetMirror], end: datetime | None, bytes_per_s: float | None
    ) -> None:
        self._night = night
        self._end = end
        self._bytes_per_s = bytes_per_s
        self._waiting = {mirror.key for mirror in mirrors}
        self._estimates: list[tuple[Estimate, Path | None]] = []

    def add(self, mirror: FleetMirror, estimate: Estimate) -> None:
        """Add the estimate of a mirror."""
        self._estimates.append((estimate, _find_folder(mirror)))
        self.skip(mirror)

    def skip(self, mirror: FleetMirror) -> None:
        """Wait for this mirror no longer; it may have failed."""
        if mirror.key not in self._waiting:
            return
        self._waiting.discard(mirror.key)
        if not self._waiting and self._estimates:
            self._report()

    def _report(self) -> None:
        monitor, clock = self._night.monitor, self._night.clock
        left = None if self._end is None else self._end - clock.now()
        forecast = make_forecast(self._estimates, left=left, bytes_per_s=self._bytes_per_s)
        monitor.observe_fleet(
            ForecastMade(forecast.mirrors, forecast.changed, forecast.unsized, forecast.bytes, forecast.message)
        )
        for warning in forecast.warnings:
            monitor.observe_fleet(Warned(warning))


def _first_attempt(mirror: FleetMirror) -> Attempt:
    place = mirror.known.places[0] if mirror.known.places else ""
    return Attempt(place, RunMonitor(source=mirror.imodel, dest=place))


def _find_folder(mirror: FleetMirror) -> Path | None:
    """Return the folder of the first destination; None for a store, or if it has no place."""
    place = mirror.dests[0] if mirror.dests else None
    if not isinstance(place, str):
        return None
    return Path(place) if is_folder(parse_dest(place, mirror.entry.options.get("azure-endpoint"))) else None


def _exit_codes(attempts: Sequence[Attempt]) -> list[int]:
    return [int(attempt.line()["exit"]) for attempt in attempts]


def _has_failed(known: KnownMirror | None) -> bool:
    """Return whether the last run of a mirror ended badly, or never ended."""
    last = known.history.last_run if known is not None else None
    return last is not None and not last.is_success


def _name_success(line: Mapping[str, Any], *, dry_run: bool) -> Result:
    if dry_run:
        return Result.PLANNED
    return Result.UPDATED if line["fetched"] or line["reused"] or line["published"] else Result.UNCHANGED
