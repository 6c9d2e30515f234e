"""Access to a server: the token that it may ask for, and the origins whose pages may read its answers."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Final
from urllib.parse import parse_qsl, urlencode

EXPOSED_HEADERS: Final = b"ETag, Content-Length, Content-Range, Content-Encoding, Accept-Ranges, Last-Modified"

_ANY_ORIGIN: Final = "*"
_PREFLIGHT_SECONDS: Final = b"86400"

CODE_SECONDS: Final = 60.0
"""Seconds for which a one-time code is valid."""

HeaderList = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class TokenGuard:
    """Check of the token that each request must bring: in a header, in the query or in a cookie.

    An empty token lets everybody in. `repr` does not show it.
    """

    token: str = field(default="", repr=False)

    @property
    def cookie_name(self) -> str:
        """Name of the cookie. It differs by token: cookies of one host are shared by the servers on all its ports."""
        return f"tilesync-{hashlib.sha256(self.token.encode()).hexdigest()[:8]}"

    def admits(self, headers: Mapping[bytes, bytes], query: bytes) -> bool:
        """Return whether a request has the token."""
        if not self.token:
            return True
        scheme, _, credentials = headers.get(b"authorization", b"").partition(b" ")
        offered = [credentials.strip()] if scheme.lower() == b"bearer" else []
        offered += [value.encode() for value in self._read_cookies(headers.get(b"cookie", b""))]
        return any(self._matches(each) for each in offered) or self.is_in_query(query)

    def is_in_query(self, query: bytes) -> bool:
        """Return whether the query has the token."""
        if not self.token or b"token=" not in query:
            return False
        pairs = parse_qsl(query.decode("latin-1"))
        return any(name == "token" and self._matches(value.encode()) for name, value in pairs)

    def make_cookie(self) -> str:
        """Return the value of Set-Cookie for a browser that brought the token in the query.

        Lax, not Strict: else a browser that follows a link in a chat would not send it after the redirect. It lets
        other sites do nothing, since the server only answers GET.
        """
        return f"{self.cookie_name}={self._cookie_value()}; Path=/; HttpOnly; SameSite=Lax"

    def _cookie_value(self) -> str:
        """Return the token in characters that a cookie may have."""
        return self.token.encode().hex()

    def _read_cookies(self, header: bytes) -> list[str]:
        """Return the tokens in the cookies of a request."""
        found = []
        for pair in header.decode("latin-1").split(";"):
            name, _, value = pair.strip().partition("=")
            if name == self.cookie_name and hmac.compare_digest(value.encode(), self._cookie_value().encode()):
                found.append(self.token)
        return found

    def _matches(self, offered: bytes) -> bool:
        return hmac.compare_digest(offered, self.token.encode())


class OneTimeCode:
    """Code that lets one browser in: once, and within a minute. The arguments of a browser can be seen by other users.

    An empty code lets nobody in.
    """

    def __init__(self, code: str = "", *, clock: Callable[[], float] = monotonic) -> None:
        self._code = code.encode()
        self._clock = clock
        self._ends_at = clock() + CODE_SECONDS

    def redeem(self, query: bytes) -> bool:
        """Return whether the query has the code, which is spent by that."""
        if not self._code or b"code=" not in query or self._clock() >= self._ends_at:
            return False
        pairs = parse_qsl(query.decode("latin-1"))
        is_valid = any(name == "code" and hmac.compare_digest(value.encode(), self._code) for name, value in pairs)
        if is_valid:
            self._code = b""
        return is_valid


def remove_secrets(query: bytes) -> str:
    """Return a query without the token and the one-time code."""
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return urlencode([pair for pair in pairs if pair[0] not in {"token", "code"}])


@dataclass(frozen=True)
class CorsPolicy:
    """Origins whose pages may read the answers; `*` for all. Source: WHATWG Fetch, "HTTP extensions"."""

    origins: tuple[str, ...] = (_ANY_ORIGIN,)

    @property
    def is_open(self) -> bool:
        """True if the pages of all origins may read the answers."""
        return _ANY_ORIGIN in self.origins

    def response_headers(self, origin: bytes | None) -> HeaderList:
        """Return the headers of an answer to a page of this origin; None for a request without one."""
        if self.is_open:
            return [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", EXPOSED_HEADERS)]
        if origin is None or origin.decode("latin-1") not in self.origins:
            return [(b"vary", b"Origin")]
        return [
            (b"vary", b"Origin"),
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", EXPOSED_HEADERS),
        ]

    def preflight_headers(self, headers: Mapping[bytes, bytes]) -> HeaderList:
        """Return the further headers of the answer to a preflight request, which asks what a page may send."""
        wanted = headers.get(b"access-control-request-headers", b"*")
        return [
            (b"access-control-allow-methods", b"GET, HEAD, OPTIONS"),
            (b"access-control-allow-headers", wanted),
            (b"access-control-max-age", _PREFLIGHT_SECONDS),
            (b"allow", b"GET, HEAD, OPTIONS"),
        ]
