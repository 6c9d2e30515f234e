"""Options of one run of the mirror job."""

from __future__ import annotations

from datetime import timedelta

from tilesync.core.guards import DeleteLimit
from tilesync.core.retention import KEEP_ALL_VERSIONS, RetentionPolicy
from tilesync.jobs.versions.ownership import OwnershipRequest
from tilesync.jobs.versions.presence import PRESENCE_CHECK_TIME
from tilesync.model.version import EVERYTHING, Content, Globs, Inventory
from tilesync.values import dataclass


@dataclass(frozen=True)
class MirrorOptions:
    """Options of one run of the mirror job.

    `inventory`: None lists the container if that is allowed, and walks the tilesets otherwise. `move_pointer`: move the
    pointer to the export at the end. `delete_limit`: maximum files that the flat layout may delete, of those that the
    container no longer has; None deletes none. `content`: store files as the container stores them, or decoded.
    `ownership`: the owner that the destination must have; None skips that check. `presence_time`: time for the presence
    check of a run without changes.
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
    presence_time: timedelta = PRESENCE_CHECK_TIME
