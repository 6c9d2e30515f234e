"""Status of the mirrors of a fleet, from its file and its state: nothing is asked of the service or of a store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tilesync.fleets.file.settings import FleetSettings
from tilesync.fleets.night.results import format_command
from tilesync.fleets.roster import FleetMirror, ModelNames, make_roster
from tilesync.fleets.state import FleetState, KnownMirror, default_state_dir
from tilesync.monitoring.status import MirrorStatus, make_status
from tilesync.protocols import Clock


def read_fleet_statuses(settings: FleetSettings, clock: Clock, *, state_dir: Path | None = None) -> list[MirrorStatus]:
    """Read the status of each mirror, in the order of the file. Blocks. Raises DestinationError."""
    with FleetState(state_dir or settings.state_dir or default_state_dir(settings.path), read_only=True) as state:
        known = state.mirrors()
    roster = make_roster(
        settings, known, {entry.name: _present(entry.name, known) for entry in settings.mirrors}, clock
    )
    return [_make_status(mirror, settings, clock) for mirror in roster.mirrors]


def _present(entry: str, known: Mapping[str, KnownMirror]) -> ModelNames:
    """Return the iModels that the iTwin of an entry had the last time."""
    return {
        each.imodel: each.name for each in known.values() if each.entry == entry and each.imodel and not each.vanished
    }


def _make_status(mirror: FleetMirror, settings: FleetSettings, clock: Clock) -> MirrorStatus:
    return make_status(
        mirror.name,
        mirror.known.places[0] if mirror.known.places else "",
        mirror.known.history,
        now=clock.now(),
        max_age=mirror.entry.max_age,
        command=format_command(str(settings.path), mirror.name),
        imodel=mirror.imodel,
        problems=[str(mirror.problem)] if mirror.problem is not None else [],
    )
