"""What the parts of one run share."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from tilesync.jobs.run.concurrency import Gate
from tilesync.jobs.run.name_warnings import WindowsNames
from tilesync.jobs.run.stats import Tally
from tilesync.protocols import Clock, Helpers, Observer


@dataclass(frozen=True)
class Run:
    """Time, those who listen, the counters, and how hard and how patiently one run works.

    `budget` is how long a failing blob is borne with. `every_file`: someone asked to hear of each file.
    `helpers` may be asked where there is much to do. `server_copy`: the store may take blobs by itself.
    `names` are those of the files, to be warned of.
    """

    clock: Clock
    observe: Observer
    tally: Tally
    gate: Gate
    budget: timedelta
    every_file: bool = False
    helpers: Helpers | None = None
    server_copy: bool = False
    names: WindowsNames = field(default_factory=WindowsNames)
