"""Options of the Python API: keyword arguments, named and meant as the options of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal, TypedDict

from tilesync.api.auth import Auth
from tilesync.core.guards import DeleteLimit
from tilesync.core.retention import RetentionPolicy


class ServiceOptions(TypedDict, total=False):
    """How the service is reached."""

    auth: Auth | None
    """Who asks; None: the identity of the environment."""
    api_url: str | None
    """Base URL of the Mesh Export API; None: TILESYNC_API_URL, ITP_API_URL, else the public one."""
    retry_for: timedelta
    """How long a request that fails is tried again. Default: 60 s."""


class SelectionOptions(TypedDict, total=False):
    """Which export of the iModel is meant, and how long to wait for it."""

    changeset_id: str | None
    """The export of this changeset."""
    export_id: str | None
    """This very export."""
    export_type: str
    """Type of the export. Default: 3DTiles."""
    tile_version: str | None
    """Only exports compatible with this tile version."""
    itwinjs: str | None
    """Only exports compatible with this iTwin.js version."""
    cdn: bool
    """Bytes through the CDN; the listing still comes from the storage."""
    wait: timedelta
    """How long to wait for an export that is not finished. Default: 10 min for a mirror, none for a link."""
    poll: timedelta
    """How often to look while waiting. Default: 15 s."""


class StoreAccessOptions(TypedDict, total=False):
    """How a destination in an object store is reached, and where its state is kept."""

    state_dir: str | Path | None
    """Where the state is, if not at its usual place."""
    azure_endpoint: str | None
    """Blob service of the account, if not https://ACCOUNT.blob.core.windows.net."""
    endpoint_url: str | None
    """S3 service, if not Amazon's."""
    allow_http: bool
    """A store in a network of your own may be reached over plain http."""
    dest_link_command: str | None
    """Command that prints a fresh link to the container of DEST."""


class MirrorOptions(ServiceOptions, SelectionOptions, StoreAccessOptions, total=False):
    """Options of `mirror` and `plan`."""

    link_command: str | None
    """Command that prints a fresh container link when SOURCE is a link."""
    all_exports: bool
    """Every finished export that is not stored yet, oldest first."""
    publish: bool
    """False: mirror, and leave the pointer where it is."""
    layout: Literal["versioned", "flat"]
    """Every export in a folder of its own behind a pointer, or the last one at the container's paths."""
    content: Literal["stored", "decoded"]
    """Folders: files as the container stores them, or gzip payloads decoded."""
    inventory: Literal["auto", "list", "walk"]
    """List the container, or walk from its tileset.json; auto walks where listing is denied."""
    include: Sequence[str]
    """Only files whose name matches one of these globs."""
    exclude: Sequence[str]
    """No files whose name matches one of these globs; wins over `include`."""
    allow_missing: bool
    """Publish although the tilesets ask for files that are missing."""
    allow_shrink: bool
    """Publish an export with under half the files or bytes."""
    adopt: bool
    """Give DEST to SOURCE, though it belongs to another iModel or holds other files."""
    retention: RetentionPolicy
    """Which versions to keep. Default: all."""
    delete: bool
    """Flat layout: delete mirrored files that the container lost."""
    max_delete: DeleteLimit | None
    """Stop where `delete` would delete more. Default: half of the files."""
    transfers: int | None
    """Transfers at once; None: found by trying."""
    bwlimit: float | None
    """Bytes a second at most."""
    create_container: bool
    """Make the container of an az:// DEST where it is missing."""
    cache_control: str | None
    """`Cache-Control` of what lies in a version."""
    pointer_cache_control: str | None
    """`Cache-Control` of the pointer."""
    server_copy: bool
    """Azure to Azure: the storage copies by itself."""
    every_file: bool
    """Send an event for each file."""
