"""Plain values of callers, parsed into requests: the service, an identity, an iModel, a link, a destination."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any

from tilesync.api.auth import create_identity
from tilesync.api.options import MirrorOptions, SelectionOptions, ServiceOptions, StoreAccessOptions
from tilesync.app.commands import MirrorRequest
from tilesync.app.locations import parse_location as parse_location
from tilesync.app.requests import Location, StoreOptions, Target
from tilesync.app.requests import default_state_root as default_state_root
from tilesync.app.service import API_URL, Service
from tilesync.azure.sas import parse_sas_link
from tilesync.checks.commands import HostingRequest
from tilesync.checks.public_url import parse_origin, parse_public_url
from tilesync.core.filters import parse_globs
from tilesync.core.guards import DEFAULT_DELETE_LIMIT
from tilesync.core.http_headers import (
    IMMUTABLE_CACHE_CONTROL,
    REVALIDATE_CACHE_CONTROL,
    CachePolicy,
    parse_header_value,
)
from tilesync.core.retention import KEEP_ALL_VERSIONS
from tilesync.core.urls import check_store_url
from tilesync.errors import UsageError
from tilesync.itwin.portal_urls import IMODEL_ID_HINT, find_imodel_id, parse_guid
from tilesync.model import Content, Inventory, Layout, SasUrl, Secret, Selector
from tilesync.model.storage import AzureLocation, S3Location

DEFAULT_RETRY_FOR = timedelta(seconds=60)
DEFAULT_WAIT = timedelta(minutes=10)
DEFAULT_POLL = timedelta(seconds=15)

Source = str | Path | Secret | AzureLocation | S3Location
"""An iModel id, a URL of a portal, a container link (better as a Secret), or what tilesync mirrored before."""

Dest = str | Path | Secret | AzureLocation | S3Location
"""A folder, az://ACCOUNT/CONTAINER[/PREFIX], s3://BUCKET[/PREFIX], or the link of a container that may write."""


def create_service(options: ServiceOptions) -> Service:
    """The service and who asks. Raises UsageError for half of the client credentials."""
    url = options.get("api_url") or os.environ.get("TILESYNC_API_URL") or os.environ.get("ITP_API_URL") or API_URL
    return Service(url, create_identity(options.get("auth")), options.get("retry_for", DEFAULT_RETRY_FOR))


def parse_dest(dest: Dest, options: StoreAccessOptions) -> Location:
    """The place that DEST names. Raises UsageError, which does not repeat what may be a signature."""
    if isinstance(dest, Path | AzureLocation | S3Location):
        return dest
    text = dest.text if isinstance(dest, Secret) else dest
    if not text.strip():
        raise UsageError("DEST is empty", hint="name the folder, container or bucket to mirror into")
    location = parse_location(text, endpoint=options.get("azure_endpoint") or None, fetched=monotonic())
    if location is None and ("?sig=" in text or "&sig=" in text):
        raise UsageError("DEST is no folder, but a link that is not whole", hint="a link begins with https://")
    return location if location is not None else Path(text)


def create_target(
    dest: Dest,
    options: StoreAccessOptions,
    *,
    retry_for: timedelta,
    cache_control: str | None = None,
    pointer_cache_control: str | None = None,
) -> Target:
    """A destination, how its store is reached, and where its state is."""
    more = {"retry_for": retry_for, "cache_control": cache_control, "pointer_cache_control": pointer_cache_control}
    return Target(parse_dest(dest, options), create_store_options({**options, **more}), _path(options.get("state_dir")))


def find_viewer_location(what: Source, options: StoreAccessOptions) -> Location | None:
    """The destination that a viewer link is asked for; None where it is an iModel id. Raises UsageError."""
    if not isinstance(what, str | Secret):
        return what
    text = what.text if isinstance(what, Secret) else what
    if "://" in text and find_imodel_id(text) is not None:
        return None
    if "://" in text or text.startswith(("az:", "s3:")):
        return parse_location(text, endpoint=options.get("azure_endpoint") or None)
    bare = not any(letter in "?&=" for letter in text)
    return Path(text) if bare and ("/" in text or text in {".", ".."} or Path(text).is_dir()) else None


def _path(text: str | Path | None) -> Path | None:
    return Path(text) if text else None


EXAMPLE = "5c6b3f0e-0d3e-4b5a-9a51-6f2d3c1e7a40"


