"""Failed connections: which of them no other attempt cures, with a sentence and a hint for each."""

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
"""What resolvers say of a name that has no address. Not among them: "Temporary failure in name resolution" (EAI_AGAIN),
which is tried again like any other failure.
"""

_PROXY_LOGIN_MESSAGES: Final = ("proxy authorization required", "407 proxy authentication")


def is_unresolved(reason: str) -> bool:
    """Whether a resolver said that a name has no address, as opposed to that it could not ask."""
    reason = reason.lower()
    return any(text in reason for text in _UNRESOLVED_NAME_MESSAGES)


def permanent_error(reason: str, url: str, *, host_answered: bool) -> TilesyncError | None:
    """The error for a connection that failed for a `reason` that time seldom cures; None for any other.

    `reached`: the host answered before, so its name is right. Of the URL only the host is repeated.
    """
    if any(text in reason.lower() for text in _PROXY_LOGIN_MESSAGES):
        return Unavailable("a proxy wants a user name and a password (407)", hint=PROXY_LOGIN_HINT)
    if is_unresolved(reason) and not host_answered:
        return UnknownHost(f"the name {urlsplit(url).hostname} does not resolve ({reason})")
    return None
