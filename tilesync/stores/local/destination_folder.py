"""Folder that is a local destination or may become one: its state folder, its layout, and what must not be in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

from tilesync.catalog.catalog import Catalog
from tilesync.core.ownership import RESERVED_NAMES, find_foreign_entries, find_reserved_names, is_export_id, join_names
from tilesync.errors import DestinationError, UsageError
from tilesync.model import Layout
from tilesync.runtime.os_errors import translate_os_errors, translate_read_errors
from tilesync.stores.base import MANIFESTS_DIR, VERSIONS_DIR
from tilesync.stores.local.directory_handles import DirectoryTree
from tilesync.stores.local.file_names import check_file_names, max_name_bytes
from tilesync.stores.local.flat_layout import STAGED_DIR, FlatPublication
from tilesync.stores.local.folder_paths import refuse_file
from tilesync.stores.local.publication import LocalPublication
from tilesync.stores.local.reader import SafePathResolver
from tilesync.stores.status_files import CHECKED_FILE
from tilesync.values import dataclass

STATE_DIR = ".tilesync"
CATALOG_FILE = "catalog.sqlite3"
DESTINATION_KEY = "serves"
"""Catalog key of the DEST that a separate state folder belongs to."""


@dataclass(frozen=True)
class DestinationFolder:
    """A folder that is a destination or may become one. `state` is the folder of the catalog and the lock."""

    root: Path
    state: Path

    @classmethod
    def from_paths(cls, root: Path, state_dir: Path | None, *, is_read: bool = False) -> DestinationFolder:
        """Create from paths; without `state_dir` the state is in `root`. Raises DestinationError if one is a file.

        `is_read`: the hint of the error also suggests what can only be read.
        """
        root = root.absolute()
        refuse_file(root, is_read=is_read)
        if state_dir is not None:
            refuse_file(state_dir.absolute(), hint="check --state-dir")
        return cls(root, state_dir.absolute() if state_dir is not None else root / STATE_DIR)

    @property
    def staging_dir(self) -> Path:
        """The folder of files before they are renamed into place; it must be on the same file system as the root.

        This is the state folder if possible, and else `.tilesync` in the root.
        """
        inner_state = self.root / STATE_DIR
        with translate_read_errors(f"cannot inspect {self.root}"):
            if self._has_manifests(inner_state) and not self._has_manifests(self.state):
                return inner_state  # an earlier run staged there; the state folder may have been replaced since
            both_exist = self.root.exists() and self.state.exists()
            is_same_device = not both_exist or os.stat(self.root).st_dev == os.stat(self.state).st_dev
        return self.state if is_same_device else inner_state

    def _has_manifests(self, path: Path) -> bool:
        """Return whether manifests of a flat layout are at `path`. False without permission; a later step fails."""
        with suppress(PermissionError):
            return self._tree(path).find(MANIFESTS_DIR) is not None
        return False

    def _tree(self, path: Path) -> DirectoryTree:
        """Return the directory tree of a state folder; no symlink below the root may lead to it."""
        return DirectoryTree.from_path(path, self.root)

    def detect_layout(self) -> Layout | None:
        """Detect the layout of the folder; None if no version was published yet."""
        staging = self.staging_dir
        with translate_read_errors(f"cannot read {staging}"):
            if self._has_manifests(staging):
                return Layout.FLAT
            if LocalPublication(self.root, staging).manifest_names():
                return Layout.VERSIONED
            self._tree(staging).find(MANIFESTS_DIR)  # raises if there is no permission to look
        return None

    def refuse_state_inside(self, layout: Layout | None) -> None:
        """Raise DestinationError if published files would go to the state folder."""
        root, state = (Path(os.path.realpath(path)) for path in (self.root, self.state))
        is_inside = state != root / STATE_DIR and state.is_relative_to(root)
        if state == root or (is_inside and layout is Layout.FLAT):
            raise DestinationError(
                f"the state folder cannot be {self.state}: published files go there",
                hint="choose a folder outside DEST with --state-dir",
            )

    def refuse_occupied(self, layout: Layout, *, adopt: bool) -> None:
        """Raise DestinationError if a folder that is not a destination yet contains foreign files.

        `adopt` allows foreign files that do not collide with ours. In the flat layout every file may collide.
        """
        with translate_os_errors(f"cannot read {self.root}"):
            names = os.listdir(self.root) if self.root.is_dir() else []
            foreign = [name for name in find_foreign_entries(names) if not self.state.is_relative_to(self.root / name)]
            is_started = os.path.isdir(self.root / STATE_DIR) or self._looks_started(foreign)
        if not foreign or is_started or self.detect_layout() is not None:
            return
        colliding = foreign if layout is Layout.FLAT else find_reserved_names(foreign)
        if colliding:
            raise DestinationError(
                f"{self.root} is not a tilesync destination and contains {join_names(colliding)}",
                hint="choose an empty folder, or one that tilesync created",
            )
        if not adopt:
            raise DestinationError(
                f"{self.root} is not a tilesync destination and is not empty: it contains {join_names(foreign)}",
                hint="choose an empty folder; or give --adopt (in a fleet file: adopt = true) to keep these files"
                " beside the tiles",
            )

    def _looks_started(self, names: list[str]) -> bool:
        """Return whether an unfinished first run left these names: a catalog exists, or only exports do."""
        if (self.state / CATALOG_FILE).exists() and RESERVED_NAMES.issuperset(names):
            return True
        return set(names) - {CHECKED_FILE} == {VERSIONS_DIR} and all(
            map(is_export_id, os.listdir(self.root / VERSIONS_DIR))
        )

    def catalog_path(self) -> Path:
        """Return the path of the catalog. Raises DestinationError if a symlink below the root leads to it."""
        with translate_read_errors(f"cannot read the state in {self.state}"):
            self._tree(self.state).find()
        return self.state / CATALOG_FILE

    def refuse_foreign_state(self) -> None:
        """Raise DestinationError if the state belongs to another existing folder. A moved DEST keeps its state."""
        if self.state == self.root / STATE_DIR or not os.path.isfile(path := self.catalog_path()):
            return
        other_root = None
        with (
            suppress(DestinationError),
            closing(Catalog(path, read_only=True)) as catalog,
        ):  # a damaged catalog is reported when it is opened for use
            other_root = catalog.get_value(DESTINATION_KEY)
        if other_root and other_root != os.path.realpath(self.root) and os.path.isdir(other_root):
            raise DestinationError(
                f"the state folder {self.state} belongs to {other_root}, not to {self.root}",
                hint="give each DEST its own --state-dir",
            )

    def path_resolvers(self, layout: Layout) -> Sequence[SafePathResolver]:
        """Return the path resolvers of the files: in the flat layout, staged files first, then published ones."""
        if layout is Layout.FLAT:
            return SafePathResolver(self._tree(self.staging_dir), within=STAGED_DIR), SafePathResolver(
                self.root, within=None
            )
        return (SafePathResolver(self.root),)

    def open_publication(
        self, layout: Layout, resolvers: Sequence[SafePathResolver] | None = None, catalog: Catalog | None = None
    ) -> LocalPublication:
        """Open the publication. Without a catalog it is for reading only."""
        if layout is Layout.FLAT:
            find_stamps = catalog.stale_files.find_stamps if catalog is not None else None
            return FlatPublication(self.root, self.staging_dir, resolvers or self.path_resolvers(layout), find_stamps)
        return LocalPublication(self.root, self.staging_dir)

    def name_checker(self, layout: Layout) -> Callable[[Iterable[str]], None]:
        """Return a function that raises UnsafeName for names that this folder cannot store."""
        return partial(
            check_file_names, path_bytes=max_name_bytes(self.root), reserved=STATE_DIR if layout is Layout.FLAT else ""
        )


def refuse_other_layout(folder: DestinationFolder, found: Layout | None, wanted: Layout) -> None:
    """Raise DestinationError if the folder has another layout than the wanted one."""
    if found is not None and found is not wanted:
        raise DestinationError(
            f"{folder.root} has the layout {found}, not {wanted}",
            hint=f"give --layout {found}, or choose another folder",
        )


def refuse_overlap(source: Path, root: Path, state_dir: Path | None) -> None:
    """Raise UsageError if DEST or the state folder overlaps the SOURCE folder."""
    written = (root, *((state_dir,) if state_dir is not None else ()))
    for folder in written:
        if _is_within(folder, source) or (folder == root and _is_within(source, folder)):
            raise UsageError(
                f"SOURCE and DEST are the same folder, or one contains the other: {source} and {folder}",
                hint="give another folder as DEST",
            )


def _is_within(path: Path, folder: Path) -> bool:
    """Return whether a path is an existing folder or is inside it; other names of the same folder count too."""
    real = Path(os.path.realpath(path))
    with translate_os_errors(f"cannot inspect {path}"):
        existing = [candidate for candidate in (real, *real.parents) if candidate.exists()] if folder.exists() else []
        return any(os.path.samefile(candidate, folder) for candidate in existing)
