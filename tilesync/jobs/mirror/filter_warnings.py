"""Warnings about filters: a glob that matched no file, and globs that leave nothing but the root tileset."""

from __future__ import annotations

from collections.abc import Iterator

from tilesync.core.filters import unmatched
from tilesync.core.guards import is_bare
from tilesync.core.wording import files
from tilesync.model import Globs, Inventory, Version
from tilesync.protocols import Catalog

BATCH = 5000

_UNSEEN = "; what files that are left out would ask for is not known"
_PLANNED = "; a plan does not read the names that contents ask for (textures, buffers)"


def filter_warnings(version: Version, given: Globs, catalog: Catalog, *, planned: bool = False) -> list[str]:
    """Sentences about the filters of a version whose inventory is complete; `given`: the globs that this command gave.

    A walk knows only the files that some held file asks for, and a plan's walk reads no contents: it says so. Stops to
    read the inventory when every glob has matched; costs nothing where no glob was given.
    """
    if not given:
        return []
    found = catalog.totals(version)
    walked = version.inventory == Inventory.WALK
    among = f"{files(found.files + found.excluded)} that {'the walk found' if walked else 'are listed'}"
    limits = (_UNSEEN if found.excluded else "") + (_PLANNED if planned else "") if walked else ""
    said = [
        f"{option} {glob!r} matches none of the {among}{limits}"
        for option, glob in unmatched(given, _names(version, catalog))
    ]
    if is_bare(found.files, found.excluded):
        said.append(f"the filters leave nothing but the root tileset of the {among}: no content is mirrored")
    return said


def _names(version: Version, catalog: Catalog) -> Iterator[str]:
    after = ""
    while batch := catalog.names(version, after, limit=BATCH):
        after = batch[-1][0]
        yield from (name for _, name in batch)
