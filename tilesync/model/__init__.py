"""The values that travel between the rooms: frozen, picklable, without effects.

blob     a file of a container, and the file that is stored of it
export   an export of the service, and which one is meant
sas      signed container links, and secrets
storage  places and objects in object stores
tiles    what files of 3D Tiles are and what they ask for
version  the versions of a destination, and what is told of their files
"""

from __future__ import annotations

from tilesync.model.blob import UNKNOWN, Blob, Held, Proof, Trace, Unpacked
from tilesync.model.export import Export, Resolution, Selector, Status
from tilesync.model.sas import SasUrl, Secret
from tilesync.model.tiles import POINTER, ROOT, Kind, Reading, Reference, Remark, Role, Unsound
from tilesync.model.version import (
    EVERYTHING,
    Arrival,
    Brought,
    Completeness,
    Content,
    Globs,
    Inventory,
    Layout,
    Page,
    Totals,
    Twin,
    Version,
)

__all__ = [
    "EVERYTHING",
    "POINTER",
    "ROOT",
    "UNKNOWN",
    "Arrival",
    "Blob",
    "Brought",
    "Completeness",
    "Content",
    "Export",
    "Globs",
    "Held",
    "Inventory",
    "Kind",
    "Layout",
    "Page",
    "Proof",
    "Reading",
    "Reference",
    "Remark",
    "Resolution",
    "Role",
    "SasUrl",
    "Secret",
    "Selector",
    "Status",
    "Totals",
    "Trace",
    "Twin",
    "Unpacked",
    "Unsound",
    "Version",
]
