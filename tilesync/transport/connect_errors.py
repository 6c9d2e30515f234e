"""Errors of failed connections that a retry does not cure, each with a message and a hint."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from tilesync.core.http_status import PROXY_LOGIN_HINT
from tilesync.errors import TilesyncError, Unavailable, UnknownHost

_UNRESOLVED_NAME_MESSAGES: Final = (
    "name or service not known",  # glibc
    "no address associated with hostname",
    "name does not resolve",  # musl
    "nodename nor servname provided",  # macOS
    "no such host is known",  # Windows
    "getaddrinfo failed",
)
"""Messages of resolvers for a name without an address. "Temporary failure in name resolution" (EAI_AGAIN) is not among
them: it is retried like any other failure.
"""

_PROXY_LOGIN_MESSAGES: Final = ("proxy authorization required", "407 proxy authentication")


def is_unresolved(reason: str) -> bool:
    """Return whether a resolver reported that a name has no address, and not merely that it got no answer."""
    reason = reason.lower()
    return any(text in reason for text in _UNRESOLVED_NAME_MESSAGES)


def permanent_error(reason: str, url: str, *, host_answered: bool) -> TilesyncError | None:
    """Return the error for a connection that failed for a permanent `reason`; None for any other.

    `host_answered`: the host has answered before, so its name is right. The message repeats only the host of the URL.
    """
    if any(text in reason.lower() for text in _PROXY_LOGIN_MESSAGES):
        return Unavailable("a proxy wants a user name and a password (407)", hint=PROXY_LOGIN_HINT)
    if is_unresolved(reason) and not host_answered:
        return UnknownHost(f"the name {urlsplit(url).hostname} does not resolve ({reason})")
    return None
