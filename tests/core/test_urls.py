"""Rules for URLs: https, or plain http on this machine."""

import pytest

from tilesync.core.urls import check_scheme, is_loopback
from tilesync.errors import UsageError


@pytest.mark.parametrize(
    "url", ["https://a.net/x", "http://127.0.0.1:1/x", "http://localhost/x", "http://[::1]:8/x", "http://a.localhost/x"]
)
def test_safe_schemes(url: str) -> None:
    """HTTPS links may lead anywhere, HTTP links only to this machine."""
    check_scheme(url)


@pytest.mark.parametrize(
    "url",
    ["http://a.net/x", "http://127.0.0.1.evil.net/x", "http://localhost.evil.net/x", "http://127.0.0.1@evil.net/x",
     "http://0.0.0.0/x", "http://10.0.0.1/x", "ftp://127.0.0.1/x", "file:///etc/passwd", "a.net/x", "", "http://[x/y"],
)  # fmt: skip
def test_unsafe_schemes(url: str) -> None:
    """Plain http to another machine, and every other scheme, is a usage error."""
    with pytest.raises(UsageError):
        check_scheme(url)


def test_loopback() -> None:
    """127/8, ::1 and the names of localhost are this machine; nothing else is."""
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost", "x.localhost")))
    assert not any(map(is_loopback, ("", "128.0.0.1", "::", "localhost.net", "notlocalhost")))
