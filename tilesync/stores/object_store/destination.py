"""Open a destination in an object store: its files and pointer in the store, its state in a local folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tilesync.catalog.catalog import Catalog
from tilesync.core.http_headers import CachePolicy
from tilesync.errors import DestinationError
from tilesync.model import Layout
from tilesync.protocols import Admission, Objects, Observer
from tilesync.runtime.os_errors import translate_os_errors
from tilesync.stores.local.lock_file import is_held, locked_folder
from tilesync.stores.object_store.draft import WaitForBandwidth
from tilesync.stores.object_store.files import ObjectFiles, ObjectStoredFiles
from tilesync.stores.object_store.lock import hold_lease
from tilesync.stores.object_store.name_warnings import MisreadNameWarner
from tilesync.stores.object_store.object_names import check_object_names
from tilesync.stores.object_store.public_files import open_public_objects
from tilesync.stores.object_store.publication import ObjectPublication, ReadOnlyObjectPublication
from tilesync.stores.opening import Mode, ReadOnlyDestination, open_audit_catalog

if TYPE_CHECKING:
    from tilesync.stores.worker_target import MakeWorkerStore, MakeWorkerTarget

CATALOG_FILE = "catalog.sqlite3"
DESTINATION_KEY = "destination"
MISREAD_KEY = "misread"

STATE_DIR_HINT = "choose another state folder with --state-dir, or repair this one"


class ConnectedStore(NamedTuple):
    """Objects of a store, and the functions that let workers write to it, and read from it; None if they cannot."""

    objects: Objects
    make_worker_target: MakeWorkerTarget | None = None
    make_worker_store: MakeWorkerStore | None = None


class ObjectDestination:
    """A prefix of an object store with its files, publication and catalog."""

    layout = Layout.VERSIONED
    is_intact = is_shared = True

    def __init__(self, files: ObjectFiles, publication: ObjectPublication, catalog: Catalog) -> None:
        self.files = files
        self.publication = publication
        self.catalog = catalog

    def mark_intact(self) -> None:
        """Do nothing: a store keeps each object that it has accepted."""


@contextmanager
def open_objects(
    objects: Objects,
    state: Path,
    cache_policy: CachePolicy,
    observe: Observer,
    *,
    create: bool = True,
    wait_for_bandwidth: WaitForBandwidth | None = None,
    admission: Admission | None = None,
    make_worker_target: MakeWorkerTarget | None = None,
) -> Iterator[ObjectDestination]:
    """Open a destination for writing, locked for this run. No other destination uses the folder `state`.

    With `create=False` the destination must hold a version. `wait_for_bandwidth` limits the upload rate. Raises
    DestinationBusy at once when another run holds the lock, HeldElsewhere when that run may be dead.
    """
    if not create and not ReadOnlyObjectPublication(objects).manifest_names():
        raise DestinationError(
            f"there is no version in {objects.display_name}", hint="give the destination of an earlier mirror run"
        )
    with ExitStack() as closing:
        published = ReadOnlyObjectPublication(objects)
        closing.enter_context(locked_folder(state, objects.display_name, hint=STATE_DIR_HINT))
        catalog = Catalog(state / CATALOG_FILE)
        catalog.has_folders = False
        closing.callback(catalog.close)
        if not _is_known_state(catalog, objects.canonical_url):
            published.refuse_foreign()
            if admission is not None:
                published.refuse_occupied(adopt=admission.adopt)
        lease = closing.enter_context(hold_lease(objects.lease(), state, objects.display_name, published.owner))
        objects.guard = lease.require_held
        publication = ObjectPublication(objects, catalog, cache_policy, lease)
        if admission is not None:
            admission.admit(publication)
        catalog.set_value(DESTINATION_KEY, objects.canonical_url)
        warn_names = MisreadNameWarner(_find_misread_characters(objects, catalog), observe, is_probed=True)
        files = ObjectFiles(
            objects,
            cache_policy,
            lease,
            warn_names=warn_names,
            wait_for_bandwidth=wait_for_bandwidth,
            make_worker_target=make_worker_target,
        )
        closing.callback(files.close)
        yield ObjectDestination(files, publication, catalog)


@contextmanager
def open_objects_read_only(
    objects: Objects, mode: Mode, state: Path | None, observe: Observer, admission: Admission | None = None
) -> Iterator[ReadOnlyDestination]:
    """Open a destination for any mode but WRITE; without a lock. `state` is None for READ, which has no catalog."""
    if mode is Mode.PLAN:
        published = ReadOnlyObjectPublication(objects)
        published.refuse_foreign()
        if admission is not None:
            published.refuse_occupied(adopt=admission.adopt)
            admission.admit(published)
    with ExitStack() as exits:
        catalog = _open_catalog(mode, state) if state is not None else None
        if catalog is not None:
            exits.callback(catalog.close)
        known = catalog if mode is Mode.PLAN else None
        publication = ReadOnlyObjectPublication(objects, known)
        check_names = _name_checker(objects, known, observe)
        files = ObjectStoredFiles(objects)
        exits.callback(files.close)
        is_busy = mode is Mode.AUDIT and state is not None and is_held(state)
        yield ReadOnlyDestination(
            files,
            publication,
            catalog,
            check_names,
            partial(open_public_objects, objects),
            is_busy=is_busy,
        )


def _open_catalog(mode: Mode, state: Path) -> Catalog | None:
    """Open the catalog as the mode needs it; None without a usable one."""
    path = state / CATALOG_FILE
    if mode is Mode.AUDIT:
        return open_audit_catalog(path)
    with translate_os_errors(f"cannot read the state in {state}"):
        catalog = Catalog(path, read_only=True)
        catalog.has_folders = False
        return catalog


def _name_checker(objects: Objects, catalog: Catalog | None, observe: Observer) -> Callable[[Iterable[str]], None]:
    """Return a function that raises UnsafeName for names that the store cannot hold.

    With a catalog it also warns about names that the server misreads.
    """
    if catalog is None:
        return partial(check_object_names, objects=objects)
    probed = catalog.get_value(MISREAD_KEY)
    warn_names = MisreadNameWarner(
        objects.suspect_characters if probed is None else probed, observe, is_probed=probed is not None
    )

    def check_names(names: Iterable[str]) -> None:
        names = list(names)
        check_object_names(names, objects)
        warn_names(names)

    return check_names


def _is_known_state(catalog: Catalog, canonical_url: str) -> bool:
    """Return whether the state names this destination. Raises DestinationError if it names another one."""
    known = catalog.get_value(DESTINATION_KEY)
    if known is not None and known != canonical_url:
        raise DestinationError(f"the state folder belongs to {known}, not to {canonical_url}", hint="check --state-dir")
    return known is not None


def _find_misread_characters(objects: Objects, catalog: Catalog) -> str:
    """Return the characters that the server reads as others. The first run probes them and stores the result."""
    probed = catalog.get_value(MISREAD_KEY)
    if probed is None:
        probed = "".join(objects.find_misread_characters()) if objects.suspect_characters else ""
        catalog.set_value(MISREAD_KEY, probed)
    return probed
