"""One mirror of a fleet: search its export, wait for a place, mirror it, and fill its further destinations from it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import field
from datetime import timedelta
from typing import Any, Final

from tilesync.api.auth import Auth
from tilesync.api.call import OnPublish
from tilesync.api.inputs import create_mirror_request
from tilesync.api.locations import Source
from tilesync.api.mirroring import mirror_once, plan_once
from tilesync.api.monitor import RunMonitor
from tilesync.api.options import MirrorArguments
from tilesync.api.publish_command import create_publish_hook
from tilesync.app.commands import resolve_export
from tilesync.app.shared import SharedResources
from tilesync.errors import DestinationBusy, DestinationError, TilesyncError
from tilesync.events import Event, ExportEndangered
from tilesync.fleets.file.option_table import make_mirror_arguments
from tilesync.fleets.file.secrets import create_auth, read_secret
from tilesync.fleets.file.settings import SecretReference
from tilesync.fleets.night.forecast import Estimate, estimate_transfer
from tilesync.fleets.night.job_places import LARGE_BYTES, JobPlaces
from tilesync.fleets.places import expand_template
from tilesync.fleets.roster import FleetMirror
from tilesync.model import Resolution
from tilesync.protocols import Clock
from tilesync.values import dataclass

MAX_RESOLUTION_AGE: Final = timedelta(minutes=15)
"""Age after which a search for an export is repeated: a mirror may wait for its place for hours."""

SOURCE_OPTIONS: Final = ("cdn", "link_command", "tile_version", "itwinjs", "inventory")
"""Options of the service or its container, which a copy of a mirror does without."""


@dataclass(frozen=True, slots=True)
class NightTools:
    """Tools that the mirrors of a night share.

    `presence_time`: time of each unchanged mirror to look for lost files. `observe` gets each event with the name of
    its mirror, `on_estimate` the estimate of each mirror once its export is known, `on_begin` each mirror that begins.
    `auth`, `api_url`: for mirrors to which the file gives none.
    """

    shared: SharedResources
    places: JobPlaces
    clock: Clock
    presence_time: timedelta
    observe: Callable[[str, Event], None]
    on_estimate: Callable[[FleetMirror, Estimate], None]
    on_begin: Callable[[MirrorRun], None]
    auth: Auth | None = None
    api_url: str | None = None
    dry_run: bool = False
    every_file: bool = False


@dataclass
class Attempt:
    """Run of a mirror into one destination. `error`: None while it runs, and if it ended well.

    `bug`: the name of an exception that is no error of tilesync, with its `traceback`.
    """

    dest: str
    monitor: RunMonitor
    error: TilesyncError | None = None
    bug: str = ""
    traceback: str = ""
    is_ended: bool = False
    stopped_line: dict[str, Any] | None = None

    def stop(self, *, exit_code: int, name: str, message: str, hint: str) -> None:
        """Record that the run was stopped; one that has ended stays as it ended."""
        if not self.is_ended:
            self.stopped_line = self.monitor.failed_line(exit_code=exit_code, name=name, message=message, hint=hint)

    def line(self) -> dict[str, Any]:
        """Return the last JSON line."""
        if self.stopped_line is not None:
            return self.stopped_line
        if self.bug:
            return self.monitor.failed_line(
                name=self.bug, message="this is a bug in tilesync", hint="please report it with the lines above"
            )
        return self.monitor.finished_line() if self.error is None else self.monitor.failed_line(self.error)


@dataclass
class MirrorRun:
    """Run of one mirror of the fleet, with an attempt for each of its destinations that was tried.

    `download`: the attempt that reads the source; the others copy what it has mirrored. `is_running`: it has a place.
    """

    mirror: FleetMirror
    tools: NightTools
    download: Attempt
    others: list[Attempt] = field(default_factory=list)
    endangered: list[str] = field(default_factory=list)
    is_running: bool = False

    @property
    def attempts(self) -> list[Attempt]:
        """Return all attempts, the download first."""
        return [self.download, *self.others]

    @property
    def has_transferred(self) -> bool:
        """True if files were transferred."""
        return any(attempt.monitor.stats.fetched for attempt in self.attempts)

    def observe(self, event: Event) -> None:
        """Pass an event on with the name of the mirror."""
        if isinstance(event, ExportEndangered):
            self.endangered.append(event.export)
        self.tools.observe(self.mirror.name, event)

    async def run(self) -> None:
        """Run the mirror. Its errors are in its attempts; only cancellation is raised."""
        try:
            await self._run()
        except TilesyncError as error:
            self.download.error = self.download.monitor.mask(error)
        except Exception as error:  # noqa: BLE001 - a bug in one mirror must not stop the others
            self._record_bug(self.download, error)

    async def _run(self) -> None:
        if self.mirror.problem is not None:
            raise self.mirror.problem
        arguments = await self._make_arguments()
        resolved, resolved_at = await self._resolve(arguments)
        estimate = Estimate(0, is_known=isinstance(resolved, TilesyncError))  # an error moves nothing
        if isinstance(resolved, Resolution):
            estimate = estimate_transfer(resolved, self.mirror.known.history.held, self.mirror.folder)
            self.tools.on_estimate(self.mirror, estimate)
        async with self.tools.places.take(estimate.bytes if estimate.is_known else LARGE_BYTES):
            self.is_running = True
            if self.tools.clock.monotonic() - resolved_at > MAX_RESOLUTION_AGE.total_seconds():
                resolved = None
            await self._fill_destinations(arguments, resolved)

    async def _make_arguments(self) -> _Arguments:
        """Make the arguments of the runs; secrets are read now. Raises UsageError, NotAuthorised."""
        mirror, entry = self.mirror, self.mirror.entry
        options = dict(entry.options)
        if "state-dir" in options:
            options["state-dir"] = expand_template(
                options["state-dir"], name=mirror.known.place_name, imodel=mirror.imodel, itwin=entry.itwin
            )
        source: Source = mirror.imodel or ""
        if isinstance(entry.source, SecretReference):
            source = await read_secret(entry.source, "source")
            if entry.source.command:
                options.setdefault("link-command", entry.source.command)
        elif entry.source is not None:
            source = entry.source
        arguments: MirrorArguments = {**make_mirror_arguments(options), "every_file": self.tools.every_file}
        arguments["auth"] = await create_auth(entry.credentials) or self.tools.auth
        if self.tools.api_url is not None:
            arguments.setdefault("api_url", self.tools.api_url)
        hook = create_publish_hook(options["on-publish"], self.observe) if "on-publish" in options else None
        dests = [
            (await read_secret(dest, "dest")).text if isinstance(dest, SecretReference) else dest
            for dest in mirror.dests
        ]
        return _Arguments(source, dests, arguments, hook)

    async def _resolve(self, arguments: _Arguments) -> tuple[Resolution | TilesyncError | None, float]:
        """Search the export of an iModel, which holds no place and no lock; return when the answer came."""
        is_searched = self.mirror.imodel is not None and not arguments.options.get("all_exports", False)
        resolved: Resolution | TilesyncError | None = None
        if is_searched:
            request = create_mirror_request(arguments.source, arguments.dests[0], arguments.options)
            monitor = self.download.monitor
            try:
                resolved = await resolve_export(
                    request, lambda event: self.observe(monitor.record(event)), self.tools.shared
                )
            except TilesyncError as error:
                resolved = error
        return resolved, self.tools.clock.monotonic()

    async def _fill_destinations(self, arguments: _Arguments, resolved: Resolution | TilesyncError | None) -> None:
        """Fill the first destination that works from the source, and then the others from it."""
        waiting = list(zip(self.mirror.known.places, arguments.dests, strict=True))
        failed: list[Attempt] = []
        while waiting:
            place, dest = waiting.pop(0)
            if failed:
                self.download = Attempt(place, RunMonitor(dest=place))
            await self._attempt(self.download, arguments.source, dest, arguments, resolved)
            if not isinstance(self.download.error, DestinationError | DestinationBusy) or not waiting:
                break
            failed.append(self.download)
        self.others += failed
        if self.download.error is not None or self.download.bug or self.tools.dry_run:
            return
        first = dict(zip(self.mirror.known.places, arguments.dests, strict=True))[self.download.dest]
        copied = _Arguments(
            first,
            arguments.dests,
            # all keys are optional, so any part of the options is of their type
            {key: value for key, value in arguments.options.items() if key not in SOURCE_OPTIONS},  # type: ignore[arg-type]
            arguments.hook,
        )
        for place, dest in waiting:
            attempt = Attempt(place, RunMonitor(dest=place))
            self.others.append(attempt)
            await self._attempt(attempt, first, dest, copied, None)

    async def _attempt(
        self,
        attempt: Attempt,
        source: Source,
        dest: str,
        arguments: _Arguments,
        resolved: Resolution | TilesyncError | None,
    ) -> None:
        attempt.monitor.restart_clock()
        tools = self.tools
        if attempt is self.download:
            tools.on_begin(self)
        try:
            if tools.dry_run:
                await plan_once(
                    source,
                    dest,
                    arguments.options,
                    keep_actions=False,
                    on_event=self.observe,
                    monitor=attempt.monitor,
                    shared=tools.shared,
                    resolved=resolved,
                )
            else:
                await mirror_once(
                    source,
                    dest,
                    arguments.options,
                    on_publish=arguments.hook,
                    on_event=self.observe,
                    monitor=attempt.monitor,
                    shared=tools.shared,
                    resolved=resolved,
                    presence_time=tools.presence_time,
                )
        except TilesyncError as error:
            attempt.error = error
        except Exception as error:  # noqa: BLE001 - a bug in one mirror must not stop the others
            self._record_bug(attempt, error)
        attempt.is_ended = True

    def _record_bug(self, attempt: Attempt, error: Exception) -> None:
        attempt.bug = type(error).__name__
        attempt.traceback = attempt.monitor.mask_text("".join(traceback.format_exception(error)))


@dataclass(frozen=True, slots=True)
class _Arguments:
    """Arguments of the runs of a mirror, with its secrets."""

    source: Source
    dests: Sequence[str]
    options: MirrorArguments
    hook: OnPublish | None
