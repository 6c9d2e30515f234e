"""Test who may read: the token in each of its places, and the pages of other origins."""

from __future__ import annotations

import pytest

from tilesync.serving.access import CODE_SECONDS, CorsPolicy, OneTimeCode, TokenGuard, remove_secrets

GUARD = TokenGuard("s3cret +&ä")
COOKIE = GUARD.make_cookie().partition(";")[0].encode()


@pytest.mark.parametrize(
    ("headers", "query", "is_admitted"),
    [
        ({b"authorization": b"Bearer s3cret +&\xc3\xa4"}, b"", True),
        ({b"authorization": b"bearer s3cret +&\xc3\xa4"}, b"", True),
        ({b"authorization": b"Basic s3cret +&\xc3\xa4"}, b"", False),
        ({b"authorization": b"Bearer other"}, b"", False),
        ({}, b"a=1&token=s3cret%20%2B%26%C3%A4", True),
        ({}, b"token=other", False),
        ({}, b"token=", False),
        ({}, b"token=other&token=s3cret%20%2B%26%C3%A4", True),
        ({b"cookie": b"a=b; " + COOKIE}, b"", True),
        ({b"cookie": COOKIE + b"0"}, b"", False),
        ({b"cookie": b"a; =;;" + b"\xff"}, b"\xff", False),
        ({}, b"", False),
    ],
)
def test_a_token_has_three_places(headers: dict[bytes, bytes], query: bytes, is_admitted: bool) -> None:
    """The Authorization header, the query and the cookie admit a request, and nothing else does."""
    assert GUARD.admits(headers, query) is is_admitted


def test_no_token_admits_everybody() -> None:
    """Without a token every request is admitted, and no query counts as one with the token."""
    assert TokenGuard().admits({}, b"")
    assert not TokenGuard().is_in_query(b"token=")


def test_a_cookie_is_kept_from_scripts_and_other_sites() -> None:
    """The cookie can be read by no script, and other sites send it with no request but a link; it is never shown."""
    assert GUARD.make_cookie().endswith("; Path=/; HttpOnly; SameSite=Lax")
    assert "s3cret" not in repr(GUARD)
    assert TokenGuard("other").cookie_name != GUARD.cookie_name


def test_a_query_without_the_token() -> None:
    """Removing the token keeps the rest of a query."""
    assert remove_secrets(b"a=1&token=x&code=y&b=%C3%A4&c=") == "a=1&b=%C3%A4&c="
    assert remove_secrets(b"token=x") == ""


def test_all_origins_may_read() -> None:
    """By default every page may read the answers, and the headers that viewers use."""
    headers = dict(CorsPolicy().response_headers(None))
    assert headers[b"access-control-allow-origin"] == b"*"
    assert b"ETag" in headers[b"access-control-expose-headers"]
    assert b"vary" not in headers


@pytest.mark.parametrize(
    ("origin", "is_allowed"), [(b"https://a.example", True), (b"https://b.example", False), (None, False)]
)
def test_some_origins_may_read(origin: bytes | None, is_allowed: bool) -> None:
    """Only a named origin is allowed, and caches are told that the answer depends on it."""
    headers = dict(CorsPolicy(("https://a.example", "https://c.example")).response_headers(origin))
    assert headers.get(b"access-control-allow-origin") == (origin if is_allowed else None)
    assert headers[b"vary"] == b"Origin"


def test_a_preflight_allows_what_is_asked() -> None:
    """A preflight is answered with the headers that the page wants to send."""
    headers = dict(CorsPolicy().preflight_headers({b"access-control-request-headers": b"range,x-a"}))
    assert headers[b"access-control-allow-headers"] == b"range,x-a"
    assert b"GET" in headers[b"access-control-allow-methods"]


def test_a_code_is_valid_once() -> None:
    """A one-time code is spent when it is used; another code does not spend it."""
    code = OneTimeCode("c&1")
    assert not code.redeem(b"code=other&token=c%261")
    assert code.redeem(b"view=1&code=c%261")
    assert not code.redeem(b"code=c%261")


def test_a_code_ends() -> None:
    """A one-time code is valid for a minute; without a code nothing is one."""
    now = [0.0]
    code = OneTimeCode("c", clock=lambda: now[0])
    now[0] = CODE_SECONDS
    assert not code.redeem(b"code=c")
    assert not OneTimeCode().redeem(b"code=")
