"""A local folder as destination: opened, checked to be ours, and held by one run at a time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tilesync.catalog.catalog import SCHEMA_VERSIONS, Catalog
from tilesync.catalog.sqlite import schema_of
from tilesync.core.ownership import OURS, clashing, is_export_id, listed, strangers
from tilesync.errors import DestinationError, UsageError
from tilesync.model import Layout, Version
from tilesync.protocols import Admission, Observer
from tilesync.runtime.os_errors import mapped, reading
from tilesync.stores.local.directory_handles import Tree
from tilesync.stores.local.flat_layout import STAGED, FlatPublication
from tilesync.stores.local.folder_paths import refuse_file
from tilesync.stores.local.fs import boot_id, real_folder, write_whole
from tilesync.stores.local.lock_file import lent_folder, locked_folder
from tilesync.stores.local.publication import MANIFESTS, PARTS, Publication
from tilesync.stores.local.reader import VERSIONS, Door, HeldFiles
from tilesync.stores.local.writer import LocalFiles, folds_case, judge_names, path_limit
from tilesync.stores.status_files import CHECKED

STATE = ".tilesync"
CATALOG = "catalog.sqlite3"
SERVES = "serves"
"""Under which key the catalog in a state folder elsewhere keeps the DEST that it is of."""

_EFFECTIVE = os.access in os.supports_effective_ids


@dataclass(frozen=True)
class Place:
    """A folder that is a destination, or may become one. `state` has the catalog and the lock."""

    root: Path
    state: Path

    @classmethod
    def of(cls, root: Path, state_dir: Path | None) -> Place:
        """The folder, with its state inside unless that is chosen elsewhere. Raises DestinationError for a file."""
        root = root.absolute()
        refuse_file(root)
        if state_dir is not None:
            refuse_file(state_dir.absolute(), hint="check --state-dir")
        return cls(root, state_dir.absolute() if state_dir is not None else root / STATE)

    @property
    def beside(self) -> Path:
        """Where lies what is renamed into its place: in the state folder, or in one beside the files where that is on
        another file system.
        """
        within = self.root / STATE
        with reading(f"cannot look at {self.root}"):
            if self._has_manifests(within) and not self._has_manifests(self.state):
                return within  # whatever became of the other one
            there = self.root.exists() and self.state.exists()
            same = not there or os.stat(self.root).st_dev == os.stat(self.state).st_dev
        return self.state if same else within

    def _has_manifests(self, path: Path) -> bool:
        """Whether a flat layout has its manifests there. What may not be looked at has none: that shows later."""
        with suppress(PermissionError):
            return self._tree(path).find(MANIFESTS) is not None
        return False

    def _tree(self, path: Path) -> Tree:
        """The folders of the state; no link leads to it from the root."""
        return Tree.of(path, self.root)

    def layout(self) -> Layout | None:
        """The layout that is found here; None where nothing was finished yet."""
        beside = self.beside
        with reading(f"cannot read {beside}"):
            if self._has_manifests(beside):
                return Layout.FLAT
            if Publication(self.root, beside).manifest_names():
                return Layout.VERSIONED
            self._tree(beside).find(MANIFESTS)  # or it may not be looked at
        return None

    def refuse_state_inside(self, layout: Layout | None) -> None:
        """Raise DestinationError where files would stand on the state."""
        root, state = (Path(os.path.realpath(path)) for path in (self.root, self.state))
        inside = state != root / STATE and state.is_relative_to(root)
        if state == root or (inside and layout is Layout.FLAT):
            raise DestinationError(f"the state cannot lie in {self.state}, among the files", hint="check --state-dir")

    def refuse_occupied(self, layout: Layout, *, adopt: bool) -> None:
        """Raise DestinationError where things of others lie in a folder that is no destination yet. With `adopt` that
        is meant, and only what is in the way is refused; in the flat layout that may be anything.
        """
        with mapped(f"cannot read {self.root}"):
            names = os.listdir(self.root) if self.root.is_dir() else []
            there = [name for name in strangers(names) if not self.state.is_relative_to(self.root / name)]
            begun = os.path.isdir(self.root / STATE) or self._seems_begun(there)
        if not there or begun or self.layout() is not None:
            return
        in_the_way = there if layout is Layout.FLAT else clashing(there)
        if in_the_way:
            raise DestinationError(
                f"{self.root} is no destination of tilesync, and holds {listed(in_the_way)}",
                hint="choose an empty folder, or one that tilesync made",
            )
        if not adopt:
            raise DestinationError(
                f"{self.root} is no destination of tilesync, and is not empty: it holds {listed(there)}",
                hint="choose an empty folder; or give --adopt, if these files are to stay beside the tiles",
            )

    def _seems_begun(self, there: list[str]) -> bool:
        """Whether what lies there is what a first run left: its state is known, or the names of exports show it."""
        if (self.state / CATALOG).exists() and OURS.issuperset(there):
            return True
        return set(there) - {CHECKED} == {VERSIONS} and all(map(is_export_id, os.listdir(self.root / VERSIONS)))

    def catalog(self) -> Path:
        """The path of the catalog. Raises DestinationError where a link leads to it from the root."""
        with reading(f"cannot read the state in {self.state}"):
            self._tree(self.state).find()
        return self.state / CATALOG

    def refuse_state_of_another(self) -> None:
        """Raise DestinationError where the state is that of another folder, which is there still. One that was moved
        takes its state along.
        """
        if self.state == self.root / STATE or not os.path.isfile(path := self.catalog()):
            return
        known = None
        with (
            suppress(DestinationError),
            closing(Catalog(path, read_only=True)) as catalog,
        ):  # a damaged one is told later
            known = catalog.recall(SERVES)
        if known and known != os.path.realpath(self.root) and os.path.isdir(known):
            raise DestinationError(
                f"the state in {self.state} is that of {known}, not of {self.root}",
                hint="give each DEST a --state-dir of its own",
            )

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
        known = known_layout(catalog)
        refuse_other(place, known or layout, layout)
        if known is None:
            catalog.remember("layout", layout)
        home = os.path.realpath(place.root)
        if place.state != place.root / STATE and catalog.recall(SERVES) != home:
            catalog.remember(SERVES, home)

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
    place = Place.of(root, state_dir)
    place.refuse_state_of_another()
    found = place.layout()
    layout = layout or found
    place.refuse_state_inside(layout)
    if layout is None:
        raise DestinationError(
            f"no version is held in {place.root}", hint="give the folder that `tilesync mirror` filled"
        )
    publication = _admitted(place, found, layout, admission)
    with mapped(f"cannot make the folder {place.root}"):
        place.root.mkdir(parents=True, exist_ok=True)
    place.catalog()  # refuses links on the way there
    shown, owner = str(place.root), publication.owner()
    with ExitStack() as leaving:
        if elsewhere := place.state != place.root / STATE:
            leaving.enter_context(lent_folder(place.root / STATE, shown, owner, observe or (lambda event: None)))
        hint = "give another folder with --state-dir, or mend that one" if elsewhere else None
        leaving.enter_context(locked_folder(place.state, shown, owner, hint=hint))
        catalog = Catalog(place.state / CATALOG)
        leaving.callback(catalog.close)
        yield LocalDestination(place, layout, catalog)


def _admitted(place: Place, found: Layout | None, layout: Layout, admission: Admission | None) -> Publication:
    """What leads to the versions, to be read, where they may be mirrored to. Raises DestinationError."""
    refuse_other(place, found, layout)
    publication = place.publication(layout)
    publication.refuse_foreign()
    if admission is not None:
        place.refuse_occupied(layout, adopt=admission.adopt)
        admission.admit(publication)
    return publication


def known_layout(catalog: Catalog) -> Layout | None:
    """The layout that the catalog knows; None where it knows none, or knows it of a run that got nothing. Raises
    DestinationError for one that is none.
    """
    said = "" if catalog.is_vacant() else catalog.recall("layout")
    with catalog.reading():
        return Layout(said) if said else None


@contextmanager
def look_at(
    root: Path, *, state_dir: Path | None, layout: Layout, admission: Admission | None = None
) -> Iterator[Sight]:
    """What a destination knows, without writing anything; it need not be there."""
    place = Place.of(root, state_dir)
    place.refuse_state_of_another()
    publication = _admitted(place, place.layout(), layout, admission)
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
    place.refuse_state_of_another()
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
