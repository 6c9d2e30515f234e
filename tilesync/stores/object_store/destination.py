"""A destination in an object store: its files and what leads to them there, its state in a folder of this user."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tilesync.catalog.catalog import SCHEMA_VERSIONS, Catalog
from tilesync.catalog.sqlite import schema_of
from tilesync.core.http_headers import Serving
from tilesync.errors import DestinationError
from tilesync.model import Layout
from tilesync.protocols import Admission, Objects, Observer
from tilesync.runtime.os_errors import mapped
from tilesync.stores.local.lock_file import locked_folder
from tilesync.stores.object_store.files import ObjectFiles, ObjectHeldFiles, Pace, judge_keys
from tilesync.stores.object_store.lock import locked
from tilesync.stores.object_store.name_warnings import Misread
from tilesync.stores.object_store.publication import ObjectPublication, ObjectPublished

CATALOG = "catalog.sqlite3"
PLACE = "destination"
MISREAD = "misread"

ANOTHER_STATE = "give another folder for the state with --state-dir, or mend that one"


class ObjectDestination:
    """A prefix of an object store, its state, and the two sides that the jobs use."""

    layout = Layout.VERSIONED
    calm = shared = True

    def __init__(self, files: ObjectFiles, publication: ObjectPublication, catalog: Catalog) -> None:
        self.files = files
        self.publication = publication
        self.catalog = catalog

    def settle(self) -> None:
        """What a store has taken in it keeps."""


@dataclass(frozen=True)
class ObjectSight:
    """A destination to be read."""

    files: ObjectHeldFiles
    publication: ObjectPublished
    catalog: Catalog | None
    judge: Callable[[Iterable[str]], None]
    layout: Layout = Layout.VERSIONED


@contextmanager
def open_objects(
    objects: Objects,
    state: Path,
    serving: Serving,
    observe: Observer,
    *,
    new: bool = True,
    pace: Pace | None = None,
    admission: Admission | None = None,
) -> Iterator[ObjectDestination]:
    """The destination, locked for this run alone. Not `new`: something must be held there. `state` belongs to it alone.

    Raises DestinationBusy at once when another run holds it, HeldElsewhere where that may have ended without a word.
    """
    if not new and not ObjectPublished(objects).manifest_names():
        raise DestinationError(f"no version is held in {objects.shown}", hint="give the place that was mirrored to")
    with ExitStack() as closing:
        published = ObjectPublished(objects)
        closing.enter_context(locked_folder(state, objects.shown, hint=ANOTHER_STATE))
        catalog = Catalog(state / CATALOG)
        catalog.has_folders = False
        closing.callback(catalog.close)
        if not _is_of(catalog, objects.home):
            published.refuse_foreign()
            if admission is not None:
                published.refuse_occupied(adopt=admission.adopt)
        lease = closing.enter_context(locked(objects.lease(), state, objects.shown, published.owner))
        objects.guard = lease.demand
        publication = ObjectPublication(objects, catalog, serving, lease)
        if admission is not None:
            admission.admit(publication)
        catalog.remember(PLACE, objects.home)
        look = Misread(_misread(objects, catalog), observe, sure=True)
        files = ObjectFiles(objects, serving, lease, look=look, pace=pace)
        closing.callback(files.close)
        yield ObjectDestination(files, publication, catalog)


@contextmanager
def look_at_objects(
    objects: Objects, state: Path, observe: Observer, admission: Admission | None = None
) -> Iterator[ObjectSight]:
    """What a destination knows, without writing anything; it need not be there."""
    published = ObjectPublished(objects)
    published.refuse_foreign()
    if admission is not None:
        published.refuse_occupied(adopt=admission.adopt)
        admission.admit(published)
    with mapped(f"cannot read the state in {state}"):
        catalog = Catalog(state / CATALOG, read_only=True)
        catalog.has_folders = False
    files, tried = ObjectHeldFiles(objects), catalog.recall(MISREAD)
    look = Misread(objects.doubtful if tried is None else tried, observe, sure=tried is not None)

    def judge(names: Iterable[str]) -> None:
        names = list(names)
        judge_keys(names, objects)
        look(names)

    try:
        yield ObjectSight(files, ObjectPublished(objects, catalog), catalog, judge)
    finally:
        files.close()
        catalog.close()


@contextmanager
def read_objects(objects: Objects) -> Iterator[ObjectSight]:
    """What a place holds, for those who only read it."""
    files = ObjectHeldFiles(objects)
    try:
        yield ObjectSight(files, ObjectPublished(objects), None, partial(judge_keys, objects=objects))
    finally:
        files.close()


@contextmanager
def audit_objects(objects: Objects, state: Path) -> Iterator[ObjectSight]:
    """What a destination holds, and its catalog to mark findings in: None when there is none that can be written."""
    path = state / CATALOG
    try:
        usable = os.access(path, os.W_OK) and schema_of(path) in SCHEMA_VERSIONS
        catalog = Catalog(path) if usable else None
    except DestinationError:
        catalog = None
    files = ObjectHeldFiles(objects)
    try:
        yield ObjectSight(files, ObjectPublished(objects), catalog, partial(judge_keys, objects=objects))
    finally:
        files.close()
        if catalog is not None:
            catalog.close()


def _is_of(catalog: Catalog, home: str) -> bool:
    """Whether the state is known to be of this destination. Raises DestinationError where it is that of another."""
    known = catalog.recall(PLACE)
    if known is not None and known != home:
        raise DestinationError(f"the state belongs to {known}, not to {home}", hint="check --state-dir")
    return known is not None


def _misread(objects: Objects, catalog: Catalog) -> str:
    """The characters that the server reads as others; tried by the first run."""
    tried = catalog.recall(MISREAD)
    if tried is None:
        tried = "".join(objects.misread()) if objects.doubtful else ""
        catalog.remember(MISREAD, tried)
    return tried
