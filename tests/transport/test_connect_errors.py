"""Errors of failed connections that a retry does not cure."""

from __future__ import annotations

import pytest

from tilesync.core.http_status import PROXY_LOGIN_HINT
from tilesync.errors import Unavailable, UnknownHost
from tilesync.transport.connect_errors import is_unresolved, permanent_error

URL = "https://host.example/c/tileset.json?sig=SECRET"


@pytest.mark.parametrize(
    "reason",
    [
        "[Errno -2] Name or service not known",
        "[Errno -5] No address associated with hostname",
        "Name does not resolve",
        "[Errno 8] nodename nor servname provided, or not known",
        "No such host is known. (os error 11001)",
        "[Errno 11001] getaddrinfo failed",
    ],
)
def test_a_name_without_address_is_permanent(reason: str) -> None:
    """The message of each resolver is recognised; the error repeats only the host of the URL."""
    assert is_unresolved(reason)
    error = permanent_error(reason, URL, host_answered=False)
    assert isinstance(error, UnknownHost)
    assert str(error) == f"the name host.example does not resolve ({reason})"


def test_a_host_that_has_answered_is_not_unknown() -> None:
    """If the host answered before, its name is right: the failure is retried."""
    assert permanent_error("Name or service not known", URL, host_answered=True) is None


@pytest.mark.parametrize(
    "reason", ["Temporary failure in name resolution", "connection refused", "connection reset by peer", ""]
)
def test_other_failures_are_retried(reason: str) -> None:
    """A resolver without an answer and a refused connection are not permanent."""
    assert not is_unresolved(reason)
    assert permanent_error(reason, URL, host_answered=False) is None


@pytest.mark.parametrize("reason", ["Proxy Authorization Required", "407 Proxy Authentication Required"])
def test_a_proxy_that_wants_a_login_is_permanent(reason: str) -> None:
    """The error says what the proxy wants, and the hint where to write it, also after the host answered."""
    error = permanent_error(reason, URL, host_answered=True)
    assert isinstance(error, Unavailable)
    assert error.hint == PROXY_LOGIN_HINT
    assert "sig=" not in str(error)