def parse_imodel_id(text: str) -> str:
    """An iModel id: itself, or in the URL of a portal.

    Raises UsageError for anything else; what may be a link is not repeated, since it may hold a signature.
    """
    found = find_imodel_id(text) if "://" in text else parse_guid(text)
    if found is None:
        shown = "that" if any(sign in text for sign in "?&=") or not text.strip() else repr(text)
        raise UsageError(
            f"{shown} is no iModel id" + (", but a link" if "?" in text else ""),
            hint=f"an iModel id looks like {EXAMPLE}: {IMODEL_ID_HINT}",
        )
    return found


def create_selector(imodel: str | None, options: SelectionOptions) -> Selector:
    """The exports that the options select."""
    return Selector(
        imodel=parse_imodel_id(imodel) if imodel is not None else None,
        changeset=options.get("changeset_id"),
        export_id=options.get("export_id"),
        export_type=options.get("export_type", "3DTiles"),
        tile_version=options.get("tile_version"),
        itwinjs=options.get("itwinjs"),
    )


_SOURCE_HINT = "SOURCE is an iModel id, a link, or what is held"


def parse_mirror_source(source: str, endpoint: str | None) -> Location | None:
    """The place that SOURCE is, where tilesync holds something; None when it is anything else.

    A text with a slash, or that begins as paths do, is meant as a folder; so is a bare name of one, but for an iModel
    id without manifests in it. What looks like a link is never taken for a path, nor repeated: it may hold a signature;
    one to a container is that of an export.
    """
    if source.startswith(("az:", "s3:")):
        return parse_location(source, endpoint=endpoint)
    if source == "-" or "://" in source or any(sign in source for sign in "?&="):
        return None
    path = Path(os.path.expanduser(source))
    if any(sign in source for sign in "/\\") or source.startswith((".", "~")):
        if os.path.exists(path) and not os.path.isdir(path):
            from tilesync.stores.local.folder_paths import folder_hint

            raise UsageError(f"{path} is no folder", hint=folder_hint(path))
        if not os.path.isdir(path):
            raise UsageError(f"there is no folder {path}", hint=_SOURCE_HINT)
        return path
    if any((path / inner).is_dir() for inner in ("manifests", ".tilesync/manifests")):
        return path
    if path.is_dir() and parse_guid(source) is None:
        raise UsageError(f"the folder {path} holds nothing that tilesync mirrored", hint=_SOURCE_HINT)
    return None


def parse_source_link(text: str, *, is_secret: bool = False) -> SasUrl | None:
    """The container link that SOURCE is; None when it is an iModel id. A secret is always a link. Raises UsageError."""
    if not is_secret and ("://" not in text or find_imodel_id(text) is not None):
        return None
    return parse_sas_link(text, fetched=monotonic())


def create_mirror_request(source: Source, dest: Dest, options: MirrorOptions) -> MirrorRequest:
    """Resolve the arguments of a mirror into a request. Raises UsageError for options that exclude each other."""
    location = parse_dest(dest, options)
    held = _parse_mirror_location(source, options)
    text = source.text if isinstance(source, Secret) else source
    link = parse_source_link(text, is_secret=isinstance(source, Secret)) if isinstance(text, str) and not held else None
    _refuse_contradictions(options, link)
    if options.get("server_copy") and not isinstance(location, AzureLocation):
        raise UsageError("--server-copy is for a DEST in Azure: nothing else takes blobs by itself")
    if options.get("create_container") and not isinstance(location, AzureLocation):
        raise UsageError("--create-container is for a DEST in Azure", hint="make a bucket with its service's tools")
    if options.get("content") == "decoded" and not isinstance(location, Path):
        raise UsageError("--content decoded is for a folder: a store states the encoding of each file itself")
    if held is not None:
        _refuse_service_options(options)
    inventory = options.get("inventory", "auto")
    return MirrorRequest(
        service=create_service(options),
        selector=create_selector(text if isinstance(text, str) and not link and not held else None, options),
        destination=location,
        link=link,
        link_command=options.get("link_command") or None,
        cdn=options.get("cdn", False),
        wait=options.get("wait", DEFAULT_WAIT),
        poll=options.get("poll", DEFAULT_POLL),
        transfers=options.get("transfers"),
        bwlimit=options.get("bwlimit"),
        state_dir=_path(options.get("state_dir")),
        reach=create_store_options(options),
        allow_shrink=options.get("allow_shrink", False),
        allow_missing=options.get("allow_missing", False),
        globs=parse_globs(options.get("include", ()), options.get("exclude", ())),
        inventory=None if inventory == "auto" else Inventory(inventory),
        every_file=options.get("every_file", False),
        all_exports=options.get("all_exports", False),
        publish=options.get("publish", True),
        keep=options.get("retention", KEEP_ALL_VERSIONS),
        layout=Layout(options.get("layout", "versioned")),
        delete=(options.get("max_delete") or DEFAULT_DELETE_LIMIT) if options.get("delete") else None,
        server_copy=options.get("server_copy", False),
        held=held,
        content=Content(options.get("content", "stored")),
        adopt=options.get("adopt", False),
        source_reach=replace(
            create_store_options(options), link_command=options.get("link_command") or None, create_container=False
        ),
    )


