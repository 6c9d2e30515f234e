"""What the words of a command line mean: the service, an identity, an iModel, a container link."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilesync.cli.environment import find_unknown_variables
from tilesync.errors import UsageError
from tilesync.model.storage import AzureLocation

if TYPE_CHECKING:
    from tilesync.app.commands import MirrorRequest
    from tilesync.app.requests import StoreOptions
    from tilesync.app.service import Service
    from tilesync.cli.params import Location
    from tilesync.cli.session import Session
    from tilesync.model import SasUrl, Selector


def create_session(
    options: dict[str, Any],
    *,
    source: str | None = None,
    dest: Location | None = None,
    changes_dest: bool = False,
    is_stepwise: bool = False,
) -> Session:
    """A session that speaks as the options of a command say, about this SOURCE and DEST. Raises UsageError for output
    files that must not be written.
    """
    from tilesync.cli.output.path_checks import OutputFiles, find_local_folders
    from tilesync.cli.output.target_names import redact_dest, redact_source
    from tilesync.cli.session import OutputOptions, Session
    from tilesync.events import Warned

    folders = find_local_folders((source, dest))
    OutputFiles(options.get("report"), options["log_file"], folders, options.get("state_dir")).check()
    session = Session(
        OutputOptions(
            json=options["as_json"],
            quiet=options["quiet"],
            verbose=options["verbose"],
            progress=not options.get("no_progress", False),
            log_file=options["log_file"],
            report=options.get("report"),
            source=redact_source(source),
            dest=redact_dest(dest),
            changes_dest=changes_dest,
            is_stepwise=is_stepwise,
        )
    )
    group = click.get_current_context().find_root().command
    for sentence in find_unknown_variables(group, os.environ) if isinstance(group, click.Group) else ():
        session.observe(Warned(sentence))
    return session


def create_service(options: dict[str, Any]) -> Service:
    """The service, and who asks. Raises UsageError for half of the client credentials."""
    from tilesync.app import service as services
    from tilesync.model import Secret

    def secret(name: str) -> Secret | None:
        return Secret(os.environ[name]) if os.environ.get(name) else None

    identity = services.Identity(
        token=secret("TILESYNC_TOKEN"),
        token_file=options["token_file"],
        token_command=options["token_command"] or None,
        share_key=secret("TILESYNC_SHARE_KEY"),
        client_id=os.environ.get("ITP_SERVICE_CLIENT_ID"),
        client_secret=secret("ITP_SERVICE_CLIENT_SECRET"),
        issuer=os.environ.get("ITP_ISSUER_URL") or services.ISSUER_URL,
    )
    if bool(identity.client_id) != bool(identity.client_secret):
        missing = "ITP_SERVICE_CLIENT_SECRET" if identity.client_id else "ITP_SERVICE_CLIENT_ID"
        raise UsageError(f"half of the client credentials is missing: {missing}", hint="set both, or neither")
    return services.Service(options["api_url"] or services.API_URL, identity, options["retry_for"])


EXAMPLE = "5c6b3f0e-0d3e-4b5a-9a51-6f2d3c1e7a40"


def parse_imodel_id(text: str) -> str:
    """An iModel id: itself, or in the URL of a portal. Raises UsageError for anything else; what may be a link is not
    repeated, since it may hold a signature.
    """
    from tilesync.itwin.portal_urls import IMODEL_ID_HINT, find_imodel_id, parse_guid

    found = find_imodel_id(text) if "://" in text else parse_guid(text)
    if found is None:
        shown = "that" if any(sign in text for sign in "?&=") or not text.strip() else repr(text)
        raise UsageError(
            f"{shown} is no iModel id" + (", but a link" if "?" in text else ""),
            hint=f"an iModel id looks like {EXAMPLE}: {IMODEL_ID_HINT}",
        )
    return found


def create_selector(imodel: str | None, options: dict[str, Any]) -> Selector:
    """Which exports the options mean."""
    from tilesync.model import Selector

    return Selector(
        imodel=parse_imodel_id(imodel) if imodel is not None else None,
        changeset=options["changeset_id"],
        export_id=options["export_id"],
        export_type=options["export_type"],
        tile_version=options["tile_version"],
        itwinjs=options["itwinjs"],
    )


_SOURCE_HINT = "SOURCE is an iModel id, a link, or what is held"


def parse_mirror_source(source: str, endpoint: str | None) -> Location | None:
    """The place that SOURCE is, where tilesync holds something; None when it is anything else.

    A text with a slash, or that begins as paths do, is meant as a folder; so is a bare name of one, but for an iModel
    id without manifests in it. What looks like a link is never taken for a path, nor repeated: it may hold a signature;
    one to a container is that of an export.
    """
    from tilesync.app.locations import parse_location
    from tilesync.itwin.portal_urls import parse_guid

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


def parse_source_link(source: str) -> SasUrl | None:
    """The container link that SOURCE is; None when it is an iModel id."""
    from time import monotonic

    from tilesync.azure.sas import parse_sas_link
    from tilesync.itwin.portal_urls import find_imodel_id

    text = _read_stdin_line() if source == "-" else source
    if not text:
        raise UsageError(
            "a container link is expected on standard input, and nothing came",
            hint="pipe it in",
        )
    if source != "-" and find_imodel_id(text) is not None:
        return None
    is_link = source == "-" or "://" in text
    return parse_sas_link(text, fetched=monotonic()) if is_link else None


def _read_stdin_line() -> str:
    """The line that came on standard input; empty where none did. Raises UsageError for what is no text."""
    try:
        return (sys.stdin.readline() if sys.stdin else "").strip("\ufeff \t\r\n")
    except UnicodeDecodeError:
        raise UsageError("standard input is no text in UTF-8", hint="write the link as plain text in UTF-8") from None


def is_on_command_line(context: click.Context, name: str) -> bool:
    """Whether a value stands on the command line, where others can see it."""
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def create_mirror_request(source: str, dest: Location, options: dict[str, Any]) -> MirrorRequest:
    """What `tilesync mirror` is asked to do. Raises UsageError for wishes that do not go together."""
    from tilesync.app import commands as wiring
    from tilesync.core.filters import parse_globs
    from tilesync.core.guards import DEFAULT_DELETE_LIMIT
    from tilesync.core.retention import RetentionPolicy
    from tilesync.model import Content, Inventory, Layout

    held = parse_mirror_source(source, options.get("azure_endpoint") or None)
    link = parse_source_link(source) if held is None else None
    _refuse_contradictions(options, link)
    if options["server_copy"] and not isinstance(dest, AzureLocation):
        raise UsageError("--server-copy is for a DEST in Azure: nothing else takes blobs by itself")
    if options["create_container"] and not isinstance(dest, AzureLocation):
        raise UsageError("--create-container is for a DEST in Azure", hint="make a bucket with its service's tools")
    if options["content"] == "decoded" and not isinstance(dest, Path):
        raise UsageError("--content decoded is for a folder: a store states the encoding of each file itself")
    if held is not None:
        _refuse_service_options(options)
    return wiring.MirrorRequest(
        service=create_service(options),
        selector=create_selector(None if link or held else source, options),
        destination=dest,
        link=link,
        link_command=options["link_command"] or None,
        cdn=options["cdn"],
        wait=options["wait"],
        poll=options["poll"],
        transfers=options["transfers"],
        bwlimit=options["bwlimit"],
        state_dir=options["state_dir"],
        reach=create_store_options(options),
        allow_shrink=options["allow_shrink"],
        allow_missing=options["allow_missing"],
        globs=parse_globs(options["include"], options["exclude"]),
        inventory=None if options["inventory"] == "auto" else Inventory(options["inventory"]),
        every_file=options["verbose"] or options["log_file"] is not None,
        all_exports=options["all_exports"],
        publish=not options["no_publish"],
        keep=RetentionPolicy(options["keep_versions"], options["keep_for"]),
        layout=Layout(options["layout"]),
        delete=(options["max_delete"] or DEFAULT_DELETE_LIMIT) if options["delete"] else None,
        server_copy=options["server_copy"],
        held=held,
        content=Content(options["content"]),
        adopt=options["adopt"],
        source_reach=replace(
            create_store_options(options), link_command=options["link_command"] or None, create_container=False
        ),
    )


def display_source(request: MirrorRequest, given: str | None) -> str | None:
    """SOURCE as it may be told, now that it is known: a link's container, a whole path, an id."""
    if request.link is not None:
        return request.link.base
    if isinstance(request.held, Path):
        return str(request.held.absolute())
    return request.selector.imodel or given


