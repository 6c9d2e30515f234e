"""History of a mirror: its last runs, and the version that the destination holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tilesync.values import dataclass

MAX_RUNS = 30
"""Number of runs that a history keeps."""


@dataclass(frozen=True, slots=True)
class HeldVersion:
    """Version that the pointer names: its export, size, and times in ISO 8601.

    `modified`: when the service exported it, in the service's own text. `published`: when tilesync published it.
    `files`, `bytes`: those that are stored.
    """

    version: str
    export: str
    modified: str = ""
    published: str = ""
    files: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run of `mirror`, without secrets. Times are ISO 8601 in UTC.

    `exit` is the exit code; None while the run goes on, or if it was killed. `error`, `message`, `hint` are those of a
    failed run. Counts are files, `bytes` those that were transferred. `held_bytes`: size of the published version.
    `source`: SOURCE, a link without its signature. `behind`: the newest export is not the mirrored one. `newest`,
    `newest_modified`: the newest export of the service, if the run came to know it.
    """

    started: str
    finished: str | None = None
    exit: int | None = None
    error: str = ""
    message: str = ""
    hint: str = ""
    seconds: float = 0.0
    export: str | None = None
    version: str | None = None
    newest: str | None = None
    newest_modified: str = ""
    behind: bool = False
    published: bool = False
    listed: int = 0
    fetched: int = 0
    reused: int = 0
    kept: int = 0
    deleted: int = 0
    failed: int = 0
    bytes: int = 0
    renewals: int = 0
    retries: int = 0
    held_bytes: int = 0
    source: str | None = None

    @property
    def is_success(self) -> bool:
        """True if the run ended well."""
        return self.exit == 0


@dataclass(frozen=True, slots=True)
class MirrorHistory:
    """Last runs of a mirror, oldest first, and facts that outlive them.

    `last_success`: when a run last ended well. `behind_since`: start of the first run of those, up to the last that
    came to know it, that found a newer export than the one it could mirror. `newest`, `newest_modified`: as last known.
    """

    runs: Sequence[RunRecord] = ()
    held: HeldVersion | None = None
    last_success: str | None = None
    behind_since: str | None = None
    newest: str | None = None
    newest_modified: str = ""

    @property
    def last_run(self) -> RunRecord | None:
        """Return the latest run; None if there was none."""
        return self.runs[-1] if self.runs else None

    def with_run(self, run: RunRecord, held: HeldVersion | None = None) -> MirrorHistory:
        """Return the history with a run added. A run with the `started` of the latest one replaces it.

        `held`: the version that the destination holds now; None if that is not known.
        """
        earlier = self.runs[:-1] if self.last_run is not None and self.last_run.started == run.started else self.runs
        history = replace(self, runs=(*earlier, run)[-MAX_RUNS:], held=held or self.held)
        if run.is_success:
            history = replace(history, last_success=run.finished)
        if run.newest is None:
            return history
        behind_since = (self.behind_since or run.started) if run.behind else None
        return replace(history, newest=run.newest, newest_modified=run.newest_modified, behind_since=behind_since)
