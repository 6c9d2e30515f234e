"""Status of the mirrors of a fleet, from its file and its state: nothing is asked of the service or of a store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from tilesync.fleets.file.settings import FleetSettings
from tilesync.fleets.night.results import format_command
from tilesync.fleets.roster import FleetMirror, ModelNames, make_roster
from tilesync.fleets.state import FleetState, KnownMirror, default_state_dir
from tilesync.model.history import MirrorHistory
from tilesync.monitoring.status import Health, MirrorStatus, make_status
from tilesync.protocols import Clock


def read_fleet_statuses(settings: FleetSettings, clock: Clock, *, state_dir: Path | None = None) -> list[MirrorStatus]:
    """Read the status of each mirror, in the order of the file. Blocks. Raises DestinationError.

    An iTwin whose list failed the last time, or that was never listed, has a status of its own.
    """
    with FleetState(state_dir or settings.state_dir or default_state_dir(settings.path), read_only=True) as state:
        known, is_running = state.mirrors(), state.is_running()
    listings = {entry.name: _present(entry.name, known) for entry in settings.mirrors}
    roster = make_roster(settings, known, listings, clock)
    return [
        *_list_entry_statuses(settings, known, clock.now()),
        *(make_fleet_status(each, settings.path, now=clock.now(), is_running=is_running) for each in roster.mirrors),
    ]


def _present(entry: str, known: Mapping[str, KnownMirror]) -> ModelNames:
    """Return the iModels that the iTwin of an entry had the last time."""
    present = [each for each in known.values() if each.entry == entry and not each.vanished]
    return {each.imodel: each.name for each in present if each.imodel}


def _list_entry_statuses(
    settings: FleetSettings, known: Mapping[str, KnownMirror], now: datetime
) -> Iterator[MirrorStatus]:
    """Yield the status of each iTwin that could not be listed the last time, or was never listed."""
    for entry in settings.mirrors:
        if entry.itwin is not None:
            history = known[entry.name].history if entry.name in known else MirrorHistory()
            command = format_command(str(settings.path), entry.name)
            status = make_status(entry.name, "", history, now=now, command=command)
            if status.health is not Health.FRESH:
                yield status


def make_fleet_status(
    mirror: FleetMirror, fleet_file: Path, *, now: datetime, is_running: bool | None = None
) -> MirrorStatus:
    """Make the status of a mirror of a fleet from its history. `is_running`: the fleet runs now."""
    return make_status(
        mirror.name,
        mirror.known.places[0] if mirror.known.places else "",
        mirror.known.history,
        now=now,
        max_age=mirror.entry.max_age,
        command=format_command(str(fleet_file), mirror.name),
        imodel=mirror.imodel,
        is_running=is_running,
        problems=[str(mirror.problem)] if mirror.problem is not None else [],
    )