def create_store_options(options: dict[str, Any]) -> StoreOptions:
    """How a destination in an object store is reached and served. Raises UsageError for a plain http address."""
    from tilesync.app.requests import StoreOptions
    from tilesync.core.http_headers import (
        IMMUTABLE_CACHE_CONTROL,
        REVALIDATE_CACHE_CONTROL,
        CachePolicy,
        parse_header_value,
    )

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
        retry_for=options.get("retry_for") or timedelta(seconds=60),
    )


def _parse_store_url(text: str | None, option: str, *, allow_http: bool) -> str | None:
    """Where a store answers; None for an empty text. Raises UsageError for what is no address, or a plain http one that
    is not allowed.
    """
    from tilesync.core.urls import check_store_url

    if not text:
        return None
    scheme, colon, rest = text.partition("://")
    if not colon or scheme not in {"http", "https"} or not rest.strip("/") or any(sign in rest for sign in "?#@ "):
        raise UsageError(
            f"{option} must be an address and nothing more", hint="write https://HOST or https://HOST:PORT"
        )
    check_store_url(text, allow_http=allow_http)
    return text


def _refuse_contradictions(options: dict[str, Any], link: SasUrl | None) -> None:
    flat = options["layout"] == "flat"
    refused = (
        (link is not None and options["all_exports"], "--all-exports wants an iModel id: a link is one export"),
        (flat and options["all_exports"], "--all-exports keeps a history, and the flat layout holds one version"),
        (flat and options["no_publish"], "--no-publish leaves a pointer alone, and the flat layout has none"),
        (
            flat and options["keep_versions"],
            "--keep-versions is about a history, and the flat layout holds one version",
        ),
        (not flat and options["delete"], "--delete is for --layout flat: versions retire by --keep-versions"),
        (options["max_delete"] and not options["delete"], "--max-delete limits --delete, which is not given"),
    )
    for wrong, message in refused:
        if wrong:
            raise UsageError(message)


def _refuse_service_options(options: dict[str, Any]) -> None:
    """Raise UsageError for what only the service, or a container, can be asked."""
    given = {
        "--cdn": options["cdn"],
        "--link-command": options["link_command"],
        "--tile-version": options["tile_version"],
        "--itwinjs": options["itwinjs"],
        "--inventory walk": options["inventory"] == "walk",
    }
    if named := [name for name, value in given.items() if value]:
        raise UsageError(f"{', '.join(named)}: not of a SOURCE that is held already", hint="leave it away")
