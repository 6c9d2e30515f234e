"""Make the rows of the lists that the API returns: exports of the service, versions of a destination."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tilesync.api.results import ExportInfo, VersionInfo
from tilesync.jobs.versions.listing import ListedVersion, classify_export
from tilesync.jobs.versions.ownership import OwnershipStatus
from tilesync.model import Export


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
