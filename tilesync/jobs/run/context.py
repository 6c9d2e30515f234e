"""The context of one run: clock, observer, counters, limiter and options that its parts share."""

from __future__ import annotations

from dataclasses import field
from datetime import timedelta

from tilesync.events import ExportResolved
from tilesync.jobs.run.concurrency import ConcurrencyLimiter
from tilesync.jobs.run.name_warnings import WindowsNameWarner
from tilesync.jobs.run.stats import RunStats
from tilesync.model import Resolution
from tilesync.protocols import Clock, Observer, Workers
from tilesync.values import dataclass


@dataclass(frozen=True)
class RunContext:
    """Clock, observer, counters, limiter and options that the parts of one run share.

    `retry_for`: time to retry a failing blob. `reports_every_file`: emit an event for each file.
    `workers`: worker processes, for runs with many files. `allows_server_copy`: the store may copy blobs from their
    source itself. `windows_names` collects file names that Windows cannot store.
    """

    clock: Clock
    observe: Observer
    stats: RunStats
    limiter: ConcurrencyLimiter
    retry_for: timedelta
    reports_every_file: bool = False
    workers: Workers | None = None
    allows_server_copy: bool = False
    windows_names: WindowsNameWarner = field(default_factory=WindowsNameWarner)

    def report_resolution(self, resolution: Resolution) -> None:
        """Report the export that was chosen, and the newest one."""
        export = resolution.export
        self.observe(
            ExportResolved(
                export.id,
                export.imodel,
                export.changeset,
                export.modified,
                resolution.newest,
                resolution.behind,
                resolution.newest_modified,
            )
        )
