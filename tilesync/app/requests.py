"""Target and store options: the location of a destination, its endpoint and its state folder."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from tilesync.app.service import Service
from tilesync.azure.sas import parse_expiry
from tilesync.core.guards import DeleteLimit
from tilesync.core.http_headers import CachePolicy
from tilesync.core.ownership import RequestedOwner
from tilesync.core.retention import KEEP_ALL_VERSIONS, RetentionPolicy
from tilesync.errors import UsageError
from tilesync.model import EVERYTHING, Content, Globs, Inventory, Layout, SasUrl, Selector
from tilesync.model.storage import AzureLocation, S3Location
from tilesync.protocols import Observer

if TYPE_CHECKING:
    from tilesync.jobs.versions.ownership import OwnershipRequest

Location = Path | AzureLocation | S3Location

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

    @property
    def identity(self) -> str:
        """Return a text that is unique to the location, however written; in a store, a prefix of all its files."""
        if isinstance(self.location, AzureLocation):
            return f"{container_url(self.location, self.store_options)}/{self.location.prefix}"
        return f"{self.location}/" if isinstance(self.location, S3Location) else str(self.location)


def default_state_root() -> Path | None:
    """Return the parent of all default state folders; None if this user has no home folder."""
    from platformdirs import user_state_path

    root = Path()
    with suppress(RuntimeError):  # neither HOME nor the user database has a folder; older versions return `~`
        root = user_state_path("tilesync")
    return root / "destinations" if root.is_absolute() else None


def container_url(location: AzureLocation, store_options: StoreOptions) -> str:
    """Return the URL of the container, without a signature."""
    return (
        location.link.base
        if location.link is not None
        else f"{account_endpoint(location, store_options)}/{location.container}"
    )


def account_endpoint(location: AzureLocation, store_options: StoreOptions) -> str:
    """Return the endpoint of the account: from its connection string, else from the options, else the public cloud.

    `{account}` in an endpoint stands for the account name. Source: "Configure Azure Storage connection strings".
    """
    text = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "")
    settings = dict(part.strip().partition("=")[::2] for part in text.split(";"))
    settings = settings if settings.get("AccountName") == location.account else {}
    suffix, scheme = settings.get("EndpointSuffix"), settings.get("DefaultEndpointsProtocol", "https")
    endpoint = settings.get("BlobEndpoint") or (f"{scheme}://{{account}}.blob.{suffix}" if suffix else None)
    endpoint = endpoint or store_options.azure_endpoint or "https://{account}.blob.core.windows.net"
    return endpoint.replace("{account}", location.account).rstrip("/")


def link_from_sas_token(location: AzureLocation, store_options: StoreOptions, *, read_only: bool) -> SasUrl | None:
    """Make the container link from AZURE_STORAGE_SAS_TOKEN; None if the token is for another account.

    The token is for the account that AZURE_STORAGE_ACCOUNT names; if that is not set, for the account written to.
    """
    token, account = os.environ.get("AZURE_STORAGE_SAS_TOKEN"), os.environ.get("AZURE_STORAGE_ACCOUNT")
    is_for_account = account == location.account if account else not read_only
    return _make_token_link(location, store_options, token) if token and is_for_account else None


def _make_token_link(location: AzureLocation, store_options: StoreOptions, token: str) -> SasUrl:
    base = f"{account_endpoint(location, store_options)}/{location.container}"
    query = token.lstrip("?")
    return SasUrl(base, query, expires=parse_expiry(query), fetched_at_s=monotonic())


@dataclass(frozen=True)
class MirrorRequest:
    """Options of `tilesync mirror`. SOURCE is `link` (a container link) or `source_mirror` (a destination of tilesync);
    if both are None, the iModel of `selector`.
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
    keep: RetentionPolicy = KEEP_ALL_VERSIONS
    layout: Layout = Layout.VERSIONED
    delete: DeleteLimit | None = None
    server_copy: bool = False
    source_mirror: Location | None = None
    content: Content = Content.STORED
    adopt: bool = False
    source_store_options: StoreOptions = field(default_factory=StoreOptions)

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
