"""A local folder as destination: opened, checked to be ours, and held by one run at a time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tilesync.errors import DestinationBusy, DestinationError
from tilesync.model import Version
from tilesync.stores.catalog import Catalog
from tilesync.stores.disk import boot_id, mapped, real_folder
from tilesync.stores.files import LocalFiles, folds_case, judge_names, path_limit
from tilesync.stores.held import Door, HeldFiles
from tilesync.stores.publication import Publication

STATE = ".tilesync"
CATALOG = "catalog.sqlite3"
LAYOUT = "versioned"


class LocalDestination:
    """A folder, its state, and the two sides that the jobs use: `files` and `publication`.

    `calm` says that the machine has not restarted since the last run: what that run wrote is whole, durable or not.
    """

    def __init__(self, root: Path, state: Path, catalog: Catalog, *, monotonic: Callable[[], float]) -> None:
        self.root = root
        self.catalog = catalog
        self._boot = boot_id()
        self.calm = self._boot is not None and catalog.recall("boot") == self._boot
        parts = _folder(_parts(root, state))
        self.files = LocalFiles(root, parts, trust_parts=self.calm, monotonic=monotonic)
        self.publication = Publication(root, parts)
        catalog.set_folds(folds=folds_case(parts))
        self.publication.refuse_foreign()
        if (layout := catalog.recall("layout") or LAYOUT) != LAYOUT:
            raise DestinationError(f"{root} has the layout {layout}", hint="choose another folder for this layout")
        catalog.remember("layout", LAYOUT)

    def settle(self) -> None:
        """Everything that is recorded as held has been checked since the machine started."""
        if not self.calm and self._boot is not None:
            self.catalog.remember("boot", self._boot)
            self.calm = True


def state_folder(root: Path, chosen: Path | None) -> Path:
    """Where the state of a destination lies."""
    return chosen if chosen is not None else root / STATE


@contextmanager
def open_local(root: Path, *, state_dir: Path | None, monotonic: Callable[[], float]) -> Iterator[LocalDestination]:
    """The destination, made where it is missing, locked for this run alone.

    Raises DestinationBusy at once when another run holds it, DestinationError when it cannot serve. The lock is the
    kernel's: it ends with the process, also with kill -9.
    """
    from filelock import FileLock, Timeout

    root = root.absolute()
    _make(root)
    Publication(root, root).refuse_foreign()
    state = _folder(state_folder(root, state_dir).absolute())
    lock = FileLock(state / "lock")
    with mapped(f"cannot lock {state}"):
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise DestinationBusy(f"another run holds {root}") from None
    try:
        catalog = Catalog(state / CATALOG)
        try:
            yield LocalDestination(root, state, catalog, monotonic=monotonic)
        finally:
            catalog.close()
    finally:
        lock.release()


@contextmanager
def look_at(root: Path, *, state_dir: Path | None) -> Iterator[tuple[Catalog, Callable[[Iterable[str]], None]]]:
    """What a destination knows, and how it judges names, without writing anything; it need not be there."""
    root = root.absolute()
    Publication(root, root).refuse_foreign()
    catalog = Catalog(state_folder(root, state_dir) / CATALOG, read_only=True)
    try:
        yield catalog, partial(judge_names, path_bytes=path_limit(root))
    finally:
        catalog.close()


@contextmanager
def open_for_audit(root: Path, state_dir: Path | None) -> Iterator[tuple[Path, Catalog | None]]:
    """The folder, and its catalog to mark findings in: None when there is none that can be written."""
    root = root.absolute()
    path = state_folder(root, state_dir) / CATALOG
    try:
        catalog = Catalog(path) if os.access(path, os.W_OK) else None
    except DestinationError:
        catalog = None
    try:
        yield root, catalog
    finally:
        if catalog is not None:
            catalog.close()


@contextmanager
def scratch() -> Iterator[tuple[Catalog, HeldFiles, Callable[[Version, str, bytes], None]]]:
    """An empty catalog, files, and a way to put one there: all in a temporary folder that is gone with the context."""
    with tempfile.TemporaryDirectory(prefix="tilesync-") as folder:
        catalog, door = Catalog(Path(folder) / CATALOG), Door(Path(folder))

        def put(version: Version, name: str, data: bytes) -> None:
            with mapped(f"cannot write {name}"):
                Path(door.path(version.name, name, make=True)).write_bytes(data)

        try:
            yield catalog, HeldFiles(Path(folder)), put
        finally:
            catalog.close()


def _make(root: Path) -> None:
    with mapped(f"cannot make the folder {root}"):
        root.mkdir(parents=True, exist_ok=True)


def _parts(root: Path, state: Path) -> Path:
    """Parts lie in the state folder, or beside the files where that is on another file system: they are renamed."""
    with mapped(f"cannot look at {root}"):
        same = os.stat(root).st_dev == os.stat(state).st_dev
    return (state if same else _folder(root / STATE)) / "parts"


def _folder(path: Path) -> Path:
    """A real folder of the state at `path`, for this user alone, made where it is missing."""
    with mapped(f"cannot use {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        real_folder(path, make=True, mode=0o700)
    return path
