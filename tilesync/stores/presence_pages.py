"""Presence check of the files that a catalog lists, page by page; for stores that look at each file by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from tilesync.model import StoredFile, Version
from tilesync.protocols import PresencePage

if TYPE_CHECKING:
    from tilesync.catalog.catalog import Catalog
    from tilesync.protocols import StoredFiles

FILES_PER_PRESENCE_PAGE: Final = 256
"""Files checked per page: on a slow disk each may take some milliseconds."""

FILES_PER_CHANGED_PAGE: Final = 2000
"""Files checked per page when all files are checked."""

FindUnchanged = Callable[[Version, Sequence[StoredFile]], Sequence[bool]]
"""Returns for each file whether it is there as recorded."""


def find_changed_pages(files: StoredFiles, version: Version, catalog: Catalog) -> Iterator[list[StoredFile]]:
    """Yield the changed files among those that the catalog lists, page by page. A method of stores."""
    after = ""
    while batch := catalog.list_stored(version, after, limit=FILES_PER_CHANGED_PAGE):
        after, stored = batch[-1][0], [item for _, item in batch]
        yield [item for item, is_same in zip(stored, files.unchanged(version, stored), strict=True) if not is_same]


def check_catalog_pages(
    version: Version, catalog: Catalog, cursor: str, find_unchanged: FindUnchanged
) -> Iterator[PresencePage]:
    """Check the files that the catalog lists, page by page, from the key `cursor` on."""
    has_more = True
    while has_more:
        batch = catalog.list_stored(version, cursor, limit=FILES_PER_PRESENCE_PAGE)
        has_more, stored = len(batch) == FILES_PER_PRESENCE_PAGE, [item for _, item in batch]
        cursor = batch[-1][0] if has_more else ""
        is_unchanged = find_unchanged(version, stored)
        changed = [item for item, is_same in zip(stored, is_unchanged, strict=True) if not is_same]
        yield PresencePage(len(stored), changed, cursor)
