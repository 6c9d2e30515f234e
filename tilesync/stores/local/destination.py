"""A local folder as destination: opened, checked to be ours, and held by one run at a time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tilesync.catalog.catalog import SqliteCatalog
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
"""Under which key the catalog in a state folder elsewhere keeps the DEST that it is of."""

_HAS_EFFECTIVE_IDS = os.access in os.supports_effective_ids


@dataclass(frozen=True)
class DestinationFolder:
    """A folder that is a destination, or may become one. `state` has the catalog and the lock."""

    root: Path
    state: Path

    @classmethod
    def from_paths(cls, root: Path, state_dir: Path | None) -> DestinationFolder:
        """The folder, with its state inside unless that is chosen elsewhere. Raises DestinationError for a file."""
        root = root.absolute()
        refuse_file(root)
        if state_dir is not None:
            refuse_file(state_dir.absolute(), hint="check --state-dir")
        return cls(root, state_dir.absolute() if state_dir is not None else root / STATE_DIR)

    @property
    def staging_dir(self) -> Path:
        """Where lies what is renamed into its place: in the state folder, or in one beside the files where that is on
        another file system.
        """
        within = self.root / STATE_DIR
        with translate_read_errors(f"cannot look at {self.root}"):
            if self._has_manifests(within) and not self._has_manifests(self.state):
                return within  # whatever became of the other one
            there = self.root.exists() and self.state.exists()
            same = not there or os.stat(self.root).st_dev == os.stat(self.state).st_dev
        return self.state if same else within

    def _has_manifests(self, path: Path) -> bool:
        """Whether a flat layout has its manifests there. What may not be looked at has none: that shows later."""
        with suppress(PermissionError):
            return self._tree(path).find(MANIFESTS_DIR) is not None
        return False

    def _tree(self, path: Path) -> DirectoryTree:
        """The folders of the state; no link leads to it from the root."""
        return DirectoryTree.from_path(path, self.root)

    def detect_layout(self) -> Layout | None:
        """The layout that is found here; None where nothing was finished yet."""
        beside = self.staging_dir
        with translate_read_errors(f"cannot read {beside}"):
            if self._has_manifests(beside):
                return Layout.FLAT
            if LocalPublication(self.root, beside).manifest_names():
                return Layout.VERSIONED
            self._tree(beside).find(MANIFESTS_DIR)  # or it may not be looked at
        return None

    def refuse_state_inside(self, layout: Layout | None) -> None:
        """Raise DestinationError where files would stand on the state."""
        root, state = (Path(os.path.realpath(path)) for path in (self.root, self.state))
        inside = state != root / STATE_DIR and state.is_relative_to(root)
        if state == root or (inside and layout is Layout.FLAT):
            raise DestinationError(f"the state cannot lie in {self.state}, among the files", hint="check --state-dir")

    def refuse_occupied(self, layout: Layout, *, adopt: bool) -> None:
        """Raise DestinationError where things of others lie in a folder that is no destination yet. With `adopt` that
        is meant, and only what is in the way is refused; in the flat layout that may be anything.
        """
        with translate_os_errors(f"cannot read {self.root}"):
            names = os.listdir(self.root) if self.root.is_dir() else []
            there = [name for name in find_foreign_entries(names) if not self.state.is_relative_to(self.root / name)]
            begun = os.path.isdir(self.root / STATE_DIR) or self._looks_started(there)
        if not there or begun or self.detect_layout() is not None:
            return
        in_the_way = there if layout is Layout.FLAT else find_reserved_names(there)
        if in_the_way:
            raise DestinationError(
                f"{self.root} is no destination of tilesync, and holds {join_names(in_the_way)}",
                hint="choose an empty folder, or one that tilesync made",
            )
        if not adopt:
            raise DestinationError(
                f"{self.root} is no destination of tilesync, and is not empty: it holds {join_names(there)}",
                hint="choose an empty folder; or give --adopt, if these files are to stay beside the tiles",
            )

    def _looks_started(self, names: list[str]) -> bool:
        """Whether what lies there is what a first run left: its state is known, or the names of exports show it."""
        if (self.state / CATALOG_FILE).exists() and RESERVED_NAMES.issuperset(names):
            return True
        return set(names) - {CHECKED_FILE} == {VERSIONS_DIR} and all(
            map(is_export_id, os.listdir(self.root / VERSIONS_DIR))
        )

    def catalog_path(self) -> Path:
        """The path of the catalog. Raises DestinationError where a link leads to it from the root."""
        with translate_read_errors(f"cannot read the state in {self.state}"):
            self._tree(self.state).find()
        return self.state / CATALOG_FILE

    def refuse_foreign_state(self) -> None:
        """Raise DestinationError where the state is that of another folder, which is there still. One that was moved
        takes its state along.
        """
        if self.state == self.root / STATE_DIR or not os.path.isfile(path := self.catalog_path()):
            return
        known = None
        with (
            suppress(DestinationError),
            closing(SqliteCatalog(path, read_only=True)) as catalog,
        ):  # a damaged one is told later
            known = catalog.get_value(DESTINATION_KEY)
        if known and known != os.path.realpath(self.root) and os.path.isdir(known):
            raise DestinationError(
                f"the state in {self.state} is that of {known}, not of {self.root}",
                hint="give each DEST a --state-dir of its own",
            )

    def path_resolvers(self, layout: Layout) -> Sequence[SafePathResolver]:
        """The ways to the files."""
        if layout is Layout.FLAT:
            return SafePathResolver(self._tree(self.staging_dir), within=STAGED_DIR), SafePathResolver(
                self.root, within=None
            )
        return (SafePathResolver(self.root),)

    def open_publication(
        self, layout: Layout, resolvers: Sequence[SafePathResolver] | None = None, catalog: SqliteCatalog | None = None
    ) -> LocalPublication:
        """What leads to the versions. Without a catalog it is for reading."""
        if layout is Layout.FLAT:
            known = catalog.stale_files.find_stamps if catalog is not None else None
            return FlatPublication(self.root, self.staging_dir, resolvers or self.path_resolvers(layout), known)
        return LocalPublication(self.root, self.staging_dir)

    def name_checker(self, layout: Layout) -> Callable[[Iterable[str]], None]:
        """What raises UnsafeName for names that cannot be held here."""
        return partial(
            check_file_names, path_bytes=max_name_bytes(self.root), reserved=STATE_DIR if layout is Layout.FLAT else ""
        )


class LocalDestination:
    """A folder, its state, and the two sides that the jobs use: `files` and `publication`.

    `calm` says that the machine has not restarted since the last run: what that run wrote is whole, durable or not.
    """

    is_shared = False

    def __init__(self, folder: DestinationFolder, layout: Layout, catalog: SqliteCatalog) -> None:
        self.root = folder.root
        self.layout = layout
        self.catalog = catalog
        self._boot_id = read_boot_id()
        self.is_intact = self._boot_id is not None and catalog.get_value("boot") == self._boot_id
        parts = DirectoryTree.from_path(
            _make_state_folder(_make_state_folder(folder.staging_dir) / PARTS_DIR), folder.root
        )
        doors, judge = folder.path_resolvers(layout), folder.name_checker(layout)
        self.files = LocalFiles(doors, parts, judge, trust_parts=self.is_intact)
        self.publication = folder.open_publication(layout, doors, catalog)
        catalog.set_case_insensitive(is_case_insensitive=is_case_insensitive(parts))
        self.publication.refuse_foreign()
        known = recorded_layout(catalog)
        refuse_other_layout(folder, known or layout, layout)
        if known is None:
            catalog.set_value("layout", layout)
        home = os.path.realpath(folder.root)
        if folder.state != folder.root / STATE_DIR and catalog.get_value(DESTINATION_KEY) != home:
            catalog.set_value(DESTINATION_KEY, home)

    def mark_intact(self) -> None:
        """Everything that is recorded as held has been checked since the machine started."""
        if not self.is_intact and self._boot_id is not None:
            self.catalog.set_value("boot", self._boot_id)
            self.is_intact = True


@dataclass(frozen=True)
class ReadOnlyDestination:
    """A destination to be read."""

    files: LocalStoredFiles
    publication: LocalPublication
    catalog: SqliteCatalog | None
    check_names: Callable[[Iterable[str]], None]
    layout: Layout


def refuse_other_layout(folder: DestinationFolder, found: Layout | None, wanted: Layout) -> None:
    """Raise DestinationError where another layout is found than is wanted."""
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
    """The destination, locked for this run alone; made where it is missing. Without a `layout` it must be there.

    Raises DestinationBusy at once when another run holds it, DestinationError when it cannot serve: then nothing was
    written. Two locks are held: one in DEST, which runs with other state folders see, and that of the state folder.
    """
    place = DestinationFolder.from_paths(root, state_dir)
    place.refuse_foreign_state()
    found = place.detect_layout()
    layout = layout or found
    place.refuse_state_inside(layout)
    if layout is None:
        raise DestinationError(
            f"no version is held in {place.root}", hint="give the folder that `tilesync mirror` filled"
        )
    publication = _admitted_publication(place, found, layout, admission)
    with translate_os_errors(f"cannot make the folder {place.root}"):
        place.root.mkdir(parents=True, exist_ok=True)
    place.catalog_path()  # refuses links on the way there
    shown, owner = str(place.root), publication.owner()
    with ExitStack() as leaving:
        if elsewhere := place.state != place.root / STATE_DIR:
            leaving.enter_context(
                locked_temporary_folder(place.root / STATE_DIR, shown, owner, observe or (lambda event: None))
            )
        hint = "give another folder with --state-dir, or mend that one" if elsewhere else None
        leaving.enter_context(locked_folder(place.state, shown, owner, hint=hint))
        catalog = SqliteCatalog(place.state / CATALOG_FILE)
        leaving.callback(catalog.close)
        yield LocalDestination(place, layout, catalog)


def _admitted_publication(
    folder: DestinationFolder, found: Layout | None, layout: Layout, admission: Admission | None
) -> LocalPublication:
    """What leads to the versions, to be read, where they may be mirrored to. Raises DestinationError."""
    refuse_other_layout(folder, found, layout)
    publication = folder.open_publication(layout)
    publication.refuse_foreign()
    if admission is not None:
        folder.refuse_occupied(layout, adopt=admission.adopt)
        admission.admit(publication)
    return publication


def recorded_layout(catalog: SqliteCatalog) -> Layout | None:
    """The layout that the catalog knows; None where it knows none, or knows it of a run that got nothing. Raises
    DestinationError for one that is none.
    """
    said = "" if catalog.is_vacant() else catalog.get_value("layout")
    with catalog.translate_value_errors():
        return Layout(said) if said else None


@contextmanager
def open_local_for_plan(
    root: Path, *, state_dir: Path | None, layout: Layout, admission: Admission | None = None
) -> Iterator[ReadOnlyDestination]:
    """What a destination knows, without writing anything; it need not be there."""
    place = DestinationFolder.from_paths(root, state_dir)
    place.refuse_foreign_state()
    publication = _admitted_publication(place, place.detect_layout(), layout, admission)
    with translate_read_errors(f"cannot read the state in {place.state}"):
        catalog = SqliteCatalog(place.catalog_path(), read_only=True)
    try:
        refuse_other_layout(place, recorded_layout(catalog) or layout, layout)
        yield ReadOnlyDestination(
            LocalStoredFiles(*place.path_resolvers(layout)), publication, catalog, place.name_checker(layout), layout
        )
    finally:
        catalog.close()


@contextmanager
def open_local_for_reading(root: Path) -> Iterator[ReadOnlyDestination]:
    """What a folder holds, told by its manifests alone: nothing of it is touched, and no lock is taken."""
    place = DestinationFolder.from_paths(root, None)
    layout = place.detect_layout() or Layout.VERSIONED
    yield ReadOnlyDestination(
        LocalStoredFiles(*place.path_resolvers(layout)),
        place.open_publication(layout),
        None,
        place.name_checker(layout),
        layout,
    )


def refuse_overlap(source: Path, root: Path, state_dir: Path | None) -> None:
    """Raise UsageError where what is written would lie in the folder that is read, or around it."""
    written = (root, *((state_dir,) if state_dir is not None else ()))
    for folder in written:
        if _is_within(folder, source) or (folder == root and _is_within(source, folder)):
            raise UsageError(
                f"SOURCE and DEST are one place, or one lies in the other: {source} and {folder}",
                hint="give another folder as DEST",
            )


def _is_within(path: Path, folder: Path) -> bool:
    """Whether a path is a folder that is there, or lies in it, under whatever names."""
    real = Path(os.path.realpath(path))
    with translate_os_errors(f"cannot look at {path}"):
        there = [each for each in (real, *real.parents) if each.exists()] if folder.exists() else []
        return any(os.path.samefile(each, folder) for each in there)


@contextmanager
def open_local_for_audit(root: Path, state_dir: Path | None) -> Iterator[ReadOnlyDestination]:
    """What a destination holds, and its catalog to mark findings in: None when there is none that can be written."""
    place = DestinationFolder.from_paths(root, state_dir)
    place.refuse_foreign_state()
    layout, path = place.detect_layout() or Layout.VERSIONED, place.catalog_path()
    try:
        usable = (
            os.access(path, os.W_OK, effective_ids=_HAS_EFFECTIVE_IDS) and read_schema_version(path) in SCHEMA_VERSIONS
        )
        catalog = SqliteCatalog(path) if usable else None
    except DestinationError:
        catalog = None
    try:
        files = LocalStoredFiles(*place.path_resolvers(layout))
        yield ReadOnlyDestination(files, place.open_publication(layout), catalog, place.name_checker(layout), layout)
    finally:
        if catalog is not None:
            catalog.close()


@contextmanager
def open_scratch_files() -> Iterator[tuple[SqliteCatalog, LocalStoredFiles, Callable[[Version, str, bytes], None]]]:
    """An empty catalog, files, and a way to put one there: all in a temporary folder that is gone with the context."""
    with tempfile.TemporaryDirectory(prefix="tilesync-") as folder:
        catalog, door = SqliteCatalog(Path(folder) / CATALOG_FILE, is_persistent=False), SafePathResolver(Path(folder))

        def put(version: Version, name: str, data: bytes) -> None:
            with translate_os_errors(f"cannot write {name}"):
                write_whole(door.entry(version.name, name, make=True), data, None)

        try:
            yield catalog, LocalStoredFiles(door), put
        finally:
            catalog.close()


def _make_state_folder(path: Path, *, hint: str | None = None) -> Path:
    """A real folder of the state at `path`, for this user alone, made where it is missing."""
    with translate_os_errors(f"cannot use {path}", hint=hint):
        path.parent.mkdir(parents=True, exist_ok=True)
        ensure_real_folder(path, make=True, mode=0o700)
    return path
