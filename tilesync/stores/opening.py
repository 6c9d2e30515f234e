"""Opening of a destination: its mode, the read-only result, and the catalog that an audit records findings in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from tilesync.errors import DestinationError
from tilesync.model import Layout
from tilesync.protocols import PublicFiles, ReadOnlyPublication, StoredFiles, StructureChecks
from tilesync.values import dataclass

if TYPE_CHECKING:
    from tilesync.catalog.catalog import Catalog
    from tilesync.stores.worker_target import MakeWorkerStore

_HAS_EFFECTIVE_IDS = os.access in os.supports_effective_ids


class Mode(Enum):
    """Purpose of opening a destination.

    WRITE: lock it for a run, and create it if it is missing. PLAN: dry run, which writes nothing; the destination may
    be missing. READ: read its versions from the manifests, without its state. AUDIT: read it, and record findings in
    its catalog if that can be written.
    """

    WRITE = "write"
    PLAN = "plan"
    READ = "read"
    AUDIT = "audit"


@dataclass(frozen=True)
class ReadOnlyDestination:
    """A destination that is only read. `catalog` is None without a usable one.

    `open_public_files`: opens its files by their paths, for a server. `is_busy`: a run of this machine holds its lock.
    Only mode AUDIT knows. `structure_checks`: further checks of an audit; only a package has them. `make_worker_store`:
    how worker processes read from an object store, if they can.
    """

    files: StoredFiles
    publication: ReadOnlyPublication
    catalog: Catalog | None
    check_names: Callable[[Iterable[str]], None]
    open_public_files: Callable[[], AbstractContextManager[PublicFiles]]
    layout: Layout = Layout.VERSIONED
    is_busy: bool = False
    structure_checks: StructureChecks | None = None
    make_worker_store: MakeWorkerStore | None = None


def open_audit_catalog(path: Path) -> Catalog | None:
    """Open a catalog to record findings in; None if it is missing, damaged, of another schema, or not writable."""
    from tilesync.catalog.catalog import Catalog
    from tilesync.catalog.schema import SCHEMA_VERSIONS
    from tilesync.catalog.sqlite import read_schema_version

    try:
        is_writable = os.access(path, os.W_OK, effective_ids=_HAS_EFFECTIVE_IDS)
        return Catalog(path) if is_writable and read_schema_version(path) in SCHEMA_VERSIONS else None
    except DestinationError:
        return None
