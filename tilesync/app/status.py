"""Read the status of one destination: its history, its versions, and the time of its last success."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tilesync.app.destinations import open_destination_blocking
from tilesync.app.locations import refuse_missing_folder
from tilesync.app.requests import Target
from tilesync.core.ownership import is_container
from tilesync.errors import DestinationError
from tilesync.events import OwnerIdentified, Warned
from tilesync.model import Layout
from tilesync.model.history import MirrorHistory
from tilesync.monitoring.status import MirrorStatus, make_status, with_later_success
from tilesync.protocols import Observer

if TYPE_CHECKING:
    from tilesync.jobs.versions.ownership import OwnershipStatus

DAMAGED = "`tilesync verify` found bad files in the published version"


def read_status(
    target: Target, observe: Observer, *, dest: str, now: datetime, max_age: timedelta | None
) -> MirrorStatus:
    """Read the status of a destination at the time `now`; `dest` is its name for people. Blocks.

    The listing of its versions wins over what the history knows of the published version: a rollback may have moved the
    pointer. Raises DestinationError if nothing has been mirrored there.
    """
    from tilesync.catalog.history import read_history
    from tilesync.jobs.versions.listing import list_versions
    from tilesync.jobs.versions.ownership import read_ownership_status
    from tilesync.jobs.versions.run_history import describe_held

    refuse_missing_folder(target.location)
    with open_destination_blocking(target, observe) as destination:
        ownership = read_ownership_status(destination.publication)
        listed = list_versions(destination.publication, destination.catalog, observe, include_retired=True)
        history = read_history(destination.catalog) if destination.catalog is not None else MirrorHistory()
        if not listed and not history.runs:
            raise DestinationError(
                f"nothing is mirrored in {dest}", hint="give a DEST that `tilesync mirror` has filled"
            )
        if destination.catalog is None:
            unknown = f"the state of {dest} cannot be opened, so its last runs are unknown"
            observe(Warned(f"{unknown}: run this as the user of the mirror, with the same --state-dir"))
        current = next((each for each in listed if each.is_current), None)
        if current is not None:
            history = replace(history, held=describe_held(current.version))
        if ownership.owner:
            observe(OwnerIdentified(ownership.owner))
        is_damaged = current is not None and current.state == "damaged"
        return make_status(
            dest,
            dest,
            with_later_success(history, ownership.last_success),
            now=now,
            max_age=max_age,
            command=_format_command(ownership, history, dest, destination.layout, target.state_dir),
            imodel=ownership.owner if ownership.owner and not is_container(ownership.owner) else None,
            is_running=destination.is_busy,
            problems=[DAMAGED] if is_damaged else [],
        )


def _format_command(
    ownership: OwnershipStatus, history: MirrorHistory, dest: str, layout: Layout, state_dir: Path | None
) -> str:
    """Format the command that continues a mirror; empty if its SOURCE is not known.

    A link comes from standard input: no state has its signature.
    """
    source = (history.last_run.source if history.last_run is not None else None) or ownership.owner
    if not source:
        return ""
    words = ["tilesync", "mirror", "-" if source.startswith(("http://", "https://")) else source, dest]
    words += ["--layout", layout.value] if layout is Layout.FLAT else []
    words += ["--state-dir", str(state_dir)] if state_dir is not None else []
    return shlex.join(words)
