"""What the jobs need from the world, each Protocol as wide as its consumer."""

from __future__ import annotations

from tilesync.protocols.catalog import Catalog, Leftovers, References, Twins
from tilesync.protocols.destination import (
    Admission,
    Destination,
    Draft,
    Files,
    Glance,
    HeldFiles,
    Publication,
    Published,
)
from tilesync.protocols.object_store import Lease, Objects, Stored, Upload
from tilesync.protocols.source import Body, Clock, Exports, Helpers, Link, Observer, Origin, Source, TokenProvider

__all__ = [
    "Admission",
    "Body",
    "Catalog",
    "Clock",
    "Destination",
    "Draft",
    "Exports",
    "Files",
    "Glance",
    "HeldFiles",
    "Helpers",
    "Lease",
    "Leftovers",
    "Link",
    "Objects",
    "Observer",
    "Origin",
    "Publication",
    "Published",
    "References",
    "Source",
    "Stored",
    "TokenProvider",
    "Twins",
    "Upload",
]
