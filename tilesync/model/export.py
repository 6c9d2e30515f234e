"""Exports of the service, and which of them is meant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from tilesync.model.sas import SasUrl
from tilesync.model.version import Version


class Status(StrEnum):
    """State of an export job, as the service spells it (get-exports, schema ExportStatus)."""

    NOT_STARTED = "NotStarted"
    IN_PROGRESS = "InProgress"
    COMPLETE = "Complete"
    INVALID = "Invalid"


@dataclass(frozen=True, slots=True)
class Export:
    """One row of the service's export list.

    `modified` is the service's own text. `size` is `stats.compressedSize`, in bytes. `record` is the whole row without
    its links. `link` may be present on exports that are not Complete. `held`: it is read from this held version.
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
        """Whether the tiles are all there: the status says so, a link alone does not."""
        return self.status.lower() == Status.COMPLETE.lower()


@dataclass(frozen=True, slots=True)
class Selector:
    """Which exports are meant. Empty fields do not filter; `export_type` compares without case."""

    imodel: str | None = None
    changeset: str | None = None
    export_id: str | None = None
    export_type: str = ""
    tile_version: str | None = None
    itwinjs: str | None = None


@dataclass(frozen=True, slots=True)
class Resolution:
    """The export to mirror, the id of the newest of the selection, and what a held one `lacks` as its manifest says."""

    export: Export
    newest: str
    newest_status: str = Status.COMPLETE
    server_time: datetime | None = None
    defects: frozenset[str] = frozenset()

    @property
    def behind(self) -> bool:
        """Whether the newest export is another one than the chosen."""
        return self.newest != self.export.id