def _parse_mirror_location(source: Source, options: MirrorOptions) -> Location | None:
    if isinstance(source, Path | AzureLocation | S3Location):
        return source
    if isinstance(source, Secret):
        return None
    if not source.strip():
        raise UsageError("SOURCE is empty", hint=_SOURCE_HINT)
    return parse_mirror_source(source, options.get("azure_endpoint") or None)


def display_source(request: MirrorRequest, given: str | None) -> str | None:
    """SOURCE as it may be told, now that it is known: a link's container, a whole path, an id."""
    if request.link is not None:
        return request.link.base
    if isinstance(request.held, Path):
        return str(request.held.absolute())
    return request.selector.imodel or given


def create_store_options(options: Mapping[str, Any]) -> StoreOptions:
    """How a destination in an object store is reached and served. Raises UsageError for a plain http address."""
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
    """Where a store answers; None for an empty text. Raises UsageError for what is no address, or a plain http one that
    is not allowed.
    """
    if not text:
        return None
    scheme, colon, rest = text.partition("://")
    if not colon or scheme not in {"http", "https"} or not rest.strip("/") or any(sign in rest for sign in "?#@ "):
        raise UsageError(
            f"{option} must be an address and nothing more", hint="write https://HOST or https://HOST:PORT"
        )
    check_store_url(text, allow_http=allow_http)
    return text


def _refuse_contradictions(options: MirrorOptions, link: SasUrl | None) -> None:
    flat, every = options.get("layout") == "flat", options.get("all_exports", False)
    keeps, delete = options.get("retention", KEEP_ALL_VERSIONS).versions, options.get("delete", False)
    refused = (
        (link is not None and every, "--all-exports wants an iModel id: a link is one export"),
        (flat and every, "--all-exports keeps a history, and the flat layout holds one version"),
        (
            flat and not options.get("publish", True),
            "--no-publish leaves a pointer alone, and the flat layout has none",
        ),
        (flat and keeps, "--keep-versions is about a history, and the flat layout holds one version"),
        (not flat and delete, "--delete is for --layout flat: versions retire by --keep-versions"),
        (options.get("max_delete") and not delete, "--max-delete limits --delete, which is not given"),
    )
    for wrong, message in refused:
        if wrong:
            raise UsageError(message)


def _refuse_service_options(options: MirrorOptions) -> None:
    """Raise UsageError for what only the service, or a container, can be asked."""
    given = {
        "--cdn": options.get("cdn"),
        "--link-command": options.get("link_command"),
        "--tile-version": options.get("tile_version"),
        "--itwinjs": options.get("itwinjs"),
        "--inventory walk": options.get("inventory") == "walk",
    }
    if named := [name for name, value in given.items() if value]:
        raise UsageError(f"{', '.join(named)}: not for a SOURCE that tilesync mirrored", hint="leave it out")


def create_hosting_request(
    dest: Dest, options: StoreAccessOptions, *, public_url: str | None, origin: str | None, retry_for: timedelta
) -> HostingRequest:
    """What `doctor` looks at: a destination, and where viewers reach it. Raises UsageError."""
    return HostingRequest(
        create_target(dest, options, retry_for=retry_for),
        base_url=parse_public_url(public_url) if public_url else None,
        origin=parse_origin(origin) if origin else None,
        retry_for=retry_for,
    )


def parse_doctor_source(source: Source | None) -> tuple[Selector, SasUrl | None]:
    """The iModel, or the container link, that `doctor` is asked about. Raises UsageError."""
    if source is None or source == "":
        return Selector(None, export_type="3DTiles"), None
    text = source.text if isinstance(source, Secret) else str(source)
    link = parse_source_link(text, is_secret=isinstance(source, Secret))
    return Selector(None if link else parse_imodel_id(text), export_type="3DTiles"), link
