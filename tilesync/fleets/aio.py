"""The Python API of fleets, for a running event loop. See `tilesync.api.aio` for the API of single mirrors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import time, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from tilesync.api.auth import Auth
from tilesync.api.call import Call, OnEvent
from tilesync.api.inputs import create_service
from tilesync.api.monitor import RunMonitor
from tilesync.api.results import StatusResult
from tilesync.events import Event
from tilesync.fleets.file.reader import read_fleet_file
from tilesync.fleets.file.settings import FleetSettings, SecretReference
from tilesync.fleets.monitor import FleetMonitor, OnFleetEvent, OnOutcome
from tilesync.fleets.outcome import MirrorOutcome
from tilesync.monitoring.status import find_error, sort_problems_first
from tilesync.runtime.clock import WallClock
from tilesync.runtime.threads import run_in_thread
from tilesync.values import dataclass


@dataclass(frozen=True)
class FleetResult:
    """Result of a run of a fleet. `line`: the last JSON line. `report`: with the outcome of each mirror."""

    exit_code: int
    outcomes: tuple[MirrorOutcome, ...]
    line: dict[str, Any]
    report: dict[str, Any]

    @property
    def ok(self) -> bool:
        """True if all is good: exit code 0."""
        return self.exit_code == 0

    def to_dict(self) -> dict[str, Any]:
        """Return the report."""
        return self.report


def check_fleet(file: str | Path) -> FleetSettings:
    """Read and check a fleet file; nothing is run. Raises UsageError, and InvalidFleetFile with all mistakes."""
    return read_fleet_file(Path(file))


async def fleet_status(
    file: str | Path,
    *,
    max_age: timedelta | None = None,
    state_dir: str | Path | None = None,
    on_event: OnEvent | None = None,
    monitor: RunMonitor | None = None,
) -> StatusResult:
    """Read the status of each mirror of a fleet, problems first, from its state alone. Raises TilesyncError.

    `max_age`: for mirrors to which the file gives none.
    """
    from tilesync.fleets.status import read_fleet_statuses

    call = Call(monitor, on_event, None, None)
    with call.run(StatusResult):
        settings = check_fleet(file)
        mirrors = tuple(replace(each, max_age=each.max_age or max_age) for each in settings.mirrors)
        statuses = await run_in_thread(
            partial(read_fleet_statuses, state_dir=Path(state_dir) if state_dir else None),
            replace(settings, mirrors=mirrors),
            WallClock(),
        )
    call.monitor.dest = call.monitor.dest or str(file)
    found = sort_problems_first(statuses)
    return call.monitor.result(StatusResult, find_error(found), mirrors=tuple(found))


def read_ping_url(settings: FleetSettings) -> str | None:
    """Return the URL to ping, a secret; None if there is none. Raises UsageError, NotAuthorised."""
    from tilesync.fleets.file.secrets import read_secret_blocking

    ping = settings.ping
    return read_secret_blocking(ping, "ping").text if isinstance(ping, SecretReference) else ping


async def write_fleet_file(
    itwins: Sequence[str],
    *,
    auth: Auth | None = None,
    api_url: str | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> str:
    """Write a fleet file for the iModels that an identity can see in iTwins; without any, in all its iTwins.

    Raises the errors of the service.
    """
    from tilesync.fleets.file.first_file import format_first_file, list_models

    models = await list_models(itwins, create_service({"auth": auth, "api_url": api_url}), on_event or _ignore)
    return format_first_file(models)


def _ignore(event: Event) -> None:
    """Take an event that nobody listens to."""


async def fleet(
    file: str | Path | FleetSettings,
    *,
    only: Sequence[str] = (),
    failed: bool = False,
    dry_run: bool = False,
    jobs: int | None = None,
    until: time | None = None,
    max_duration: timedelta | None = None,
    state_dir: str | Path | None = None,
    auth: Auth | None = None,
    api_url: str | None = None,
    every_file: bool = False,
    on_event: OnFleetEvent | None = None,
    on_outcome: OnOutcome | None = None,
    monitor: FleetMonitor | None = None,
) -> FleetResult:
    """Run every mirror of a fleet file. Raises UsageError and errors of its state; those of mirrors are outcomes.

    `file`: its path, or what `check_fleet` returned for it.
    `only`: globs of names. `failed`: only mirrors that failed the last time. `until`, `max_duration`: stop then; the
    next run continues. `every_file`: send an event for each file. `auth`, `api_url`: for mirrors to which the file
    gives none. The other arguments override the settings of the file. `on_event` gets the name of a mirror and each of
    its events, `on_outcome` the outcome of each.
    """
    from tilesync.fleets.night.run import Night, NightRequest

    settings = file if isinstance(file, FleetSettings) else check_fleet(file)
    monitor = monitor or FleetMonitor(str(settings.path), on_event=on_event, on_outcome=on_outcome)
    request = NightRequest(
        settings,
        only=only,
        failed_only=failed,
        dry_run=dry_run,
        jobs=jobs,
        until=until,
        max_duration=max_duration,
        state_dir=Path(state_dir) if state_dir is not None else None,
        auth=auth,
        api_url=api_url,
        every_file=every_file,
    )
    await Night(request, monitor).run()
    line = monitor.finished_line()
    return FleetResult(monitor.exit_code, tuple(monitor.outcomes), line, monitor.report(line))
