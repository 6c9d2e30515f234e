"""One run of a fleet: list the iTwins, make the roster, run the mirrors under one budget, and keep what they did."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import time, timedelta
from pathlib import Path
from typing import Final, TypeVar

from tilesync.api.auth import Auth
from tilesync.api.monitor import RunMonitor
from tilesync.app.shared import SharedResources, count_cores, open_shared_resources
from tilesync.errors import UsageError
from tilesync.events import Notice, Warned
from tilesync.fleets.file.settings import FleetSettings
from tilesync.fleets.monitor import FleetMonitor
from tilesync.fleets.night.forecast_report import ForecastReporter
from tilesync.fleets.night.itwin_lists import ITwinLister, make_failed_list_outcome, record_list
from tilesync.fleets.night.job_places import JobPlaces
from tilesync.fleets.night.journal import HistoryJournal
from tilesync.fleets.night.mirror_run import Attempt, MirrorRun, NightTools
from tilesync.fleets.night.results import ResultRecorder
from tilesync.fleets.night.window import Window, open_window
from tilesync.fleets.roster import FleetMirror, Roster, make_roster
from tilesync.fleets.state import FleetState, KnownMirror, default_state_dir
from tilesync.protocols import Clock
from tilesync.runtime.clock import WallClock
from tilesync.runtime.threads import own_thread_pool, run_in_thread
from tilesync.values import dataclass

T = TypeVar("T")

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

    `every_file`: send an event for each file. `auth`, `api_url`: for mirrors to which the file gives none. The other
    fields override the settings of the file, if they are not None.
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
    every_file: bool = False


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
            if not self.request.dry_run:
                await self._begin(state, state_dir)
                closing.callback(state.end_run)
            known = await run_in_thread(state.mirrors)
            async with (
                open_shared_resources(
                    self.monitor.observe_fleet,
                    max_transfers=settings.connections,
                    calls_per_minute=settings.calls_per_minute,
                    bwlimit=settings.bwlimit,
                ) as shared,
                open_window(
                    self.clock,
                    _first_given(self.request.until, settings.until),
                    _first_given(self.request.max_duration, settings.max_duration),
                ) as window,
            ):
                if window.end is not None:
                    self.monitor.observe_fleet(
                        Notice(f"this run stops at {window.end:%Y-%m-%d %H:%M}, and the next one continues")
                    )
                self.monitor.start(shared)
                mirrors = await self._make_roster(shared, state, known, window)
                await self._run_mirrors(mirrors, shared, state, window)

    async def _begin(self, state: FleetState, state_dir: Path) -> None:
        """Record that this run uses the state."""
        other = await run_in_thread(state.begin_run, self.request.settings.path)
        if other:
            self.monitor.observe_fleet(
                Warned(f"the state in {state_dir} is that of {other} too: give each fleet a state-dir of its own")
            )

    # --- which mirrors ---

    async def _make_roster(
        self, shared: SharedResources, state: FleetState, known: Mapping[str, KnownMirror], window: Window
    ) -> list[FleetMirror]:
        """List the iTwins, store what is new, and return the mirrors of this run."""
        entries = [entry for entry in self.request.settings.mirrors if entry.itwin is not None]
        lister = ITwinLister(shared, self.monitor.observe_fleet, self.request.auth, self.request.api_url)
        listings = await lister.list_all(entries, window)
        roster = make_roster(self.request.settings, known, listings, self.clock)
        selected = self._select(roster, known)
        errors = {entry.name: error for entry, error in roster.failed_entries}
        records = {entry.name: record_list(entry, errors.get(entry.name), known) for entry in entries}
        if not self.request.dry_run:
            await run_in_thread(state.save, [*roster.changed, *records.values()])
            await run_in_thread(state.save_histories, [(each.key, each.history) for each in records.values()])
        for entry, error in roster.failed_entries:
            if not self.request.only or not selected or any(mirror.entry is entry for mirror in selected):
                file = str(self.request.settings.path)
                self.monitor.add_outcome(make_failed_list_outcome(entry, error, records[entry.name], known, file))
        keys = {mirror.key for mirror in selected}
        self.monitor.unselected = [mirror for mirror in roster.mirrors if mirror.key not in keys]
        return selected

    def _select(self, roster: Roster, known: Mapping[str, KnownMirror]) -> list[FleetMirror]:
        selected = list(roster.mirrors)
        if self.request.only:
            selected = [mirror for mirror in selected if mirror.matches(self.request.only)]
            if not selected and not roster.failed_entries:
                raise UsageError(
                    f"no mirror matches --only {' --only '.join(map(shlex.quote, self.request.only))}",
                    hint=f"`tilesync status {self.request.settings.path}` lists the mirrors",
                )
        if self.request.failed_only:
            selected = [m for m in selected if m.problem is not None or _has_failed(known.get(m.key))]
        return selected

    # --- run them ---

    async def _run_mirrors(
        self, mirrors: Sequence[FleetMirror], shared: SharedResources, state: FleetState, window: Window
    ) -> None:
        self.monitor.total = len(mirrors)
        rate = await run_in_thread(state.read_rate)
        forecast = ForecastReporter(mirrors, self.monitor.observe_fleet, self.clock, end=window.end, bytes_per_s=rate)
        async with HistoryJournal(state, self.monitor.observe_fleet, is_enabled=not self.request.dry_run) as journal:
            recorder = ResultRecorder(
                str(self.request.settings.path), self.monitor, journal, self.clock, self.request.dry_run
            )
            tools = self._make_tools(shared, forecast, recorder, count=len(mirrors))
            runs = [MirrorRun(mirror, tools, _first_attempt(mirror)) for mirror in mirrors]
            tasks = {asyncio.create_task(self._run_mirror(run, forecast, recorder)): run for run in runs}
            try:
                await window.wait_for(tasks.keys())
            finally:
                for task, run in tasks.items():
                    if task.cancelled():
                        recorder.stop(run, is_planned=window.has_ended)
            for task in tasks:
                if not task.cancelled():
                    task.result()  # raises what is no error of the mirror: a bug of the fleet itself
        await self._store_rate(state)

    def _make_tools(
        self, shared: SharedResources, forecast: ForecastReporter, recorder: ResultRecorder, *, count: int
    ) -> NightTools:
        return NightTools(
            shared,
            JobPlaces(self._count_jobs()),
            self.clock,
            min(timedelta(seconds=2), PRESENCE_TIME / max(1, count)),
            self.monitor.observe_mirror,
            forecast.add,
            recorder.begin,
            auth=self.request.auth,
            api_url=self.request.api_url,
            dry_run=self.request.dry_run,
            every_file=self.request.every_file,
        )

    def _count_jobs(self) -> int:
        jobs = self.request.jobs or self.request.settings.jobs
        return jobs or min(MAX_AUTO_JOBS, JOBS_PER_CORE * count_cores())

    async def _run_mirror(self, run: MirrorRun, forecast: ForecastReporter, recorder: ResultRecorder) -> None:
        self.monitor.runs[run.mirror.name] = run
        try:
            await run.run()
        finally:
            forecast.skip(run.mirror)
            self.monitor.runs.pop(run.mirror.name, None)
            if run.has_transferred:
                gc.collect(1)  # the collector runs rarely (event_loop.py), and each run leaves cycles behind
        recorder.finish(run)

    async def _store_rate(self, state: FleetState) -> None:
        if self.request.dry_run or self.monitor.transferred_bytes < MIN_BYTES_FOR_RATE:
            return
        await run_in_thread(state.store_rate, self.monitor.transferred_bytes / max(1.0, self.monitor.elapsed_seconds()))


def _first_given(*values: T | None) -> T | None:
    """Return the first value that is not None; zero and midnight are values."""
    return next((value for value in values if value is not None), None)


def _first_attempt(mirror: FleetMirror) -> Attempt:
    place = mirror.known.places[0] if mirror.known.places else ""
    return Attempt(place, RunMonitor(source=mirror.imodel, dest=place))


def _has_failed(known: KnownMirror | None) -> bool:
    """Return whether the last run of a mirror ended badly, or never ended."""
    last = known.history.last_run if known is not None else None
    return last is not None and not last.is_success
