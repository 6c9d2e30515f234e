"""One run of a fleet: list the iTwins, make the roster, run the mirrors under one budget, and keep what they did."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

from tilesync.api.auth import Auth
from tilesync.api.inputs import create_service
from tilesync.api.monitor import RunMonitor
from tilesync.app.service import list_imodels
from tilesync.app.shared import SharedResources, count_cores, open_shared_resources
from tilesync.errors import TilesyncError, UsageError
from tilesync.events import Notice
from tilesync.fleets.file.option_table import make_mirror_arguments
from tilesync.fleets.file.secrets import create_auth
from tilesync.fleets.file.settings import FleetSettings, MirrorEntry
from tilesync.fleets.monitor import FleetMonitor
from tilesync.fleets.night.forecast_report import ForecastReporter
from tilesync.fleets.night.job_places import JobPlaces
from tilesync.fleets.night.journal import HistoryJournal
from tilesync.fleets.night.mirror_run import Attempt, MirrorRun, NightTools
from tilesync.fleets.night.results import ResultRecorder, format_command
from tilesync.fleets.night.window import compute_end
from tilesync.fleets.outcome import MirrorOutcome, Result
from tilesync.fleets.roster import FleetMirror, ModelNames, Roster, make_roster
from tilesync.fleets.state import FleetState, KnownMirror, default_state_dir
from tilesync.protocols import Clock
from tilesync.runtime.clock import WallClock
from tilesync.runtime.threads import own_thread_pool, run_in_thread

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
        path, count = self.request.settings.path, sum(each.entry == entry.name for each in known.values())
        monitor = RunMonitor(source=entry.itwin)
        line = monitor.failed_line(monitor.mask(error))
        line["message"] = f"the iModels of the iTwin could not be listed: {line['message']}"
        if count:
            line["message"] += f"; {count} known from earlier nights are tried"
        self.monitor.add_outcome(
            MirrorOutcome(entry.name, "", "", Result.FAILED, line, command=format_command(str(path), entry.name))
        )

    # --- run them ---

    async def _run_mirrors(self, mirrors: Sequence[FleetMirror], shared: SharedResources, state: FleetState) -> None:
        end = compute_end(
            self.clock.now().astimezone(),
            _first_given(self.request.until, self.request.settings.until),
            _first_given(self.request.max_duration, self.request.settings.max_duration),
        )
        if end is not None:
            self.monitor.observe_fleet(Notice(f"this run stops at {end:%Y-%m-%d %H:%M}, and the next one continues"))
        self.monitor.total = len(mirrors)
        rate = await run_in_thread(state.read_rate)
        forecast = ForecastReporter(mirrors, self.monitor.observe_fleet, self.clock, end=end, bytes_per_s=rate)
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
            every_file=self.request.every_file,
        )
        runs = [MirrorRun(mirror, tools, _first_attempt(mirror)) for mirror in mirrors]
        async with HistoryJournal(state, self.monitor.observe_fleet, is_enabled=not self.request.dry_run) as journal:
            recorder = ResultRecorder(
                str(self.request.settings.path), self.monitor, journal, self.clock, self.request.dry_run
            )
            tasks = {asyncio.create_task(self._run_mirror(run, forecast, recorder)): run for run in runs}
            try:
                await self._wait(set(tasks), end)
            finally:
                has_ended_window = end is not None and self.clock.now() >= end
                for task in tasks:
                    task.cancel()  # does nothing to those that are done
                await asyncio.gather(*tasks, return_exceptions=True)
                for task, run in tasks.items():
                    if task.cancelled():
                        recorder.stop(run, is_planned=has_ended_window)
            for task in tasks:
                if not task.cancelled():
                    task.result()  # raises what is no error of the mirror: a bug of the fleet itself
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
