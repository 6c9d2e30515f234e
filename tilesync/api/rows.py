"""Make the rows of the lists that the API returns: exports of the service, versions of a destination, statuses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from tilesync.api.results import ExportInfo, VersionInfo
from tilesync.jobs.versions.listing import ListedVersion, classify_export
from tilesync.jobs.versions.ownership import OwnershipStatus
from tilesync.model import Export
from tilesync.model.history import HeldVersion, RunRecord
from tilesync.monitoring.status import MirrorStatus


def make_export_info(export: Export, versions: Sequence[ListedVersion] | None = None) -> ExportInfo:
    """Make the row of an export; with `held` if the versions of a destination are given."""
    values: dict[str, Any] = {
        "id": export.id,
        "name": export.name,
        "status": export.status,
        "type": export.type,
        "imodel": export.imodel,
        "changeset": export.changeset,
        "modified": export.modified,
        "size": export.size,
        "error": export.error or None,
        **({} if versions is None else {"held": classify_export(export, versions) or None}),
    }
    return ExportInfo(**values, line={"kind": "export", **values})


def make_version_info(listed: ListedVersion, status: OwnershipStatus) -> VersionInfo:
    """Make the row of a version; its line also names the owner of the destination."""
    version = listed.version
    values: dict[str, Any] = {
        "version": version.name,
        "export": version.export,
        "imodel": version.facts.imodel,
        "changeset": version.facts.changeset,
        "modified": version.facts.modified or None,
        "finished": version.summary.published_at,
        "files": version.summary.files,
        "bytes": version.summary.bytes,
        "shared_bytes": listed.shared_bytes,
        "state": listed.state,
        "current": listed.is_current,
        "pinned": listed.is_pinned,
        "content": version.content.value,
    }
    line = {"kind": "version", **values, "owner": status.owner, "checked": status.last_success}
    return VersionInfo(**values, line=line)


def make_status_line(status: MirrorStatus) -> dict[str, Any]:
    """Make the line of a mirror, as `status --json` prints it: what it holds, and how its latest run ended."""
    history, held = status.history, status.history.held or HeldVersion("", "")
    run = history.last_run or RunRecord("")
    return {
        "kind": "status",
        "mirror": status.name,
        "dest": status.dest,
        "health": status.health.value,
        "reason": "; ".join(status.reasons),
        "hint": status.hint,
        "command": status.command,
        "imodel": status.imodel,
        "version": held.version or None,
        "export": held.export or None,
        "modified": held.modified or None,
        "published": held.published or None,
        "files": held.files,
        "bytes": held.bytes,
        "newest": history.newest,
        "newest_modified": history.newest_modified or None,
        "behind_since": history.behind_since,
        "last_success": history.last_success,
        "last_run": run.started or None,
        "last_exit": run.exit,
        "running": status.is_running,
        "max_age_s": None if status.max_age is None else status.max_age.total_seconds(),
    }


def make_run_lines(status: MirrorStatus) -> Iterator[dict[str, Any]]:
    """Make the line of each run of a mirror that its history has, the oldest first."""
    for run in status.history.runs:
        yield {"kind": "run", "mirror": status.name, **asdict(run)}
