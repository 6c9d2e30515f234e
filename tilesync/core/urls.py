"""Which URLs may be used: plain http is for this machine alone, unless the user allows it."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

from tilesync.errors import UsageError


def _split_url(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise UsageError("that is no URL") from None
    return parts


def refuse_credentials(parts: SplitResult) -> None:
    """Raise UsageError for a link with a user before its host: the bare URL of a container is told in many places."""
    if "@" in parts.netloc:
        raise UsageError(
            "the link names a user or a password before its host, which no container takes",
            hint="leave out what stands before the @: the signature behind the ? is what lets in",
        )


def check_scheme(url: str) -> None:
    """Raise UsageError for plain http to anything but this machine: tokens and signatures would travel in clear."""
    parts = _split_url(url)
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        return
    if parts.scheme == "http":
        raise UsageError(f"plain http is accepted on this machine only, not to {parts.hostname}", hint="use https://")
    raise UsageError(
        "a URL of the service or its links must begin with https://", hint="check --api-url and ITP_ISSUER_URL"
    )


def check_store_url(url: str, *, allow_http: bool) -> None:
    """Raise UsageError for plain http to a store that is not on this machine, unless the user allows it."""
    parts = _split_url(url)
    if parts.scheme != "http" or is_loopback(parts.hostname or ""):
        check_scheme(url)
    elif not allow_http:
        raise UsageError(
            f"plain http is accepted on this machine only, not to {parts.hostname}",
            hint="use https://; or, for a store in a network of your own, --allow-http: tiles and signatures go in the"
            " clear",
        )


def is_cleartext(url: str) -> bool:
    """Whether what is sent to `url` can be read on the way."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def make_cleartext_warning(url: str, place: str) -> str:
    """What is to be said of a place that is reached over plain http."""
    return (
        f"{place} is reached over plain http, as --allow-http says: tiles, and the requests and links that its keys"
        f" sign, go to {urlsplit(url).netloc} in the clear, and whoever is on the way can read and change them"
    )


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
