"""The Python API for a running event loop: `await tilesync.aio.mirror(source, dest)`. See `tilesync.api.aio`."""

from __future__ import annotations

from tilesync.api.aio import doctor, exports, mirror, plan, rollback, status, verify, versions, viewer_link
from tilesync.api.diffing import diff
from tilesync.api.packing import pack
from tilesync.api.serving import serve
from tilesync.fleets.aio import fleet, fleet_status

__all__ = [
    "diff",
    "doctor",
    "exports",
    "fleet",
    "fleet_status",
    "mirror",
    "pack",
    "plan",
    "rollback",
    "serve",
    "status",
    "verify",
    "versions",
    "viewer_link",
]
