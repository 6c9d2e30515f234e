"""Parse plain values of callers into requests: service, identity, iModel, link, destination."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilesync.api.auth import create_identity
from tilesync.api.locations import (
    Dest,
    Location,
    Source,
    is_azure,
    is_folder,
    parse_dest,
    parse_imodel_id,
    parse_mirror_source,
    parse_source_link,
)
from tilesync.api.options import (
    AccessOptions,
    LiveArguments,
    MirrorArguments,
    SelectionOptions,
    ServiceOptions,
    StoreAccessOptions,
)
from tilesync.app.requests import MirrorRequest, StoreOptions, Target
from tilesync.app.requests import default_state_root as default_state_root
from tilesync.app.service import API_URL, Service
from tilesync.core import option_values
from tilesync.core.filters import parse_globs
from tilesync.core.guards import DEFAULT_DELETE_LIMIT
from tilesync.core.http_headers import (
    IMMUTABLE_CACHE_CONTROL,
    REVALIDATE_CACHE_CONTROL,
    CachePolicy,
    parse_header_value,
)
from tilesync.core.option_values import parse_duration, parse_size
from tilesync.core.retention import KEEP_ALL_VERSIONS
from tilesync.core.urls import check_store_url
from tilesync.errors import UsageError
from tilesync.model import Content, Inventory, Layout, SasUrl, Secret, Selector

if TYPE_CHECKING:
    from tilesync.app.live import LiveRequest
    from tilesync.checks.commands import HostingRequest

DEFAULT_RETRY_FOR = parse_duration(option_values.DEFAULT_RETRY_FOR)
DOCTOR_RETRY_FOR = parse_duration(option_values.DOCTOR_RETRY_FOR)
"""How long requests are retried, if the caller does not say."""

SERVE_RETRY_FOR = parse_duration(option_values.SERVE_RETRY_FOR)
"""How long requests for what is served are retried: a viewer does not wait longer."""

DEFAULT_FOLLOW_POLL = parse_duration(option_values.DEFAULT_FOLLOW_POLL)
DEFAULT_CACHE_BYTES = parse_size(option_values.DEFAULT_CACHE_SIZE)

DEFAULT_WAIT = parse_duration(option_values.DEFAULT_WAIT)
DEFAULT_POLL = parse_duration(option_values.DEFAULT_POLL)


def create_service(options: ServiceOptions) -> Service:
    """Create the service with its identity. Raises UsageError if half of the client credentials is missing."""
    url = options.get("api_url") or os.environ.get("TILESYNC_API_URL") or os.environ.get("ITP_API_URL") or API_URL
    return Service(url, create_identity(options.get("auth")), options.get("retry_for", DEFAULT_RETRY_FOR))


def create_target(
    dest: Dest,
    options: StoreAccessOptions,
    *,
    retry_for: timedelta,
    cache_control: str | None = None,
    pointer_cache_control: str | None = None,
) -> Target:
    """Create a target: a destination, the options of its store, and the folder of its state."""
    extra = {"retry_for": retry_for, "cache_control": cache_control, "pointer_cache_control": pointer_cache_control}
    return Target(
        parse_dest(dest, options.get("azure_endpoint")),
        create_store_options({**options, **extra}),
        _path(options.get("state_dir")),
    )


def _path(text: str | Path | None) -> Path | None:
    return Path(text) if text else None


def create_selector(imodel: str | None, options: SelectionOptions) -> Selector:
    """Create the selector of exports from the options."""
    return Selector(
        imodel=parse_imodel_id(imodel) if imodel is not None else None,
        changeset=options.get("changeset_id"),
        export_id=options.get("export_id"),
        export_type=options.get("export_type", "3DTiles"),
        tile_version=options.get("tile_version"),
        itwinjs=options.get("itwinjs"),
    )


def create_mirror_request(source: Source, dest: Dest, options: MirrorArguments) -> MirrorRequest:
    """Resolve the arguments of a mirror into a request. Raises UsageError for options that conflict."""
    location = parse_dest(dest, options.get("azure_endpoint"))
    mirror_location = parse_mirror_source(source, options.get("azure_endpoint"))
    text = source.text if isinstance(source, Secret) else source
    link = (
        parse_source_link(text, is_secret=isinstance(source, Secret))
        if isinstance(text, str) and not mirror_location
        else None
    )
    _refuse_contradictions(options, link)
    _refuse_unsupported_options(options, location)
    if mirror_location is not None:
        _refuse_service_options(options)
    inventory = options.get("inventory", "auto")
    return MirrorRequest(
        service=create_service(options),
        selector=create_selector(text if isinstance(text, str) and not link and not mirror_location else None, options),
        destination=location,
        link=link,
        link_command=options.get("link_command") or None,
        cdn=options.get("cdn", False),
        wait=options.get("wait", DEFAULT_WAIT),
        poll=options.get("poll", DEFAULT_POLL),
        transfers=options.get("transfers"),
        bwlimit=options.get("bwlimit"),
        state_dir=_path(options.get("state_dir")),
        store_options=create_store_options(options),
        allow_shrink=options.get("allow_shrink", False),
        allow_missing=options.get("allow_missing", False),
        globs=parse_globs(options.get("include", ()), options.get("exclude", ())),
        inventory=None if inventory == "auto" else Inventory(inventory),
        every_file=options.get("every_file", False),
        all_exports=options.get("all_exports", False),
        publish=options.get("publish", True),
        retention=options.get("retention", KEEP_ALL_VERSIONS),
        layout=Layout(options.get("layout", "versioned")),
        delete_limit=(options.get("max_delete") or DEFAULT_DELETE_LIMIT) if options.get("delete") else None,
        server_copy=options.get("server_copy", False),
        cluster=options.get("cluster") or None,
        source_mirror=mirror_location,
        content=Content(options.get("content", "stored")),
        adopt=options.get("adopt", False),
        source_store_options=replace(
            create_store_options(options), link_command=options.get("link_command") or None, create_container=False
        ),
    )


def display_source(request: MirrorRequest, given: str | None) -> str | None:
    """Return SOURCE for display, without secrets: the container of a link, an absolute path, or an id."""
    if request.link is not None:
        return request.link.base
    if request.source_mirror is not None and is_folder(request.source_mirror):
        return str(Path(str(request.source_mirror)).absolute())
    return request.selector.imodel or given


def create_store_options(options: Mapping[str, Any]) -> StoreOptions:
    """Create the options of an object store: access and cache headers. Raises UsageError for a plain http address."""
    serving = CachePolicy(
        parse_header_value(options.get("cache_control") or IMMUTABLE_CACHE_CONTROL, "--cache-control"),
        parse_header_value(options.get("pointer_cache_control") or REVALIDATE_CACHE_CONTROL, "--pointer-cache-control"),
    )
    allow_http = bool(options.get("allow_http"))
    return StoreOptions(
        azure_endpoint=_parse_store_url(options.get("azure_endpoint"), "--azure-endpoint", allow_http=allow_http),
        endpoint_url=_parse_store_url(options.get("endpoint_url"), "--endpoint-url", allow_http=allow_http),
        allow_http=allow_http,
        link_command=options.get("dest_link_command") or None,
        create_container=bool(options.get("create_container")),
        serving=serving,
        retry_for=options.get("retry_for") or DEFAULT_RETRY_FOR,
    )


def _parse_store_url(text: str | None, option: str, *, allow_http: bool) -> str | None:
    """Parse the URL of a store; None for an empty text.

    Raises UsageError for an invalid URL, or for plain http without --allow-http.
    """
    if not text:
        return None
    scheme, colon, rest = text.partition("://")
    if not colon or scheme not in {"http", "https"} or not rest.strip("/") or any(sign in rest for sign in "?#@ "):
        raise UsageError(f"{option} must be a URL without a query", hint="write https://HOST or https://HOST:PORT")
    check_store_url(text, allow_http=allow_http)
    return text


def _refuse_contradictions(options: MirrorArguments, link: SasUrl | None) -> None:
    is_flat, all_exports = options.get("layout") == "flat", options.get("all_exports", False)
    kept_versions, delete = options.get("retention", KEEP_ALL_VERSIONS).versions, options.get("delete", False)
    refused = (
        (link is not None and all_exports, "--all-exports needs an iModel id: a link is for one export"),
        (is_flat and all_exports, "--all-exports needs the versioned layout: the flat layout has only one version"),
        (
            is_flat and not options.get("publish", True),
            "--no-publish needs the versioned layout: the flat layout has no pointer",
        ),
        (is_flat and kept_versions, "--keep-versions needs the versioned layout: the flat layout has only one version"),
        (not is_flat and delete, "--delete needs --layout flat; use --keep-versions to retire versions"),
        (options.get("max_delete") and not delete, "--max-delete needs --delete"),
    )
    for is_refused, message in refused:
        if is_refused:
            raise UsageError(message)


def _refuse_unsupported_options(options: MirrorArguments, dest: Location) -> None:
    """Raise UsageError for options that DEST does not support."""
    if options.get("server_copy") and not is_azure(dest):
        raise UsageError("--server-copy needs a DEST in Azure: no other store can copy from a container")
    if options.get("create_container") and not is_azure(dest):
        raise UsageError(
            "--create-container needs a DEST in Azure", hint="create an S3 bucket with the tools of its service"
        )
    if options.get("content") == "decoded" and not is_folder(dest):
        raise UsageError("--content decoded needs a folder as DEST: object stores send the encoding of each file")


def _refuse_service_options(options: MirrorArguments) -> None:
    """Raise UsageError for options that need the service or a container of an export."""
    given = {
        "--cdn": options.get("cdn"),
        "--link-command": options.get("link_command"),
        "--tile-version": options.get("tile_version"),
        "--itwinjs": options.get("itwinjs"),
        "--inventory walk": options.get("inventory") == "walk",
    }
    if named := [name for name, value in given.items() if value]:
        raise UsageError(f"{', '.join(named)}: not possible if SOURCE is a mirror", hint="leave out these options")


def create_hosting_request(
    dest: Dest, options: AccessOptions, *, public_url: str | None, origin: str | None
) -> HostingRequest:
    """Create the request of the hosting checks of `doctor`. Raises UsageError."""
    from tilesync.checks.commands import HostingRequest
    from tilesync.checks.public_url import parse_origin, parse_public_url

    retry_for = options.get("retry_for", DOCTOR_RETRY_FOR)
    return HostingRequest(
        create_target(dest, options, retry_for=retry_for),
        base_url=parse_public_url(public_url) if public_url else None,
        origin=parse_origin(origin) if origin else None,
        retry_for=retry_for,
    )


def parse_doctor_source(source: Source | None) -> tuple[Selector, SasUrl | None]:
    """Parse SOURCE of `doctor`: an iModel id or a container link. Raises UsageError."""
    if source is None or source == "":
        return Selector(None, export_type="3DTiles"), None
    text = source.text if isinstance(source, Secret) else str(source)
    link = parse_source_link(text, is_secret=isinstance(source, Secret))
    return Selector(None if link else parse_imodel_id(text), export_type="3DTiles"), link


def create_live_request(source: Source, options: LiveArguments) -> LiveRequest:
    """Create the request for a live export. Raises UsageError for what is neither a link nor an iModel id."""
    from tilesync.app.live import LiveRequest

    text = source.text if isinstance(source, Secret) else str(source)
    link = parse_source_link(text, is_secret=isinstance(source, Secret))
    selector = create_selector(None if link is not None else text, options)
    service: ServiceOptions = {
        "auth": options.get("auth"),
        "api_url": options.get("api_url"),
        "retry_for": options.get("retry_for", SERVE_RETRY_FOR),
    }
    request = LiveRequest(
        create_service(service),
        selector,
        options.get("wait", DEFAULT_WAIT),
        options.get("poll", DEFAULT_FOLLOW_POLL),
        options.get("cache_size", DEFAULT_CACHE_BYTES),
        link=link,
        link_command=(options.get("link_command") or None) if link is not None else None,
        cdn=options.get("cdn", False),
        follow=options.get("follow", False),
        title=(link.base if link is not None else selector.imodel) or "",
    )
    request.check()
    return request


def refuse_live_options(options: LiveArguments, *, has_live: bool, has_link: bool) -> None:
    """Raise UsageError for options of live exports that would have no effect."""
    refused = (
        (
            options.get("follow") and not has_live,
            "--follow is for live exports: the server of a mirror always shows what its pointer names",
        ),
        (options.get("link_command") and not has_link, "--link-command needs a container link to serve"),
    )
    for is_refused, message in refused:
        if is_refused:
            raise UsageError(message, hint="leave the option out, or serve an iModel id or a container link")
