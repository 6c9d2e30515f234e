"""Filter warnings: globs that match no file, and globs that leave only the root tileset."""

from __future__ import annotations

from collections.abc import Iterator

from tilesync.catalog.catalog import Catalog
from tilesync.core.filters import find_unmatched
from tilesync.core.guards import has_only_root
from tilesync.core.wording import format_file_count
from tilesync.model import Globs, Inventory, Version

ROWS_PER_QUERY = 5000

_UNSEEN_NOTE = "; files that only excluded files reference are not known"
_PLAN_NOTE = "; a dry run does not see the files that tile contents reference (textures, buffers)"


def filter_warnings(version: Version, requested: Globs, catalog: Catalog, *, planned: bool = False) -> list[str]:
    """Return warnings about the filters of a version whose inventory is complete.

    `requested`: the globs of this command. A walk knows only the files that a stored file references, and a planned
    walk reads no contents: the warning says so. Stops reading the inventory when every glob has matched.
    """
    if not requested:
        return []
    totals = catalog.compute_totals(version)
    is_walk = version.inventory == Inventory.WALK
    all_files = (
        f"{format_file_count(totals.files + totals.excluded)} that {'the walk found' if is_walk else 'are listed'}"
    )
    limits = (_UNSEEN_NOTE if totals.excluded else "") + (_PLAN_NOTE if planned else "") if is_walk else ""
    warnings = [
        f"{option} {glob!r} matches none of the {all_files}{limits}"
        for option, glob in find_unmatched(requested, _read_names(version, catalog))
    ]
    if has_only_root(totals.files, totals.excluded):
        warnings.append(f"the filters leave only the root tileset of the {all_files}: no content is mirrored")
    return warnings


def _read_names(version: Version, catalog: Catalog) -> Iterator[str]:
    after = ""
    while batch := catalog.list_names(version, after, limit=ROWS_PER_QUERY):
        after = batch[-1][0]
        yield from (name for _, name in batch)
