"""Backends: how the store of each kind of location is opened."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tilesync.app.azure import container_url, open_azure_objects
from tilesync.app.locations import Location, is_package, match_location
from tilesync.app.requests import Target
from tilesync.app.service import OpenBlobClient, refuse_client
from tilesync.core.urls import is_cleartext, make_cleartext_warning
from tilesync.errors import UsageError
from tilesync.events import Warned
from tilesync.model import Layout
from tilesync.model.storage import AzureLocation, S3Location
from tilesync.protocols import Admission, Observer
from tilesync.stores.opening import Mode, ReadOnlyDestination
from tilesync.values import dataclass

if TYPE_CHECKING:
    from tilesync.stores.object_store.destination import ConnectedStore, ObjectDestination
    from tilesync.stores.object_store.draft import WaitForBandwidth

STORE_THREADS = 64
"""Threads for blocking requests to a store."""


@dataclass(frozen=True)
class Opening:
    """Request to open a destination, with the arguments of `open_destination`."""

    mode: Mode
    observe: Observer
    layout: Layout | None = None
    admission: Admission | None = None
    open_client: OpenBlobClient = refuse_client
    wait_for_bandwidth: WaitForBandwidth | None = None


class Backend(ABC):
    """Store of a destination.

    `max_threads`: threads for its requests, which wait; None if it does not wait.
    """

    max_threads: ClassVar[int | None]

    @abstractmethod
    def open(self, opening: Opening) -> AbstractContextManager[Any]:
        """Open the destination. Blocks. The result is a ReadOnlyDestination, except in mode WRITE."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """Text that is unique to the location, however written; in a store, a prefix of all its files."""

    @abstractmethod
    def refuse_source(self, source: Location, identity: str) -> None:
        """Raise UsageError if SOURCE and this destination overlap. Both must be folders, or both in a store."""


def make_backend(target: Target) -> Backend:
    """Create the backend for the location of a destination."""
    return match_location(
        target.location,
        folder=lambda path: PackageBackend(path) if is_package(path) else LocalBackend(path, target.state_dir),
        azure=lambda location: AzureBackend(location, target),
        s3=lambda location: S3Backend(location, target),
    )


@dataclass(frozen=True)
class LocalBackend(Backend):
    """A folder of this machine."""

    max_threads: ClassVar[int | None] = None

    path: Path
    state_dir: Path | None

    def open(self, opening: Opening) -> AbstractContextManager[Any]:
        """Open the destination."""
        from tilesync.stores.local.destination import open_local, open_local_read_only

        admission, state_dir = opening.admission, self.state_dir
        if opening.mode is Mode.WRITE:
            return open_local(
                self.path, state_dir=state_dir, layout=opening.layout, admission=admission, observe=opening.observe
            )
        return open_local_read_only(
            self.path, opening.mode, state_dir=state_dir, layout=opening.layout, admission=admission
        )

    @property
    def identity(self) -> str:
        """The path as it is written."""
        return str(self.path)

    def refuse_source(self, source: Location, identity: str) -> None:
        """Raise UsageError if the folder of SOURCE overlaps this one, or its state folder."""
        from tilesync.stores.local.destination_folder import refuse_overlap

        refuse_overlap(Path(identity), self.path, self.state_dir)


@dataclass(frozen=True)
class PackageBackend(Backend):
    """A package file of this machine, which is only read."""

    max_threads: ClassVar[int | None] = None

    path: Path

    def open(self, opening: Opening) -> AbstractContextManager[ReadOnlyDestination]:
        """Open the package. Raises UsageError for a mode that writes, Unreadable if it cannot be inspected."""
        from tilesync.stores.local.folder_paths import read_mode
        from tilesync.stores.packages.readers.destination import open_package_read_only

        read_mode(self.path)
        return open_package_read_only(self.path, opening.mode, opening.observe)

    @property
    def identity(self) -> str:
        """The path as it is written."""
        return str(self.path)

    def refuse_source(self, source: Location, identity: str) -> None:
        """Raise UsageError: nothing can be mirrored into a package."""
        from tilesync.stores.local.folder_paths import read_mode
        from tilesync.stores.packages.readers.destination import refuse_writing

        read_mode(self.path)
        refuse_writing(self.path, Mode.WRITE)


class ObjectStoreBackend(Backend):
    """A prefix of an object store. Its state is in a local folder."""

    max_threads = STORE_THREADS

    def __init__(self, target: Target) -> None:
        self._target = target

    @contextmanager
    def open(self, opening: Opening) -> Iterator[Any]:
        """Open the destination. Raises UsageError for the flat layout."""
        if opening.layout is Layout.FLAT:
            raise UsageError("the flat layout needs a folder: only there can renames put files in place")
        with ExitStack() as exits:
            store = exits.enter_context(self.connect(opening))
            url = store.objects.canonical_url
            if is_cleartext(url):
                opening.observe(Warned(make_cleartext_warning(url, str(self._target.location))))
            open_store = self._open_locked if opening.mode is Mode.WRITE else self._open_read_only
            yield open_store(store, opening, exits)

    def _open_locked(self, store: ConnectedStore, opening: Opening, exits: ExitStack) -> ObjectDestination:
        from tilesync.stores.object_store.destination import open_objects
        from tilesync.stores.object_store.lock import wait_for_lock

        open_once = partial(
            open_objects,
            store.objects,
            self._target.resolve_state_dir(store.objects.canonical_url),
            self._target.store_options.serving,
            opening.observe,
            create=opening.layout is not None,
            wait_for_bandwidth=opening.wait_for_bandwidth,
            admission=opening.admission,
            make_worker_target=store.make_worker_target,
        )
        return wait_for_lock(lambda: exits.enter_context(open_once()), store.objects.lease().term, opening.observe)

    def _open_read_only(self, store: ConnectedStore, opening: Opening, exits: ExitStack) -> ReadOnlyDestination:
        from tilesync.stores.object_store.destination import open_objects_read_only

        mode, url = opening.mode, store.objects.canonical_url
        state = None if mode is Mode.READ else self._target.resolve_state_dir(url)
        opened = open_objects_read_only(store.objects, mode, state, opening.observe, opening.admission)
        return replace(exits.enter_context(opened), make_worker_store=store.make_worker_store)

    def refuse_source(self, source: Location, identity: str) -> None:
        """Raise UsageError if the prefix of SOURCE is this one, or one contains the other."""
        if identity == self.identity:
            raise UsageError(f"SOURCE and DEST are the same: {source}", hint="choose another DEST")
        if identity.startswith(self.identity) or self.identity.startswith(identity):
            raise UsageError("one of SOURCE and DEST is inside the other", hint="choose a DEST beside SOURCE")

    @abstractmethod
    def connect(self, opening: Opening) -> AbstractContextManager[ConnectedStore]:
        """Connect to the store."""


class AzureBackend(ObjectStoreBackend):
    """A container of Azure Blob Storage."""

    def __init__(self, location: AzureLocation, target: Target) -> None:
        super().__init__(target)
        self._location = location

    @contextmanager
    def connect(self, opening: Opening) -> Iterator[ConnectedStore]:
        """Connect to the container; create it if the options say so."""
        from tilesync.stores.object_store.destination import ConnectedStore

        options = self._target.store_options
        create = {Mode.WRITE: options.create_container, Mode.PLAN: False}.get(opening.mode)
        with open_azure_objects(
            self._location,
            options,
            opening.open_client,
            opening.observe,
            read_only=opening.mode is Mode.READ,
            create=create,
        ) as objects:
            yield ConnectedStore(objects, objects.make_put_target, objects.make_worker_store)

    @property
    def identity(self) -> str:
        """URL of the container, with the prefix."""
        return f"{container_url(self._location, self._target.store_options)}/{self._location.prefix}"


class S3Backend(ObjectStoreBackend):
    """A bucket of S3, or of a compatible server."""

    def __init__(self, location: S3Location, target: Target) -> None:
        super().__init__(target)
        self._location = location

    @contextmanager
    def connect(self, opening: Opening) -> Iterator[ConnectedStore]:
        """Connect to the bucket, which must exist."""
        from tilesync.stores.object_store.destination import ConnectedStore
        from tilesync.stores.s3.session import open_bucket

        options = self._target.store_options
        with open_bucket(
            self._location.bucket,
            self._location.prefix,
            opening.observe,
            endpoint_url=options.endpoint_url,
            retry_budget=options.retry_for,
            allow_http=options.allow_http,
        ) as objects:
            access = objects.worker_access()
            if access is None:
                yield ConnectedStore(objects)
            else:
                yield ConnectedStore(objects, access.make_put_target, access.make_worker_store)

    @property
    def identity(self) -> str:
        """Bucket and prefix."""
        return f"{self._location}/"
