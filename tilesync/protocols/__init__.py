"""Interfaces that the jobs use, each as narrow as its consumer.

destination   destination of tiles: files, drafts, publication
object_store  object store below a prefix: objects, uploads, lease
package       writer of a package
public_files  files that a server may show, by their paths
source        source of tiles, clock, tokens, links, workers
"""

from __future__ import annotations

from tilesync.protocols.destination import (
    MAX_WHOLE_FILE_BYTES,
    Admission,
    Destination,
    Draft,
    Files,
    PresencePage,
    Publication,
    ReadOnlyPublication,
    StoredFiles,
    StructureChecks,
    WholeFile,
)
from tilesync.protocols.object_store import Lease, Objects, ObjectStream, Upload
from tilesync.protocols.package import PackageWriter
from tilesync.protocols.public_files import OpenedFile, PublicFiles
from tilesync.protocols.source import (
    Body,
    Clock,
    ExportsResolver,
    Link,
    MirrorWorkerSource,
    Observer,
    Source,
    SourceResolver,
    TokenProvider,
    Workers,
    WorkerSource,
)

__all__ = [
    "MAX_WHOLE_FILE_BYTES",
    "Admission",
    "Body",
    "Clock",
    "Destination",
    "Draft",
    "ExportsResolver",
    "Files",
    "Lease",
    "Link",
    "MirrorWorkerSource",
    "ObjectStream",
    "Objects",
    "Observer",
    "OpenedFile",
    "PackageWriter",
    "PresencePage",
    "PublicFiles",
    "Publication",
    "ReadOnlyPublication",
    "Source",
    "SourceResolver",
    "StoredFiles",
    "StructureChecks",
    "TokenProvider",
    "Upload",
    "WholeFile",
    "WorkerSource",
    "Workers",
]
