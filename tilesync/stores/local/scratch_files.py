"""Temporary catalog and files of a dry run or an audit."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tilesync.catalog.catalog import Catalog
from tilesync.model import Version
from tilesync.runtime.os_errors import translate_os_errors
from tilesync.stores.local.destination_folder import CATALOG_FILE
from tilesync.stores.local.fs import write_whole
from tilesync.stores.local.reader import LocalStoredFiles, SafePathResolver


@contextmanager
def open_scratch_files() -> Iterator[tuple[Catalog, LocalStoredFiles, Callable[[Version, str, bytes], None]]]:
    """Open an empty catalog and an empty folder, with a function to write a file. All is temporary."""
    with tempfile.TemporaryDirectory(prefix="tilesync-") as folder:
        catalog = Catalog(Path(folder) / CATALOG_FILE, is_persistent=False)
        catalog.prepare_for_many_rows()
        resolver = SafePathResolver(Path(folder))

        def put(version: Version, name: str, data: bytes) -> None:
            with translate_os_errors(f"cannot write {name}"):
                write_whole(resolver.entry(version.name, name, make=True), data, None)

        try:
            yield catalog, LocalStoredFiles(resolver), put
        finally:
            catalog.close()
