"""Location of a destination: an Azure container, an S3 bucket or a folder. Parse it, and dispatch on its kind."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from tilesync.azure.sas import parse_expiry
from tilesync.core.safe_names import find_problem
from tilesync.core.urls import is_loopback, refuse_credentials
from tilesync.errors import UsageError
from tilesync.model import SasUrl
from tilesync.model.storage import AzureLocation, S3Location
from tilesync.stores.packages.formats import find_format

T = TypeVar("T")

Location = Path | AzureLocation | S3Location

_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_CONTAINER = re.compile(r"\$root|\$web|(?=.{3,63}\Z)[a-z0-9]+(?:-[a-z0-9]+)*")
"""Source: "Naming and Referencing Containers, Blobs, and Metadata"."""

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
"""Wider than the rules of Amazon today, which older buckets and other servers break. Source: "Bucket naming rules"."""

LOCATION_FORMS = "az://ACCOUNT/CONTAINER[/PREFIX], https://HOST/CONTAINER[/PREFIX]?SAS, s3://BUCKET[/PREFIX]"


def match_location(
    location: Location,
    *,
    folder: Callable[[Path], T],
    azure: Callable[[AzureLocation], T],
    s3: Callable[[S3Location], T],
) -> T:
    """Call the function for the kind of a location, and return its result. No other code tells the kinds apart."""
    if isinstance(location, AzureLocation):
        return azure(location)
    if isinstance(location, S3Location):
        return s3(location)
    return folder(location)


def is_folder(location: Location) -> bool:
    """Return whether a location is a folder of this machine."""
    return match_location(location, folder=lambda _: True, azure=lambda _: False, s3=lambda _: False)


def is_package(location: Location) -> bool:
    """Return whether a location is a package file: by the ending of its name, unless it is a folder."""
    return match_location(
        location,
        folder=lambda path: find_format(path.name) is not None and not os.path.isdir(path),
        azure=lambda _: False,
        s3=lambda _: False,
    )


def refuse_missing_folder(location: Location) -> None:
    """Raise DestinationError if a location is a folder that does not exist; a package is opened first of all."""
    from tilesync.stores.local.folder_paths import refuse_missing

    match_location(
        location,
        folder=lambda path: None if is_package(path) else refuse_missing(path),
        azure=lambda _: None,
        s3=lambda _: None,
    )


def is_azure(location: Location) -> bool:
    """Return whether a location is an Azure container."""
    return match_location(location, folder=lambda _: False, azure=lambda _: True, s3=lambda _: False)


def find_link(location: Location) -> SasUrl | None:
    """Return the container link, a secret, that a location was parsed from; None if it was not a link."""
    return match_location(location, folder=lambda _: None, azure=lambda azure: azure.link, s3=lambda _: None)


def parse_location(
    text: str, *, endpoint: str | None = None, fetched: float = 0.0
) -> AzureLocation | S3Location | None:
    """Parse the URL of an object store; return None for text that can only be a folder.

    `endpoint`: endpoint of the storage account, if not the default; `{account}` stands for its name. `fetched`: time of
    the link, in seconds of the monotonic clock. Raises UsageError, which never repeats a signature.
    """
    text = text.removeprefix("\ufeff")
    scheme, colon, rest = text.partition("://")
    if not colon:
        if text.startswith(("az:", "s3:")):
            raise UsageError(f"two slashes are missing after {text[:3]}", hint=f"write {LOCATION_FORMS}")
        return None
    if scheme in {"http", "https"}:
        return _parse_container_link(text, endpoint, fetched)
    if "?" in rest or "#" in rest:
        raise UsageError(f"a {scheme}:// location cannot have a query or fragment", hint=f"write {LOCATION_FORMS}")
    first, _, path = rest.partition("/")
    if scheme == "az":
        container, _, prefix = path.partition("/")
        return AzureLocation(_check_account(first), _check_container(container), _normalize_prefix(prefix))
    if scheme == "s3":
        if not _BUCKET.fullmatch(first):
            raise UsageError(f"{first!r} is not a valid bucket name", hint=f"write {LOCATION_FORMS}")
        return S3Location(first, _normalize_prefix(path))
    raise UsageError(f"tilesync does not support {scheme}:// locations", hint=f"write {LOCATION_FORMS}, or a folder")


def _parse_container_link(text: str, endpoint: str | None, fetched: float) -> AzureLocation:
    """Parse a SAS link to a container, with an optional prefix. Raises UsageError.

    An emulator has the account as the first segment of the path. Source: "Resource URI syntax" (Blob service).
    """
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise UsageError("the location is not a valid URL") from None
    refuse_credentials(parts)
    if not parts.query:
        raise UsageError(
            "the URL has no signature (no query after a '?')",
            hint="quote the URL in the shell; or write az://ACCOUNT/CONTAINER and set an account key or an identity",
        )
    path = parts.path.lstrip("/")
    default_path = "{account}" if is_loopback(host) or _is_ip_address(host) else ""
    template = (urlsplit(endpoint).path if endpoint else default_path).strip("/").split("/")
    segments = path.split("/")
    if template != [""] and all(
        expected in {"{account}", segment} for expected, segment in zip(template, segments, strict=False)
    ):
        endpoint_path, path = "/".join(segments[: len(template)]), "/".join(segments[len(template) :])
        account = segments[template.index("{account}")] if "{account}" in template else template[-1]
    else:
        account, endpoint_path = host.partition(".")[0], ""
    container, _, prefix = path.partition("/")
    base = (
        f"{parts.scheme}://{parts.netloc}/{f'{endpoint_path}/' if endpoint_path else ''}{_check_container(container)}"
    )
    link = SasUrl(base, parts.query, expires=parse_expiry(parts.query), fetched_at_s=fetched)
    return AzureLocation(_check_account(account), container, _normalize_prefix(unquote(prefix)), link)


def _is_ip_address(host: str) -> bool:
    return bool(re.fullmatch(r"[0-9.]+|\[?[0-9a-f:]+\]?", host))


def _check_account(text: str) -> str:
    if not _ACCOUNT.fullmatch(text):
        raise UsageError(f"{text!r} is not a valid storage account name", hint=f"write {LOCATION_FORMS}")
    return text


def _check_container(text: str) -> str:
    if not _CONTAINER.fullmatch(text):
        problem = f"{text!r} is not a valid container name" if text else "the container is missing"
        raise UsageError(problem, hint=f"write {LOCATION_FORMS}")
    return text


def _normalize_prefix(text: str) -> str:
    """Return a prefix that is empty or ends with one slash. Raises UsageError for one that no folder can store."""
    text = text.strip("/")
    if text and (problem := find_problem(text)):
        raise UsageError(f"the prefix {text!r} {problem}")
    return f"{text}/" if text else ""


def find_last_part(location: str) -> str:
    """Return the last part of a location that is written as text: what a person calls it."""
    return re.split(r"[/\\]", location.rstrip("/\\"))[-1] or location
