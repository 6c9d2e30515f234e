"""Exports of the service, and the selection of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from enum import StrEnum
from typing import Any

from tilesync.model.sas import SasUrl
from tilesync.model.version import Version
from tilesync.values import dataclass


class Status(StrEnum):
    """State of an export job, in the spelling of the service (get-exports, schema ExportStatus)."""

    NOT_STARTED = "NotStarted"
    IN_PROGRESS = "InProgress"
    COMPLETE = "Complete"
    INVALID = "Invalid"


@dataclass(frozen=True, slots=True)
class Export:
    """One row of the service's export list.

    `modified`: the service's own text. `size`: `stats.compressedSize`, in bytes. `record`: the whole row without its
    links. `link`: may be present on exports that are not Complete. `stored_version`: the version that the export is
    read from, if the source is a mirror.
    """

    id: str
    status: str
    name: str = ""
    imodel: str | None = None
    changeset: str | None = None
    type: str = ""
    modified: str = ""
    size: int | None = None
    error: str = ""
    record: Mapping[str, Any] = field(default_factory=dict, hash=False)
    link: SasUrl | None = None
    stored_version: Version | None = None

    @property
    def is_complete(self) -> bool:
        """True if all tiles exist: only the status proves that, a link does not."""
        return self.status.lower() == Status.COMPLETE.lower()


@dataclass(frozen=True, slots=True)
class Selector:
    """Filter for exports. Empty fields do not filter; `export_type` compares without case."""

    imodel: str | None = None
    changeset: str | None = None
    export_id: str | None = None
    export_type: str = ""
    tile_version: str | None = None
    itwinjs: str | None = None


@dataclass(frozen=True, slots=True)
class Resolution:
    """Result of resolving a source: the export to mirror, and the id of the newest one that matches.

    `newest_modified`: when the newest was exported, in the service's own text; empty if unknown. `defects`: what a
    mirrored export lacks, according to its manifest. `next_deleted`: finished exports that the service deletes when it
    makes the next one.
    """

    export: Export
    newest: str
    newest_status: str = Status.COMPLETE
    server_time: datetime | None = None
    defects: frozenset[str] = frozenset()
    newest_modified: str = ""
    next_deleted: tuple[Export, ...] = ()

    @property
    def behind(self) -> bool:
        """True if the newest export is not the chosen one."""
        return self.newest != self.export.id
