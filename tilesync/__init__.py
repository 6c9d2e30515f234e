"""tilesync mirrors 3D Tiles exports of the iTwin Mesh Export service, whole and verified.

`import tilesync as ts` gives the Python API: `ts.mirror(source, dest)` and the other functions of `__all__`, the same
under `ts.aio` for a running event loop, identities, results and errors, and `ts.testing` for your own tests.
Each name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilesync import aio, errors, events, testing
    from tilesync.api.auth import ClientCredentials, Environment, ShareKey, Token, TokenCommand, TokenFile
    from tilesync.api.diffing import ChangeCounts, DiffResult, DiffTotals, FileChange
    from tilesync.api.monitor import RunMonitor
    from tilesync.api.results import (
        AuditResult,
        DoctorResult,
        ExportInfo,
        ExportsResult,
        MirrorResult,
        PackResult,
        PlanResult,
        RollbackResult,
        RunCounts,
        RunResult,
        StatusResult,
        VersionInfo,
        VersionsResult,
        ViewerLinkResult,
    )
    from tilesync.api.sync import (
        diff,
        doctor,
        exports,
        iter_sha256sums,
        mirror,
        pack,
        plan,
        rollback,
        serve,
        status,
        verify,
        versions,
        viewer_link,
    )
    from tilesync.core.guards import DeleteLimit
    from tilesync.core.retention import RetentionPolicy as Retention
    from tilesync.errors import TilesyncError
    from tilesync.fleets.aio import FleetResult, check_fleet
    from tilesync.fleets.outcome import MirrorOutcome
    from tilesync.fleets.sync import fleet, fleet_status
    from tilesync.model.history import HeldVersion, MirrorHistory, RunRecord
    from tilesync.model.sas import Secret
    from tilesync.monitoring.status import Health, MirrorStatus

__version__ = "0.1.0"

__all__ = [
    "AuditResult",
    "ChangeCounts",
    "ClientCredentials",
    "DeleteLimit",
    "DiffResult",
    "DiffTotals",
    "DoctorResult",
    "Environment",
    "ExportInfo",
    "ExportsResult",
    "FileChange",
    "FleetResult",
    "Health",
    "HeldVersion",
    "MirrorHistory",
    "MirrorOutcome",
    "MirrorResult",
    "MirrorStatus",
    "PackResult",
    "PlanResult",
    "Retention",
    "RollbackResult",
    "RunCounts",
    "RunMonitor",
    "RunRecord",
    "RunResult",
    "Secret",
    "ShareKey",
    "StatusResult",
    "TilesyncError",
    "Token",
    "TokenCommand",
    "TokenFile",
    "VersionInfo",
    "VersionsResult",
    "ViewerLinkResult",
    "__version__",
    "aio",
    "check_fleet",
    "diff",
    "doctor",
    "errors",
    "events",
    "exports",
    "fleet",
    "fleet_status",
    "iter_sha256sums",
    "mirror",
    "pack",
    "plan",
    "rollback",
    "serve",
    "status",
    "testing",
    "verify",
    "versions",
    "viewer_link",
]

_HOMES = {
    "tilesync.api.sync": "diff doctor exports iter_sha256sums mirror pack plan rollback serve status verify versions"
    " viewer_link",
    "tilesync.api.auth": "ClientCredentials Environment ShareKey Token TokenCommand TokenFile",
    "tilesync.api.diffing": "ChangeCounts DiffResult DiffTotals FileChange",
    "tilesync.api.monitor": "RunMonitor",
    "tilesync.api.results": "AuditResult DoctorResult ExportInfo ExportsResult MirrorResult PackResult PlanResult"
    " RollbackResult RunCounts RunResult StatusResult VersionInfo VersionsResult ViewerLinkResult",
    "tilesync.core.guards": "DeleteLimit",
    "tilesync.errors": "TilesyncError",
    "tilesync.fleets.aio": "FleetResult check_fleet",
    "tilesync.fleets.outcome": "MirrorOutcome",
    "tilesync.fleets.sync": "fleet fleet_status",
    "tilesync.model.history": "HeldVersion MirrorHistory RunRecord",
    "tilesync.model.sas": "Secret",
    "tilesync.monitoring.status": "Health MirrorStatus",
}
"""Modules of the public names: loaded late, so that the command line starts at once."""


def __getattr__(name: str) -> Any:
    if name in {"aio", "errors", "events", "testing"}:
        return importlib.import_module(f"tilesync.{name}")
    if name == "Retention":
        from tilesync.core.retention import RetentionPolicy

        return RetentionPolicy
    for module, names in _HOMES.items():
        if name in names.split():
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'tilesync' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
