"""The values that travel between the rooms: frozen, picklable, without effects.

blob     a file of a container, and the file that is stored of it
export   an export of the service, and which one is meant
sas      signed container links, and secrets
storage  places and objects in object stores
tiles    what files of 3D Tiles are and what they ask for
version  the versions of a destination, and what is told of their files
"""

from __future__ import annotations

from tilesync.model.blob import UNKNOWN_SIZE, Blob, Digests, FileStamp, StoredFile, UnpackedFile
from tilesync.model.export import Export, Resolution, Selector, Status
from tilesync.model.sas import SasUrl, Secret
from tilesync.model.tiles import POINTER, ROOT, DamagedFile, Diagnostic, Kind, ParsedContent, Reference, Role
from tilesync.model.version import (
    EVERYTHING,
    BatchResult,
    Completeness,
    Content,
    Duplicate,
    FileResult,
    Globs,
    Inventory,
    Layout,
    Page,
    Totals,
    Version,
)

__all__ = [
    "EVERYTHING",
    "POINTER",
    "ROOT",
    "UNKNOWN_SIZE",
    "BatchResult",
    "Blob",
    "Completeness",
    "Content",
    "DamagedFile",
    "Diagnostic",
    "Digests",
    "Duplicate",
    "Export",
    "FileResult",
    "FileStamp",
    "Globs",
    "Inventory",
    "Kind",
    "Layout",
    "Page",
    "ParsedContent",
    "Reference",
    "Resolution",
    "Role",
    "SasUrl",
    "Secret",
    "Selector",
    "Status",
    "StoredFile",
    "Totals",
    "UnpackedFile",
    "Version",
]
