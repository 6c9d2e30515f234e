"""Local folder as destination: open it for a run, which locks it, or only to read it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path

from tilesync.catalog.catalog import Catalog
from tilesync.errors import DestinationError
from tilesync.model import Layout
from tilesync.protocols import Admission, Observer
from tilesync.runtime.os_errors import translate_os_errors, translate_read_errors
from tilesync.stores.local.destination_folder import (
    CATALOG_FILE,
    DESTINATION_KEY,
    STATE_DIR,
    DestinationFolder,
    refuse_other_layout,
)
from tilesync.stores.local.directory_handles import DirectoryTree
from tilesync.stores.local.file_names import is_case_insensitive
from tilesync.stores.local.folder_paths import refuse_missing
from tilesync.stores.local.fs import ensure_real_folder, read_boot_id
from tilesync.stores.local.lock_file import is_held, locked_folder, locked_temporary_folder
from tilesync.stores.local.public_files import open_public_files
from tilesync.stores.local.publication import PARTS_DIR, LocalPublication
from tilesync.stores.local.reader import LocalStoredFiles
from tilesync.stores.local.writer import LocalFiles
from tilesync.stores.opening import Mode, ReadOnlyDestination, open_audit_catalog


class LocalDestination:
    """An open, locked folder: its catalog, and `files` and `publication` for the jobs.

    `is_intact`: the machine has not restarted since the last run, so all files of that run are whole, durable or not.
    """

    is_shared = False

    def __init__(self, folder: DestinationFolder, layout: Layout, catalog: Catalog) -> None:
        self.root = folder.root
        self.layout = layout
        self.catalog = catalog
        self._boot_id = read_boot_id()
        self.is_intact = self._boot_id is not None and catalog.get_value("boot") == self._boot_id
        parts = DirectoryTree.from_path(
            _make_state_folder(_make_state_folder(folder.staging_dir) / PARTS_DIR), folder.root
        )
        resolvers, check_names = folder.path_resolvers(layout), folder.name_checker(layout)
        self.files = LocalFiles(resolvers, parts, check_names, trust_parts=self.is_intact)
        self.publication = folder.open_publication(layout, resolvers, catalog)
        catalog.set_case_insensitive(is_case_insensitive=is_case_insensitive(parts))
        self.publication.refuse_foreign()
        recorded = recorded_layout(catalog)
        refuse_other_layout(folder, recorded or layout, layout)
        if recorded is None:
            catalog.set_value("layout", layout)
        real_root = os.path.realpath(folder.root)
        if folder.state != folder.root / STATE_DIR and catalog.get_value(DESTINATION_KEY) != real_root:
            catalog.set_value(DESTINATION_KEY, real_root)

    def mark_intact(self) -> None:
        """Record that every stored file has been checked since the machine started."""
        if not self.is_intact and self._boot_id is not None:
            self.catalog.set_value("boot", self._boot_id)
            self.is_intact = True


@contextmanager
def open_local(
    root: Path,
    *,
    state_dir: Path | None,
    layout: Layout | None = Layout.VERSIONED,
    admission: Admission | None = None,
    observe: Observer | None = None,
) -> Iterator[LocalDestination]:
    """Open the destination and lock it for this run; create it if it is missing.

    Without a `layout` it must exist. Two locks are held: one in DEST, which runs with other state folders see, and one
    in the state folder.

    Raises DestinationBusy at once if another run holds it. Raises DestinationError if the folder cannot be used;
    nothing is written then.
    """
    folder = DestinationFolder.from_paths(root, state_dir)
    folder.refuse_foreign_state()
    detected = folder.detect_layout()
    layout = layout or detected
    folder.refuse_state_inside(layout)
    if layout is None:
        refuse_missing(root)
        raise DestinationError(
            f"{folder.root} contains no version", hint="give the folder that `tilesync mirror` filled"
        )
    publication = _admitted_publication(folder, detected, layout, admission)
    with translate_os_errors(f"cannot create the folder {folder.root}"):
        folder.root.mkdir(parents=True, exist_ok=True)
    folder.catalog_path()  # refuses symlinks on the way to the state
    display_name, owner = str(folder.root), publication.owner()
    with ExitStack() as exits:
        if is_state_separate := folder.state != folder.root / STATE_DIR:
            exits.enter_context(
                locked_temporary_folder(folder.root / STATE_DIR, display_name, owner, observe or (lambda event: None))
            )
        hint = "give another folder with --state-dir, or repair this one" if is_state_separate else None
        exits.enter_context(locked_folder(folder.state, display_name, owner, hint=hint))
        catalog = Catalog(folder.state / CATALOG_FILE)
        exits.callback(catalog.close)
        yield LocalDestination(folder, layout, catalog)


def _admitted_publication(
    folder: DestinationFolder, detected: Layout | None, layout: Layout, admission: Admission | None
) -> LocalPublication:
    """Open the publication for reading, if a run may write to this destination. Raises DestinationError."""
    refuse_other_layout(folder, detected, layout)
    publication = folder.open_publication(layout)
    publication.refuse_foreign()
    if admission is not None:
        folder.refuse_occupied(layout, adopt=admission.adopt)
        admission.admit(publication)
    return publication


def recorded_layout(catalog: Catalog) -> Layout | None:
    """Return the layout in the catalog; None if no run recorded it, or only one that stored nothing.

    Raises DestinationError if the value is not a layout.
    """
    value = "" if catalog.is_vacant() else catalog.get_value("layout")
    with catalog.translate_value_errors():
        return Layout(value) if value else None


@contextmanager
def open_local_read_only(
    root: Path,
    mode: Mode,
    *,
    state_dir: Path | None = None,
    layout: Layout | None = None,
    admission: Admission | None = None,
) -> Iterator[ReadOnlyDestination]:
    """Open the destination for any mode but WRITE; without a lock. Only AUDIT writes, and only to the catalog."""
    folder = DestinationFolder.from_paths(root, state_dir, is_read=mode is not Mode.PLAN)
    folder.refuse_foreign_state()
    detected = folder.detect_layout()
    layout = layout or detected or Layout.VERSIONED
    publication = (
        _admitted_publication(folder, detected, layout, admission)
        if mode is Mode.PLAN
        else folder.open_publication(layout)
    )
    catalog = _open_catalog(folder, mode)
    with closing(catalog) if catalog is not None else nullcontext():
        if mode is Mode.PLAN and catalog is not None:
            refuse_other_layout(folder, recorded_layout(catalog), layout)
        files = LocalStoredFiles(*folder.path_resolvers(layout))
        is_busy = mode is Mode.AUDIT and is_held(folder.state)
        yield ReadOnlyDestination(
            files,
            publication,
            catalog,
            folder.name_checker(layout),
            partial(open_public_files, folder.root),
            layout,
            is_busy,
        )


def _open_catalog(folder: DestinationFolder, mode: Mode) -> Catalog | None:
    """Open the catalog as the mode needs it; None without one."""
    if mode is Mode.READ:
        return None
    path = folder.catalog_path()
    if mode is Mode.AUDIT:
        return open_audit_catalog(path)
    with translate_read_errors(f"cannot read the state in {folder.state}"):
        return Catalog(path, read_only=True)


def _make_state_folder(path: Path, *, hint: str | None = None) -> Path:
    """Create a state folder that only this user can read, if it is missing."""
    with translate_os_errors(f"cannot use {path}", hint=hint):
        path.parent.mkdir(parents=True, exist_ok=True)
        ensure_real_folder(path, make=True, mode=0o700)
    return path
