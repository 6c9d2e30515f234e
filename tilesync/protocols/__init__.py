"""What the jobs need from the world, each Protocol as wide as its consumer."""

from __future__ import annotations

from tilesync.protocols.checkup import Credential, ServiceSight, Visitor
from tilesync.protocols.objects import Lease, Objects, Stored, Upload
from tilesync.protocols.places import Admission, Destination, Draft, Files, Glance, HeldFiles, Publication, Published
from tilesync.protocols.state import Catalog, Leftovers, References, Twins
from tilesync.protocols.world import Body, Clock, Exports, Helpers, Link, Observer, Origin, Source, TokenProvider

__all__ = [
    "Admission",
    "Body",
    "Catalog",
    "Clock",
    "Credential",
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
    "ServiceSight",
    "Source",
    "Stored",
    "TokenProvider",
    "Twins",
    "Upload",
    "Visitor",
]
