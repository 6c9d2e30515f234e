"""A local folder as destination: opened, checked to be ours, and held by one run at a time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tilesync.errors import DestinationBusy, DestinationError, UsageError
from tilesync.model import Layout, Version
from tilesync.stores.catalog import SCHEMA_VERSIONS, Catalog
from tilesync.stores.database import schema_of
from tilesync.stores.disk import boot_id, mapped, reading, real_folder, refuse_shared, write_whole
from tilesync.stores.files import LocalFiles, folds_case, judge_names, path_limit
from tilesync.stores.flat import STAGED, FlatPublication
from tilesync.stores.folders import Tree
from tilesync.stores.held import Door, HeldFiles
from tilesync.stores.publication import MANIFESTS, PARTS, Publication

STATE = ".tilesync"
CATALOG = "catalog.sqlite3"
_EFFECTIVE = os.access in os.supports_effective_ids


@dataclass(frozen=True)
class Place:
    """A folder that is a destination, or may become one. `state` has the catalog and the lock."""

    root: Path
    state: Path

    @classmethod
    def of(cls, root: Path, state_dir: Path | None) -> Place:
        """The folder, with its state inside unless that is chosen elsewhere."""
        root = root.absolute()
        return cls(root, state_dir.absolute() if state_dir is not None else root / STATE)

    @property
    def beside(self) -> Path:
        """Where lies what is renamed into its place: in the state folder, or in one beside the files where that is on
        another file system.
        """
        within = self.root / STATE
        with reading(f"cannot look at {self.root}"):
            if self._tree(within).find(MANIFESTS) and not self._tree(self.state).find(MANIFESTS):
                return within  # whatever became of the other one
            there = self.root.exists() and self.state.exists()
            same = not there or os.stat(self.root).st_dev == os.stat(self.state).st_dev
        return self.state if same else within

    def _tree(self, path: Path) -> Tree:
        """The folders of the state; no link leads to it from the root."""
        return Tree.of(path, self.root)

    def layout(self) -> Layout | None:
        """The layout that is found here; None where nothing was finished yet."""
        beside = self.beside
        with reading(f"cannot read {beside}"):
            if self._tree(beside).find(MANIFESTS) is not None:
                return Layout.FLAT
        return Layout.VERSIONED if Publication(self.root, beside).manifest_names() else None

    def refuse_state_inside(self, layout: Layout | None) -> None:
        """Raise DestinationError where files would stand on the state."""
        root, state = (Path(os.path.realpath(path)) for path in (self.root, self.state))
        inside = state != root / STATE and state.is_relative_to(root)
        if state == root or (inside and layout is Layout.FLAT):
            raise DestinationError(f"the state cannot lie in {self.state}, among the files", hint="check --state-dir")

    def catalog(self) -> Path:
        """The path of the catalog. Raises DestinationError where a link leads to it from the root."""
        with reading(f"cannot read the state in {self.state}"):
            self._tree(self.state).find()
        return self.state / CATALOG

    def doors(self, layout: Layout) -> Sequence[Door]:
        """The ways to the files."""
        if layout is Layout.FLAT:
            return Door(self._tree(self.beside), within=STAGED), Door(self.root, within=None)
        return (Door(self.root),)

    def publication(
        self, layout: Layout, doors: Sequence[Door] | None = None, catalog: Catalog | None = None
    ) -> Publication:
        """What leads to the versions. Without a catalog it is for reading."""
        if layout is Layout.FLAT:
            known = catalog.leftovers.known if catalog is not None else None
            return FlatPublication(self.root, self.beside, doors or self.doors(layout), known)
        return Publication(self.root, self.beside)

    def judge(self, layout: Layout) -> Callable[[Iterable[str]], None]:
        """What raises UnsafeName for names that cannot be held here."""
        return partial(judge_names, path_bytes=path_limit(self.root), ours=STATE if layout is Layout.FLAT else "")


class LocalDestination:
    """A folder, its state, and the two sides that the jobs use: `files` and `publication`.

    `calm` says that the machine has not restarted since the last run: what that run wrote is whole, durable or not.
    """

    shared = False

    def __init__(self, place: Place, layout: Layout, catalog: Catalog) -> None:
        self.root = place.root
        self.layout = layout
        self.catalog = catalog
        self._boot = boot_id()
        self.calm = self._boot is not None and catalog.recall("boot") == self._boot
        parts = Tree.of(_folder(_folder(place.beside) / PARTS), place.root)
        doors, judge = place.doors(layout), place.judge(layout)
        self.files = LocalFiles(doors, parts, judge, trust_parts=self.calm)
        self.publication = place.publication(layout, doors, catalog)
        catalog.set_folds(folds=folds_case(parts))
        self.publication.refuse_foreign()
        refuse_other(place, known_layout(catalog) or layout, layout)
        catalog.remember("layout", layout)

    def settle(self) -> None:
        """Everything that is recorded as held has been checked since the machine started."""
        if not self.calm and self._boot is not None:
            self.catalog.remember("boot", self._boot)
            self.calm = True


@dataclass(frozen=True)
class Sight:
    """A destination to be read."""

    files: HeldFiles
    publication: Publication
    catalog: Catalog | None
    judge: Callable[[Iterable[str]], None]
    layout: Layout


def refuse_other(place: Place, found: Layout | None, wanted: Layout) -> None:
    """Raise DestinationError where another layout is found than is wanted."""
    if found is not None and found is not wanted:
        raise DestinationError(
            f"{place.root} has the layout {found}, not {wanted}",
            hint=f"give --layout {found}, or choose another folder",
        )


@contextmanager
def open_local(
    root: Path, *, state_dir: Path | None, layout: Layout | None = Layout.VERSIONED
) -> Iterator[LocalDestination]:
    """The destination, locked for this run alone; made where it is missing. Without a `layout` it must be there.

    Raises DestinationBusy at once when another run holds it, DestinationError when it cannot serve. The lock is the
    kernel's: it ends with the process, also with kill -9.
    """
    from filelock import FileLock, Timeout

    place = Place.of(root, state_dir)
    found = place.layout()
    layout = layout or found
    place.refuse_state_inside(layout)
    if layout is None:
        raise DestinationError(
            f"no version is held in {place.root}", hint="give the folder that `tilesync mirror` filled"
        )
    refuse_other(place, found, layout)
    with mapped(f"cannot make the folder {place.root}"):
        place.root.mkdir(parents=True, exist_ok=True)
    place.publication(layout).refuse_foreign()
    place.catalog()  # refuses links on the way there
    state = _folder(
        place.state,
        hint=None if place.state == place.root / STATE else "give another folder with --state-dir, or mend that one",
    )
    lock = FileLock(state / "lock")
    with mapped(f"cannot lock {state}"):
        refuse_shared(state / "lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise DestinationBusy(f"another run holds {place.root}") from None
    try:
        catalog = Catalog(state / CATALOG)
        try:
            yield LocalDestination(place, layout, catalog)
        finally:
            catalog.close()
    finally:
        lock.release()


def known_layout(catalog: Catalog) -> Layout | None:
    """The layout that the catalog knows; None where it knows none. Raises DestinationError for one that is none."""
    said = catalog.recall("layout")
    with catalog.reading():
        return Layout(said) if said else None


@contextmanager
def look_at(root: Path, *, state_dir: Path | None, layout: Layout) -> Iterator[Sight]:
    """What a destination knows, without writing anything; it need not be there."""
    place = Place.of(root, state_dir)
    refuse_other(place, place.layout(), layout)
    publication = place.publication(layout)
    publication.refuse_foreign()
    with reading(f"cannot read the state in {place.state}"):
        catalog = Catalog(place.catalog(), read_only=True)
    try:
        refuse_other(place, known_layout(catalog) or layout, layout)
        yield Sight(HeldFiles(*place.doors(layout)), publication, catalog, place.judge(layout), layout)
    finally:
        catalog.close()


@contextmanager
def open_to_read(root: Path) -> Iterator[Sight]:
    """What a folder holds, told by its manifests alone: nothing of it is touched, and no lock is taken."""
    place = Place.of(root, None)
    layout = place.layout() or Layout.VERSIONED
    yield Sight(HeldFiles(*place.doors(layout)), place.publication(layout), None, place.judge(layout), layout)


def refuse_overlap(source: Path, root: Path, state_dir: Path | None) -> None:
    """Raise UsageError where what is written would lie in the folder that is read, or around it."""
    written = (root, *((state_dir,) if state_dir is not None else ()))
    for folder in written:
        if _within(folder, source) or (folder == root and _within(source, folder)):
            raise UsageError(
                f"SOURCE and DEST are one place, or one lies in the other: {source} and {folder}",
                hint="give another folder as DEST",
            )


def _within(path: Path, folder: Path) -> bool:
    """Whether a path is a folder that is there, or lies in it, under whatever names."""
    real = Path(os.path.realpath(path))
    with mapped(f"cannot look at {path}"):
        there = [each for each in (real, *real.parents) if each.exists()] if folder.exists() else []
        return any(os.path.samefile(each, folder) for each in there)


@contextmanager
def open_for_audit(root: Path, state_dir: Path | None) -> Iterator[Sight]:
    """What a destination holds, and its catalog to mark findings in: None when there is none that can be written."""
    place = Place.of(root, state_dir)
    layout, path = place.layout() or Layout.VERSIONED, place.catalog()
    try:
        usable = os.access(path, os.W_OK, effective_ids=_EFFECTIVE) and schema_of(path) in SCHEMA_VERSIONS
        catalog = Catalog(path) if usable else None
    except DestinationError:
        catalog = None
    try:
        files = HeldFiles(*place.doors(layout))
        yield Sight(files, place.publication(layout), catalog, place.judge(layout), layout)
    finally:
        if catalog is not None:
            catalog.close()


@contextmanager
def scratch() -> Iterator[tuple[Catalog, HeldFiles, Callable[[Version, str, bytes], None]]]:
    """An empty catalog, files, and a way to put one there: all in a temporary folder that is gone with the context."""
    with tempfile.TemporaryDirectory(prefix="tilesync-") as folder:
        catalog, door = Catalog(Path(folder) / CATALOG, lasting=False), Door(Path(folder))

        def put(version: Version, name: str, data: bytes) -> None:
            with mapped(f"cannot write {name}"):
                write_whole(door.entry(version.name, name, make=True), data, None)

        try:
            yield catalog, HeldFiles(door), put
        finally:
            catalog.close()


def _folder(path: Path, *, hint: str | None = None) -> Path:
    """A real folder of the state at `path`, for this user alone, made where it is missing."""
    with mapped(f"cannot use {path}", hint=hint):
        path.parent.mkdir(parents=True, exist_ok=True)
        real_folder(path, make=True, mode=0o700)
    return path
