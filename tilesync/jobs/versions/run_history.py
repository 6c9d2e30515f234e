"""Record each run in the history of its destination: when it begins, and again when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from tilesync.catalog.history import read_history, write_history
from tilesync.errors import OtherOwner, TilesyncError
from tilesync.events import Warned
from tilesync.model import Version
from tilesync.model.history import HeldVersion, MirrorHistory, RunRecord
from tilesync.protocols import Destination, Observer
from tilesync.runtime.threads import run_in_thread
from tilesync.values import dataclass


@dataclass(frozen=True)
class RunRecording:
    """The record of this run. `started`: its start, in ISO 8601. `describe_end`: makes the record when the run ends,
    from the error that ended it, or None. `on_written`: gets the history with this run.
    """

    started: str
    describe_end: Callable[[BaseException | None], RunRecord]
    on_written: Callable[[MirrorHistory], None]


@asynccontextmanager
async def recorded_run(
    destination: Destination, recording: RunRecording | None, observe: Observer
) -> AsyncIterator[None]:
    """Record the run inside the block in the history of the destination; None to record nothing.

    A kill leaves the record of the beginning, without an exit code. A run that was refused, since the destination has
    another owner, leaves no record: it is no run of this mirror. A history that cannot be written is only a warning.
    """
    if recording is None:
        yield
        return
    writer = _HistoryWriter(destination, observe, recording.on_written)
    writer.write(RunRecord(recording.started))
    held = None
    try:
        yield
        held = await writer.find_held()
    except OtherOwner:
        writer.restore()
        raise
    except asyncio.CancelledError as error:
        writer.write(recording.describe_end(error))  # without a wait: the run ends now
        raise
    except BaseException as error:
        record = recording.describe_end(error)
        writer.write(record, await writer.find_held() if record.published else None)
        raise
    writer.write(recording.describe_end(None), held)


class _HistoryWriter:
    """Writes the records of one run after those of the runs before it."""

    def __init__(
        self, destination: Destination, observe: Observer, on_written: Callable[[MirrorHistory], None]
    ) -> None:
        self._destination = destination
        self._observe = observe
        self._on_written = on_written
        self._before: MirrorHistory | None = None

    def write(self, record: RunRecord, held: HeldVersion | None = None) -> None:
        """Write the history with this record as that of the latest run."""
        try:
            if self._before is None:
                self._before = read_history(self._destination.catalog)
            known = held or self._before.held
            record = replace(record, held_bytes=known.bytes if known is not None else 0)
            history = self._before.with_run(record, held)
            write_history(self._destination.catalog, history)
            self._on_written(history)
        except TilesyncError as error:
            self._warn(error)

    def restore(self) -> None:
        """Write the history as it was before the run."""
        try:
            if self._before is not None:
                write_history(self._destination.catalog, self._before)
        except TilesyncError as error:
            self._warn(error)

    async def find_held(self) -> HeldVersion | None:
        """Return the version that the pointer names; None if there is none, or if it cannot be read."""
        try:
            return await run_in_thread(_find_held, self._destination)
        except TilesyncError as error:
            self._warn(error)
            return None

    def _warn(self, error: TilesyncError) -> None:
        self._observe(Warned(f"this run could not be recorded for `tilesync status`: {error}"))


def _find_held(destination: Destination) -> HeldVersion | None:
    name = (destination.publication.latest() or {}).get("version")
    versions = destination.catalog.versions(name=name) if isinstance(name, str) else []
    return describe_held(versions[0]) if versions else None


def describe_held(version: Version) -> HeldVersion:
    """Describe a published version for the history of its destination."""
    summary = version.summary
    return HeldVersion(
        version.name,
        version.export,
        version.facts.exported,
        summary.published_at or "",
        summary.files,
        summary.bytes,
    )
