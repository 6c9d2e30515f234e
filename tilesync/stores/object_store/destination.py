"""Open a destination in an object store: its files and pointer in the store, its state in a local folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tilesync.catalog.catalog import Catalog
from tilesync.catalog.schema import SCHEMA_VERSIONS
from tilesync.catalog.sqlite import read_schema_version
from tilesync.core.http_headers import CachePolicy
from tilesync.errors import DestinationError
from tilesync.model import Layout
from tilesync.protocols import Admission, Objects, Observer
from tilesync.runtime.os_errors import translate_os_errors
from tilesync.stores.local.lock_file import locked_folder
from tilesync.stores.object_store.files import ObjectFiles, ObjectStoredFiles, WaitForBandwidth, check_object_names
from tilesync.stores.object_store.lock import hold_lease
from tilesync.stores.object_store.name_warnings import MisreadNameWarner
from tilesync.stores.object_store.publication import ObjectPublication, ReadOnlyObjectPublication

CATALOG_FILE = "catalog.sqlite3"
DESTINATION_KEY = "destination"
MISREAD_KEY = "misread"

STATE_DIR_HINT = "choose another state folder with --state-dir, or repair this one"


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


@dataclass(frozen=True)
class ReadOnlyObjectDestination:
    """A destination that is only read. `catalog` is None if no usable one exists."""

    files: ObjectStoredFiles
    publication: ReadOnlyObjectPublication
    catalog: Catalog | None
    check_names: Callable[[Iterable[str]], None]
    layout: Layout = Layout.VERSIONED


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
        files = ObjectFiles(objects, cache_policy, lease, warn_names=warn_names, wait_for_bandwidth=wait_for_bandwidth)
        closing.callback(files.close)
        yield ObjectDestination(files, publication, catalog)


@contextmanager
def open_objects_for_plan(
    objects: Objects, state: Path, observe: Observer, admission: Admission | None = None
) -> Iterator[ReadOnlyObjectDestination]:
    """Open a destination for a dry run, which writes nothing. The destination need not exist."""
    published = ReadOnlyObjectPublication(objects)
    published.refuse_foreign()
    if admission is not None:
        published.refuse_occupied(adopt=admission.adopt)
        admission.admit(published)
    with translate_os_errors(f"cannot read the state in {state}"):
        catalog = Catalog(state / CATALOG_FILE, read_only=True)
        catalog.has_folders = False
    files, probed = ObjectStoredFiles(objects), catalog.get_value(MISREAD_KEY)
    warn_names = MisreadNameWarner(
        objects.suspect_characters if probed is None else probed, observe, is_probed=probed is not None
    )

    def check_names(names: Iterable[str]) -> None:
        names = list(names)
        check_object_names(names, objects)
        warn_names(names)

    try:
        yield ReadOnlyObjectDestination(files, ReadOnlyObjectPublication(objects, catalog), catalog, check_names)
    finally:
        files.close()
        catalog.close()


@contextmanager
def open_objects_for_reading(objects: Objects) -> Iterator[ReadOnlyObjectDestination]:
    """Open a destination for reading, without its catalog."""
    files = ObjectStoredFiles(objects)
    try:
        yield ReadOnlyObjectDestination(
            files, ReadOnlyObjectPublication(objects), None, partial(check_object_names, objects=objects)
        )
    finally:
        files.close()


@contextmanager
def open_objects_for_audit(objects: Objects, state: Path) -> Iterator[ReadOnlyObjectDestination]:
    """Open a destination for an audit, with its catalog to mark findings in: None if no writable one exists."""
    path = state / CATALOG_FILE
    try:
        usable = os.access(path, os.W_OK) and read_schema_version(path) in SCHEMA_VERSIONS
        catalog = Catalog(path) if usable else None
    except DestinationError:
        catalog = None
    files = ObjectStoredFiles(objects)
    try:
        yield ReadOnlyObjectDestination(
            files, ReadOnlyObjectPublication(objects), catalog, partial(check_object_names, objects=objects)
        )
    finally:
        files.close()
        if catalog is not None:
            catalog.close()


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
