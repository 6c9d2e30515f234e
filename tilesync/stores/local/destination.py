"""Local folder as destination: open it, check that it belongs to tilesync, and lock it for one run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tilesync.catalog.catalog import Catalog
from tilesync.catalog.schema import SCHEMA_VERSIONS
from tilesync.catalog.sqlite import read_schema_version
from tilesync.core.ownership import RESERVED_NAMES, find_foreign_entries, find_reserved_names, is_export_id, join_names
from tilesync.errors import DestinationError, UsageError
from tilesync.model import Layout, Version
from tilesync.protocols import Admission, Observer
from tilesync.runtime.os_errors import translate_os_errors, translate_read_errors
from tilesync.stores.local.directory_handles import DirectoryTree
from tilesync.stores.local.flat_layout import STAGED_DIR, FlatPublication
from tilesync.stores.local.folder_paths import refuse_file
from tilesync.stores.local.fs import ensure_real_folder, read_boot_id, write_whole
from tilesync.stores.local.lock_file import locked_folder, locked_temporary_folder
from tilesync.stores.local.publication import MANIFESTS_DIR, PARTS_DIR, LocalPublication
from tilesync.stores.local.reader import VERSIONS_DIR, LocalStoredFiles, SafePathResolver
from tilesync.stores.local.writer import LocalFiles, check_file_names, is_case_insensitive, max_name_bytes
from tilesync.stores.status_files import CHECKED_FILE

STATE_DIR = ".tilesync"
CATALOG_FILE = "catalog.sqlite3"
DESTINATION_KEY = "serves"
"""Catalog key of the DEST that a separate state folder belongs to."""

_HAS_EFFECTIVE_IDS = os.access in os.supports_effective_ids


@dataclass(frozen=True)
class DestinationFolder:
    """A folder that is a destination or may become one. `state` is the folder of the catalog and the lock."""

    root: Path
    state: Path

    @classmethod
    def from_paths(cls, root: Path, state_dir: Path | None) -> DestinationFolder:
        """Create from paths; without `state_dir` the state is in `root`. Raises DestinationError if one is a file."""
        root = root.absolute()
        refuse_file(root)
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
                hint="choose an empty folder; or give --adopt to keep these files beside the tiles",
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


@dataclass(frozen=True)
class ReadOnlyDestination:
    """A destination that is only read."""

    files: LocalStoredFiles
    publication: LocalPublication
    catalog: Catalog | None
    check_names: Callable[[Iterable[str]], None]
    layout: Layout


def refuse_other_layout(folder: DestinationFolder, found: Layout | None, wanted: Layout) -> None:
    """Raise DestinationError if the folder has another layout than the wanted one."""
    if found is not None and found is not wanted:
        raise DestinationError(
            f"{folder.root} has the layout {found}, not {wanted}",
            hint=f"give --layout {found}, or choose another folder",
        )


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
def open_local_for_plan(
    root: Path, *, state_dir: Path | None, layout: Layout, admission: Admission | None = None
) -> Iterator[ReadOnlyDestination]:
    """Open a destination to plan a run. Writes nothing, and the destination may be missing."""
    folder = DestinationFolder.from_paths(root, state_dir)
    folder.refuse_foreign_state()
    publication = _admitted_publication(folder, folder.detect_layout(), layout, admission)
    with translate_read_errors(f"cannot read the state in {folder.state}"):
        catalog = Catalog(folder.catalog_path(), read_only=True)
    try:
        refuse_other_layout(folder, recorded_layout(catalog) or layout, layout)
        yield ReadOnlyDestination(
            LocalStoredFiles(*folder.path_resolvers(layout)), publication, catalog, folder.name_checker(layout), layout
        )
    finally:
        catalog.close()


@contextmanager
def open_local_for_reading(root: Path) -> Iterator[ReadOnlyDestination]:
    """Open a folder to read its versions, from the manifests alone. Writes nothing and takes no lock."""
    folder = DestinationFolder.from_paths(root, None)
    layout = folder.detect_layout() or Layout.VERSIONED
    yield ReadOnlyDestination(
        LocalStoredFiles(*folder.path_resolvers(layout)),
        folder.open_publication(layout),
        None,
        folder.name_checker(layout),
        layout,
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


@contextmanager
def open_local_for_audit(root: Path, state_dir: Path | None) -> Iterator[ReadOnlyDestination]:
    """Open a destination for an audit: its files, and the catalog to record findings, None if none is writable."""
    folder = DestinationFolder.from_paths(root, state_dir)
    folder.refuse_foreign_state()
    layout, path = folder.detect_layout() or Layout.VERSIONED, folder.catalog_path()
    try:
        is_writable = (
            os.access(path, os.W_OK, effective_ids=_HAS_EFFECTIVE_IDS) and read_schema_version(path) in SCHEMA_VERSIONS
        )
        catalog = Catalog(path) if is_writable else None
    except DestinationError:
        catalog = None
    try:
        files = LocalStoredFiles(*folder.path_resolvers(layout))
        yield ReadOnlyDestination(files, folder.open_publication(layout), catalog, folder.name_checker(layout), layout)
    finally:
        if catalog is not None:
            catalog.close()


@contextmanager
def open_scratch_files() -> Iterator[tuple[Catalog, LocalStoredFiles, Callable[[Version, str, bytes], None]]]:
    """Open an empty catalog and an empty folder, with a function to write a file. All is temporary."""
    with tempfile.TemporaryDirectory(prefix="tilesync-") as folder:
        catalog = Catalog(Path(folder) / CATALOG_FILE, is_persistent=False)
        resolver = SafePathResolver(Path(folder))

        def put(version: Version, name: str, data: bytes) -> None:
            with translate_os_errors(f"cannot write {name}"):
                write_whole(resolver.entry(version.name, name, make=True), data, None)

        try:
            yield catalog, LocalStoredFiles(resolver), put
        finally:
            catalog.close()


def _make_state_folder(path: Path, *, hint: str | None = None) -> Path:
    """Create a state folder that only this user can read, if it is missing."""
    with translate_os_errors(f"cannot use {path}", hint=hint):
        path.parent.mkdir(parents=True, exist_ok=True)
        ensure_real_folder(path, make=True, mode=0o700)
    return path
