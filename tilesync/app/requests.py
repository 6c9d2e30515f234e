"""Target and store options: the location of a destination, its endpoint and its state folder."""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from dataclasses import field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tilesync.app.locations import Location
from tilesync.app.service import Service
from tilesync.core.guards import DeleteLimit
from tilesync.core.http_headers import CachePolicy
from tilesync.core.ownership import RequestedOwner
from tilesync.core.retention import KEEP_ALL_VERSIONS, RetentionPolicy
from tilesync.errors import UsageError
from tilesync.model import EVERYTHING, Content, Globs, Inventory, Layout, SasUrl, Selector
from tilesync.protocols import Observer
from tilesync.values import dataclass

if TYPE_CHECKING:
    from tilesync.jobs.versions.ownership import OwnershipRequest

_NO_HOME_HINT = "use --state-dir FOLDER, or set HOME or XDG_STATE_HOME"


@dataclass(frozen=True)
class StoreOptions:
    """Options for the store of a destination: endpoint, credentials, retries, and headers of uploaded files.

    `azure_endpoint`, `endpoint_url`: endpoint of the storage account, and of S3, if not the default one. `link_command`
    prints a fresh SAS link to the container. `create_container`: create the container if it is missing. `serving`:
    cache headers of uploaded files. `retry_for`: how long failing requests are retried. `allow_http`: allow plain http
    to other hosts than this one.
    """

    azure_endpoint: str | None = None
    endpoint_url: str | None = None
    link_command: str | None = None
    create_container: bool = False
    serving: CachePolicy = field(default_factory=CachePolicy)
    retry_for: timedelta = timedelta(seconds=60)
    allow_http: bool = False


@dataclass(frozen=True)
class Target:
    """Destination with its options. `state_dir`: folder of its state, if not the default one."""

    location: Location
    store_options: StoreOptions = field(default_factory=StoreOptions)
    state_dir: Path | None = None

    def resolve_state_dir(self, canonical_url: str) -> Path:
        """Return the state folder of a destination in a store; `canonical_url` is unique to it. Raises UsageError."""
        if self.state_dir is not None:
            return self.state_dir.absolute()
        root = default_state_root()
        if root is None:
            raise UsageError(
                "no folder is set for the state of the destination: this user has no home folder",
                hint=_NO_HOME_HINT,
            )
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", str(self.location))[:80].strip("-")
        name = f"{slug}-{hashlib.sha256(canonical_url.encode()).hexdigest()[:12]}"
        return root / name


def default_state_root() -> Path | None:
    """Return the parent of all default state folders; None if this user has no home folder."""
    from platformdirs import user_state_path

    root = Path()
    with suppress(RuntimeError):  # neither HOME nor the user database has a folder; older versions return `~`
        root = user_state_path("tilesync")
    return root / "destinations" if root.is_absolute() else None


@dataclass(frozen=True)
class MirrorRequest:
    """Options of `tilesync mirror`. SOURCE is `link` (a container link) or `source_mirror` (a destination of tilesync);
    if both are None, the iModel of `selector`. `presence_time`: time for the presence check of a run without changes.
    `cluster`: address of a Dask cluster whose workers transfer the files.
    """

    service: Service
    selector: Selector
    destination: Location
    link: SasUrl | None = None
    link_command: str | None = None
    cdn: bool = False
    wait: timedelta = timedelta(minutes=10)
    poll: timedelta = timedelta(seconds=15)
    transfers: int | None = None
    bwlimit: float | None = None
    state_dir: Path | None = None
    store_options: StoreOptions = field(default_factory=StoreOptions)
    every_file: bool = False
    allow_shrink: bool = False
    allow_missing: bool = False
    inventory: Inventory | None = None
    globs: Globs = EVERYTHING
    all_exports: bool = False
    publish: bool = True
    retention: RetentionPolicy = KEEP_ALL_VERSIONS
    layout: Layout = Layout.VERSIONED
    delete_limit: DeleteLimit | None = None
    server_copy: bool = False
    source_mirror: Location | None = None
    content: Content = Content.STORED
    adopt: bool = False
    presence_time: timedelta = timedelta(seconds=2)
    source_store_options: StoreOptions = field(default_factory=StoreOptions)
    cluster: str | None = None

    @property
    def target(self) -> Target:
        """Return DEST with its options."""
        return Target(self.destination, self.store_options, self.state_dir)

    def ownership(self, observe: Observer) -> OwnershipRequest:
        """Return the owner of the requested exports, as far as known offline, and whether to adopt DEST."""
        from tilesync.jobs.versions.ownership import OwnershipRequest

        owner = RequestedOwner("" if self.source_mirror is not None else self.selector.imodel or "")
        if self.link is not None:
            owner = RequestedOwner(self.link.base, self.link.container_name)
        return OwnershipRequest(owner, str(self.destination), observe, self.adopt)
