"""Values shared by all packages: frozen, picklable, without side effects.

blob     blobs of a container, and the files stored from them
export   exports of the service, and the selection of one
history  last runs of a mirror, and the version that it holds
sas      signed container links, and secrets
storage  locations and objects in object stores
tiles    kinds of 3D Tiles files, their references and diagnostics
version  versions of a destination, listing pages, results per file
"""

from __future__ import annotations

from tilesync.model.blob import (
    UNKNOWN_SIZE,
    Blob,
    BlobColumns,
    Chunk,
    Digests,
    FileStamp,
    RecordedFile,
    StoredFile,
    UnchangedFile,
    UnpackedFile,
)
from tilesync.model.export import Export, Resolution, Selector, Status
from tilesync.model.sas import SasUrl, Secret
from tilesync.model.tiles import POINTER, ROOT, DamagedFile, Diagnostic, Kind, ParsedContent, Reference, Role
from tilesync.model.version import (
    EVERYTHING,
    BatchResult,
    Completeness,
    Content,
    Duplicate,
    ExportFacts,
    FileResult,
    Globs,
    Inventory,
    Layout,
    ListingState,
    Page,
    Totals,
    Version,
    VersionSummary,
    VersionTimes,
)

__all__ = [
    "EVERYTHING",
    "POINTER",
    "ROOT",
    "UNKNOWN_SIZE",
    "BatchResult",
    "Blob",
    "BlobColumns",
    "Chunk",
    "Completeness",
    "Content",
    "DamagedFile",
    "Diagnostic",
    "Digests",
    "Duplicate",
    "Export",
    "ExportFacts",
    "FileResult",
    "FileStamp",
    "Globs",
    "Inventory",
    "Kind",
    "Layout",
    "ListingState",
    "Page",
    "ParsedContent",
    "RecordedFile",
    "Reference",
    "Resolution",
    "Role",
    "SasUrl",
    "Secret",
    "Selector",
    "Status",
    "StoredFile",
    "Totals",
    "UnchangedFile",
    "UnpackedFile",
    "Version",
    "VersionSummary",
    "VersionTimes",
]
