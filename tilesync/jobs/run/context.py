"""What the parts of one run share."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from tilesync.jobs.run.concurrency import ConcurrencyLimiter
from tilesync.jobs.run.name_warnings import WindowsNameWarner
from tilesync.jobs.run.stats import RunStats
from tilesync.protocols import Clock, Observer, Workers


@dataclass(frozen=True)
class RunContext:
    """Time, those who listen, the counters, and how hard and how patiently one run works.

    `budget` is how long a failing blob is borne with. `every_file`: someone asked to hear of each file.
    `helpers` may be asked where there is much to do. `server_copy`: the store may take blobs by itself.
    `names` are those of the files, to be warned of.
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
