"""Rules for URLs: https, or plain http on this machine or if the user allows it."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

from tilesync.errors import UsageError


def split_url(url: str) -> SplitResult:
    """Split a URL. Raises UsageError where it, or its port, is invalid."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise UsageError("this is not a valid URL") from None
    return parts


def refuse_credentials(parts: SplitResult) -> None:
    """Raise UsageError for a link with a user before its host, since container URLs appear in many outputs."""
    if "@" in parts.netloc:
        raise UsageError(
            "the link has a user or a password before its host, which no container accepts",
            hint="remove the part before the @: the signature after the ? gives access",
        )


def check_scheme(url: str) -> None:
    """Raise UsageError for plain http to another machine: tokens and signatures would be readable on the way."""
    parts = split_url(url)
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        return
    if parts.scheme == "http":
        raise UsageError(f"plain http is accepted on this machine only, not to {parts.hostname}", hint="use https://")
    raise UsageError(
        "a URL of the service or its links must begin with https://", hint="check --api-url and ITP_ISSUER_URL"
    )


def check_store_url(url: str, *, allow_http: bool) -> None:
    """Raise UsageError for plain http to a store on another machine, unless the user allows it."""
    parts = split_url(url)
    if parts.scheme != "http" or is_loopback(parts.hostname or ""):
        check_scheme(url)
    elif not allow_http:
        raise UsageError(
            f"plain http is accepted on this machine only, not to {parts.hostname}",
            hint="use https://; or, for a store in your own network, --allow-http: tiles and signatures are then sent"
            " unencrypted",
        )


def is_cleartext(url: str) -> bool:
    """Return whether data sent to `url` can be read on the way."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def make_cleartext_warning(url: str, place: str) -> str:
    """Return the warning for a destination that is reached over plain http."""
    return (
        f"{place} is reached over plain http, as --allow-http allows: tiles, signed requests and links go to"
        f" {urlsplit(url).netloc} unencrypted, and anyone on the way can read and change them"
    )


def is_loopback(host: str) -> bool:
    """Return whether `host` is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
