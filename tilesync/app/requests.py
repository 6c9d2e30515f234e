"""Targets: a destination as it is named, and how its store is reached."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from time import monotonic

from tilesync.azure.sas import parse_expiry
from tilesync.core.http_headers import CachePolicy
from tilesync.errors import UsageError
from tilesync.model import SasUrl
from tilesync.model.storage import AzureLocation, S3Location

Location = Path | AzureLocation | S3Location

_NO_HOME_HINT = "say where it is to be: --state-dir FOLDER, or set HOME or XDG_STATE_HOME"


@dataclass(frozen=True)
class StoreOptions:
    """How a destination in an object store is reached, and how what is put there is served.

    `azure_endpoint`, `endpoint_url`: where the account, and the bucket, answer, if not at the usual address.
    `link_command` prints a fresh link to the container that was named by one. `create`: the container is made where it
    is missing. `budget` is how long a failing answer is borne with. `allow_http`: plain http will do, beyond this
    machine too.
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
    """A destination that is named. `state_dir` is where its state is, if not at the usual place."""

    location: Location
    store_options: StoreOptions = field(default_factory=StoreOptions)
    state_dir: Path | None = None

    def resolve_state_dir(self, home: str) -> Path:
        """The folder with the state of a place in an object store, which its `home` tells from all others."""
        if self.state_dir is not None:
            return self.state_dir.absolute()
        states = default_state_root()
        if states is None:
            raise UsageError(
                "this user has no home folder for the state of a destination in a store", hint=_NO_HOME_HINT
            )
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", str(self.location))[:80].strip("-")
        name = f"{slug}-{hashlib.sha256(home.encode()).hexdigest()[:12]}"
        return states / name

    @property
    def identity(self) -> str:
        """What tells this place from all others, however it was named; all that lies in a store's place begins so."""
        if isinstance(self.location, AzureLocation):
            return f"{container_url(self.location, self.store_options)}/{self.location.prefix}"
        return f"{self.location}/" if isinstance(self.location, S3Location) else str(self.location)


def default_state_root() -> Path | None:
    """The folder with the states of places in object stores; None where this user has no home folder."""
    from platformdirs import user_state_path

    states = Path()
    with suppress(RuntimeError):  # neither HOME nor the list of users tells a folder; older ones give `~` back
        states = user_state_path("tilesync")
    return states / "destinations" if states.is_absolute() else None


def container_url(place: AzureLocation, store_options: StoreOptions) -> str:
    """Where the container answers, without what signs it."""
    return place.link.base if place.link is not None else f"{account_endpoint(place, store_options)}/{place.container}"


def account_endpoint(place: AzureLocation, store_options: StoreOptions) -> str:
    """Where the account answers: as its connection string says, else as it is said, where `{account}` stands for its
    name. Source: "Configure Azure Storage connection strings".
    """
    text = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "")
    said = dict(part.strip().partition("=")[::2] for part in text.split(";"))
    known = said if said.get("AccountName") == place.account else {}
    suffix, scheme = known.get("EndpointSuffix"), known.get("DefaultEndpointsProtocol", "https")
    given = known.get("BlobEndpoint") or (f"{scheme}://{{account}}.blob.{suffix}" if suffix else None)
    given = given or store_options.azure_endpoint or "https://{account}.blob.core.windows.net"
    return given.replace("{account}", place.account).rstrip("/")


def link_from_sas_token(place: AzureLocation, store_options: StoreOptions, *, read_only: bool) -> SasUrl | None:
    """The link that AZURE_STORAGE_SAS_TOKEN makes. It goes to the account that it is of: the one that
    AZURE_STORAGE_ACCOUNT names, and where that is not set the one that is written to.
    """
    token, account = os.environ.get("AZURE_STORAGE_SAS_TOKEN"), os.environ.get("AZURE_STORAGE_ACCOUNT")
    meant = account == place.account if account else not read_only
    return _make_token_link(place, store_options, token) if token and meant else None


def _make_token_link(place: AzureLocation, store_options: StoreOptions, token: str) -> SasUrl:
    base = f"{account_endpoint(place, store_options)}/{place.container}"
    query = token.lstrip("?")
    return SasUrl(base, query, expires=parse_expiry(query), fetched_at_s=monotonic())
