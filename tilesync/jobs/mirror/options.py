"""Options of one run of the mirror job."""

from __future__ import annotations

from dataclasses import dataclass

from tilesync.core.guards import DeleteLimit
from tilesync.core.retention import KEEP_ALL_VERSIONS, RetentionPolicy
from tilesync.jobs.versions.ownership import OwnershipRequest
from tilesync.model.version import EVERYTHING, Content, Globs, Inventory


@dataclass(frozen=True)
class MirrorOptions:
    """Options of one run of the mirror job.

    `inventory`: None lists the container where that is allowed, and walks the tilesets otherwise. `move_pointer`: the
    pointer leads to the export at the end. `delete_limit`: how many files that left the container the flat layout may
    delete; None deletes none. `content`: store files as the container stores them, or decoded. `ownership`: whose
    exports the destination must hold; None skips that check.
    """

    inventory: Inventory | None = None
    globs: Globs = EVERYTHING
    allow_missing: bool = False
    allow_shrink: bool = False
    move_pointer: bool = True
    retention: RetentionPolicy = KEEP_ALL_VERSIONS
    delete_limit: DeleteLimit | None = None
    content: Content = Content.STORED
    ownership: OwnershipRequest | None = None
