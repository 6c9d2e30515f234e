"""What the name of a destination means: a place in an object store, or a folder."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from tilesync.azure.sas import parse_expiry
from tilesync.core.safe_names import find_problem
from tilesync.core.urls import is_loopback, refuse_credentials
from tilesync.errors import UsageError
from tilesync.model import SasUrl
from tilesync.model.storage import AzureLocation, S3Location

_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_CONTAINER = re.compile(r"\$root|\$web|(?=.{3,63}\Z)[a-z0-9]+(?:-[a-z0-9]+)*")
"""Source: "Naming and Referencing Containers, Blobs, and Metadata"."""

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
"""More than Amazon allows today: older buckets and other servers are freer. Source: "Bucket naming rules"."""

LOCATION_FORMS = "az://ACCOUNT/CONTAINER[/PREFIX], https://HOST/CONTAINER[/PREFIX]?SAS, s3://BUCKET[/PREFIX]"


def parse_location(
    text: str, *, endpoint: str | None = None, fetched: float = 0.0
) -> AzureLocation | S3Location | None:
    """The place in an object store that `text` names; None where it can only be a folder. `endpoint`: that of the
    account, where it is no usual one.

    Raises UsageError, which does not repeat what may be a signature.
    """
    text = text.removeprefix("\ufeff")
    scheme, colon, rest = text.partition("://")
    if not colon:
        if text.startswith(("az:", "s3:")):
            raise UsageError(f"{text[:3]} wants two slashes: {LOCATION_FORMS}")
        return None
    if scheme in {"http", "https"}:
        return _parse_container_link(text, endpoint, fetched)
    if "?" in rest or "#" in rest:
        raise UsageError(f"{scheme}:// takes no query: {LOCATION_FORMS}")
    first, _, path = rest.partition("/")
    if scheme == "az":
        container, _, prefix = path.partition("/")
        return AzureLocation(_check_account(first), _check_container(container), _normalize_prefix(prefix))
    if scheme == "s3":
        if not _BUCKET.fullmatch(first):
            raise UsageError(f"{first!r} is no name of a bucket")
        return S3Location(first, _normalize_prefix(path))
    raise UsageError(f"{scheme}:// is no place that tilesync knows: {LOCATION_FORMS}, or a folder")


def _parse_container_link(text: str, endpoint: str | None, fetched: float) -> AzureLocation:
    """Source: "Resource URI syntax" (Blob service): an emulator has the account as the first part of the path."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise UsageError("that is no URL") from None
    refuse_credentials(parts)
    if not parts.query:
        raise UsageError(
            "the URL of the destination carries no signature (nothing stands behind a '?')",
            hint="quote it in the shell; or name it as az://ACCOUNT/CONTAINER and give an identity",
        )
    path = parts.path.lstrip("/")
    usual = "{account}" if is_loopback(host) or _is_ip_address(host) else ""
    template = (urlsplit(endpoint).path if endpoint else usual).strip("/").split("/")
    there = path.split("/")
    if template != [""] and all(sign in {"{account}", word} for sign, word in zip(template, there, strict=False)):
        lead, path = "/".join(there[: len(template)]), "/".join(there[len(template) :])
        account = there[template.index("{account}")] if "{account}" in template else template[-1]
    else:
        account, lead = host.partition(".")[0], ""
    container, _, prefix = path.partition("/")
    base = f"{parts.scheme}://{parts.netloc}/{f'{lead}/' if lead else ''}{_check_container(container)}"
    link = SasUrl(base, parts.query, expires=parse_expiry(parts.query), fetched_at_s=fetched)
    return AzureLocation(_check_account(account), container, _normalize_prefix(unquote(prefix)), link)


def _is_ip_address(host: str) -> bool:
    return bool(re.fullmatch(r"[0-9.]+|\[?[0-9a-f:]+\]?", host))


def _check_account(text: str) -> str:
    if not _ACCOUNT.fullmatch(text):
        raise UsageError(f"{text!r} is no name of a storage account", hint=f"write {LOCATION_FORMS}")
    return text


def _check_container(text: str) -> str:
    if not _CONTAINER.fullmatch(text):
        what = f"{text!r} is no name of a container" if text else "the container is missing"
        raise UsageError(what, hint=f"write {LOCATION_FORMS}")
    return text


def _normalize_prefix(text: str) -> str:
    """A prefix as objects have it: empty, or ending with one slash. Raises UsageError for one that is not plain."""
    text = text.strip("/")
    if text and (why := find_problem(text)):
        raise UsageError(f"the prefix {text!r} {why}")
    return f"{text}/" if text else ""
