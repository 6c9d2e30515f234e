"""Lists of the iModels of iTwins, at the start of a night; each is recorded as a run of its entry."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from tilesync.api.auth import Auth
from tilesync.api.inputs import create_service
from tilesync.api.monitor import RunMonitor
from tilesync.app.service import list_imodels
from tilesync.app.shared import SharedResources
from tilesync.errors import TilesyncError, WindowEnded
from tilesync.fleets.file.option_table import make_mirror_arguments
from tilesync.fleets.file.secrets import create_auth
from tilesync.fleets.file.settings import MirrorEntry
from tilesync.fleets.night.results import format_command
from tilesync.fleets.night.window import Window
from tilesync.fleets.outcome import MirrorOutcome, Result
from tilesync.fleets.roster import ModelNames
from tilesync.fleets.state import KnownMirror
from tilesync.protocols import Observer
from tilesync.values import dataclass


@dataclass(frozen=True)
class ITwinLister:
    """Lists the iModels of iTwins. `auth`, `api_url`: for entries to which the file gives none."""

    shared: SharedResources
    observe: Observer
    auth: Auth | None
    api_url: str | None

    async def list_all(self, entries: Sequence[MirrorEntry], window: Window) -> dict[str, ModelNames | TilesyncError]:
        """List the iModels of each entry, by the name of the entry; or the error. What `window` cuts short is one."""
        tasks = {entry.name: asyncio.create_task(self._list(entry)) for entry in entries}
        await window.wait_for(tasks.values())
        ended = WindowEnded("the window of time ended before the iModels of the iTwin were listed")
        return {name: ended if task.cancelled() else task.result() for name, task in tasks.items()}

    async def _list(self, entry: MirrorEntry) -> ModelNames | TilesyncError:
        assert entry.itwin is not None
        try:
            arguments = make_mirror_arguments(entry.options)
            if self.api_url is not None:
                arguments.setdefault("api_url", self.api_url)
            arguments["auth"] = await create_auth(entry.credentials) or self.auth
            rows = await list_imodels(create_service(arguments), entry.itwin, self.observe, self.shared)
        except TilesyncError as error:
            return error
        return {row.id: row.name for row in rows}


def record_list(entry: MirrorEntry, error: TilesyncError | None, known: Mapping[str, KnownMirror]) -> KnownMirror:
    """Return what the state keeps of the list of an iTwin: a mirror without a place, with a run for each night."""
    monitor = RunMonitor(source=entry.itwin)
    before = known.get(entry.name) or KnownMirror(entry.name, entry.name, entry.name, (), itwin=entry.itwin)
    record = monitor.record_of_run(monitor.mask(error) if error is not None else None)
    return KnownMirror(
        entry.name, entry.name, entry.name, (), itwin=entry.itwin, history=before.history.with_run(record)
    )


def make_failed_list_outcome(
    entry: MirrorEntry, error: TilesyncError, record: KnownMirror, known: Mapping[str, KnownMirror], file: str
) -> MirrorOutcome:
    """Make the outcome of an iTwin that could not be listed."""
    monitor = RunMonitor(source=entry.itwin)
    line = monitor.failed_line(monitor.mask(error))
    if not isinstance(error, WindowEnded):
        line["message"] = f"the iModels of the iTwin could not be listed: {line['message']}"
    count = sum(each.entry == entry.name and bool(each.imodel) and not each.vanished for each in known.values())
    if count:
        line["message"] += f"; {count} known from earlier nights are tried"
    return MirrorOutcome(
        entry.name,
        record.key,
        "",
        Result.STOPPED if isinstance(error, WindowEnded) else Result.FAILED,
        line,
        command=format_command(file, entry.name),
        history=record.history,
    )
