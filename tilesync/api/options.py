"""Options of the Python API: keyword arguments with the names and meaning of the command line options."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal, TypedDict

from tilesync.api.auth import Auth
from tilesync.core.guards import DeleteLimit
from tilesync.core.retention import RetentionPolicy


class ConnectionOptions(TypedDict, total=False):
    """Address of the service, and the identity."""

    auth: Auth | None
    """The identity; None: from the environment."""
    api_url: str | None
    """Base URL of the Mesh Export API; None: TILESYNC_API_URL, ITP_API_URL, else the public service."""


class ServiceOptions(ConnectionOptions, total=False):
    """Options of the connection to the service."""

    retry_for: timedelta
    """How long to retry failed requests. Default: 60 s."""


class SelectionOptions(TypedDict, total=False):
    """Options that select an export of the iModel, and how long to wait for it."""

    changeset_id: str | None
    """Select the export of this changeset."""
    export_id: str | None
    """Select the export with this id."""
    export_type: str
    """Type of the export. Default: 3DTiles."""
    tile_version: str | None
    """Only exports compatible with this tile version."""
    itwinjs: str | None
    """Only exports compatible with this iTwin.js version."""
    cdn: bool
    """Use links to the CDN for files; the container is still listed directly."""
    wait: timedelta
    """How long to wait for an export that is not finished. Default: 10 min for a mirror, none for a link."""
    poll: timedelta
    """How often to look for an export while waiting. Default: 15 s."""


class StoreAccessOptions(TypedDict, total=False):
    """Options of the access to an object store, and the folder of its state."""

    state_dir: str | Path | None
    """Folder for the state of the destination, if not the default."""
    azure_endpoint: str | None
    """Blob service of the account, if not https://ACCOUNT.blob.core.windows.net."""
    endpoint_url: str | None
    """URL of the S3 service, if not Amazon S3."""
    allow_http: bool
    """Allow plain http to a store in your own network: tiles and signatures are not encrypted."""
    dest_link_command: str | None
    """Command that prints a fresh link to the container of DEST."""


class AccessOptions(ServiceOptions, StoreAccessOptions, total=False):
    """Options of `exports` and `doctor`, which use the service, a store, or both."""


class ViewerLinkOptions(AccessOptions, SelectionOptions, total=False):
    """Options of `viewer_link`."""


class MirrorArguments(AccessOptions, SelectionOptions, total=False):
    """Options of `mirror` and `plan`."""

    link_command: str | None
    """Command that prints a fresh container link when SOURCE is a link."""
    all_exports: bool
    """Mirror every finished export that DEST does not have yet, oldest first."""
    publish: bool
    """False: mirror, but do not move the pointer."""
    layout: Literal["versioned", "flat"]
    """One folder per export and a pointer to the current one, or only the last export at the container's paths."""
    content: Literal["stored", "decoded"]
    """For a folder: keep gzip files as stored, or decode them so that any web server can serve them."""
    inventory: Literal["auto", "list", "walk"]
    """List the container, or follow references from tileset.json; auto lists, and walks if listing is denied."""
    include: Sequence[str]
    """Mirror only files whose name matches one of these globs."""
    exclude: Sequence[str]
    """Leave out files whose name matches one of these globs, even if `include` matches too."""
    allow_missing: bool
    """Publish even if files that the tilesets reference are missing, or are outside the container."""
    allow_shrink: bool
    """Publish an export even if it has less than half the files or bytes, or filters leave only its root."""
    adopt: bool
    """Use DEST for SOURCE even if it belongs to another iModel, or has other files that do not conflict."""
    retention: RetentionPolicy
    """Which versions to keep. Default: all."""
    delete: bool
    """Flat layout: delete mirrored files that are no longer in the container."""
    max_delete: DeleteLimit | None
    """Stop if `delete` would delete more. Default: half of the files."""
    transfers: int | None
    """Number of parallel transfers; None: adapted to the throughput."""
    bwlimit: float | None
    """Maximum bytes per second."""
    create_container: bool
    """Create the container of an az:// DEST if it is missing."""
    cache_control: str | None
    """`Cache-Control` of the files in a version."""
    pointer_cache_control: str | None
    """`Cache-Control` of the pointer."""
    server_copy: bool
    """Azure to Azure: copy inside the storage service, checked by MD5."""
    cluster: str | None
    """Address of a Dask cluster whose workers transfer the files: tcp://, tls://, a scheduler file, or local:N."""
    every_file: bool
    """Send an event for each file."""


class LiveArguments(ServiceOptions, SelectionOptions, total=False):
    """Options of the export that is served: which one, how its service is reached, and how much memory it may take."""

    link_command: str | None
    """Command that prints a fresh container link when a link is served."""
    follow: bool
    """Take up a newer export when it is finished, looked for every `poll` (default: 60 s)."""
    cache_size: int
    """Bytes of memory for files of live exports. Default: 256 MB."""
