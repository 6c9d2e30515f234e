"""Warnings about filters: a glob that matched no file, and globs that leave nothing but the root tileset."""

from __future__ import annotations

from collections.abc import Iterator

from tilesync.core.filters import find_unmatched
from tilesync.core.guards import has_only_root
from tilesync.core.wording import format_file_count
from tilesync.model import Globs, Inventory, Version
from tilesync.protocols import Catalog

ROWS_PER_QUERY = 5000

_UNSEEN_NOTE = "; what files that are left out would ask for is not known"
_PLAN_NOTE = "; a plan does not read the names that contents ask for (textures, buffers)"


def filter_warnings(version: Version, requested: Globs, catalog: Catalog, *, planned: bool = False) -> list[str]:
    """Sentences about the filters of a version whose inventory is complete; `given`: the globs that this command gave.

    A walk knows only the files that some held file asks for, and a plan's walk reads no contents: it says so. Stops to
    read the inventory when every glob has matched; costs nothing where no glob was given.
    """
    if not requested:
        return []
    found = catalog.compute_totals(version)
    walked = version.inventory == Inventory.WALK
    among = f"{format_file_count(found.files + found.excluded)} that {'the walk found' if walked else 'are listed'}"
    limits = (_UNSEEN_NOTE if found.excluded else "") + (_PLAN_NOTE if planned else "") if walked else ""
    said = [
        f"{option} {glob!r} matches none of the {among}{limits}"
        for option, glob in find_unmatched(requested, _read_names(version, catalog))
    ]
    if has_only_root(found.files, found.excluded):
        said.append(f"the filters leave nothing but the root tileset of the {among}: no content is mirrored")
    return said


def _read_names(version: Version, catalog: Catalog) -> Iterator[str]:
    after = ""
    while batch := catalog.list_names(version, after, limit=ROWS_PER_QUERY):
        after = batch[-1][0]
        yield from (name for _, name in batch)
