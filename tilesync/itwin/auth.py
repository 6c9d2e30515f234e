"""Token providers: who asks, towards the Mesh Export API."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlencode

from tilesync.core.http_status import Verdict, demand
from tilesync.errors import NotAuthorised
from tilesync.itwin.jwt import decoded
from tilesync.itwin.responses import api_message, judge_api, parse_token
from tilesync.model import Secret
from tilesync.protocols import Clock
from tilesync.runtime.safe_open import read_named
from tilesync.runtime.subprocess import printed
from tilesync.runtime.threads import STOP, in_thread
from tilesync.transport.api_client import LARGEST_TOKEN, Ask, Conversation, Reply
from tilesync.transport.retry_after import asked_wait

EARLY = 60.0
"""Seconds before its end at which a token is renewed."""

SCOPE = "itwin-platform"


Fetch = Callable[[], Awaitable[tuple[Secret, float | None]]]
"""Gets a token and, where it is known, its lifetime in seconds."""


class Token:
    """A bearer token that is read again when the service refuses it. Many callers cause one fetch. `remedy`: what
    helps where it stays refused.
    """

    def __init__(self, fetch: Fetch, clock: Clock, *, remedy: str = "get a fresh token") -> None:
        self._fetch = fetch
        self.remedy = remedy
        self._clock = clock
        self._lock = asyncio.Lock()
        self._header = ""
        self._until: float | None = None
        self.life: float | None = None
        """Seconds that the last token was to live when it came, where that was said."""

    async def header(self) -> str:
        """The value of `Authorization`, with a token that lives for another minute at least."""
        async with self._lock:
            if not self._header or (self._until is not None and self._clock.monotonic() >= self._until):
                await self._renew()
            return self._header

    async def refused(self, header: str) -> bool:
        """Fetch again, unless that has happened since; true when the token is another one now."""
        async with self._lock:
            if self._header == header:
                await self._renew()
            return self._header != header

    async def _renew(self) -> None:
        token, life = await self._fetch()
        self._header, self.life = f"Bearer {token.text}", life
        self._until = None if life is None else self._clock.monotonic() + (life - EARLY if life > EARLY else life / 2)


class ShareKey:
    """An iTwin share key: `Authorization: Basic`, and nothing to renew."""

    life = None
    remedy = "the share key has ended, or is none of this service: make another one for the iTwin"

    def __init__(self, key: Secret) -> None:
        self._key = key

    async def header(self) -> str:
        """The value of `Authorization`."""
        return f"Basic {self._key.text}"

    async def refused(self, header: str) -> bool:
        """A refused key stays refused."""
        return False


def token_from(text: str, where: str) -> Secret:
    """The token in `text`, with or without `Bearer`. Raises NotAuthorised when there is none."""
    words = text.removeprefix("\ufeff").split()
    token = words[-1] if words else ""
    if words[:-1] not in ([], ["Bearer"]) or token in {"", "Bearer"} or not (token.isascii() and token.isprintable()):
        raise NotAuthorised(f"{where} holds no token", hint="it must hold one access token and nothing else")
    return Secret(token)


async def from_environment(token: Secret) -> tuple[Secret, None]:
    """The token that the environment held when the run began."""
    return token_from(token.text, "TILESYNC_TOKEN"), None


async def from_file(path: Path) -> tuple[Secret, None]:
    """The token that a file holds now."""
    try:
        text = decoded(await in_thread(_content_of, path))
    except (OSError, ValueError) as error:
        raise NotAuthorised(f"the token file {path} cannot be read ({error})", hint="check --token-file") from error
    return token_from(text, f"the token file {path}"), None


def _content_of(path: Path) -> bytes:
    return read_named(path, stop=STOP.get())


async def from_command(command: str) -> tuple[Secret, None]:
    """The token that a command prints."""
    return token_from(await output_of(command, "--token-command"), "the output of --token-command"), None


async def output_of(command: str, option: str) -> str:
    """What a command prints on stdout; no shell is involved. Raises UsageError, and NotAuthorised when it fails."""
    return await in_thread(printed, command, option)


class ClientCredentials:
    """OAuth 2.0 client credentials (RFC 6749, section 4.4) at `{issuer}/connect/token`, id and secret in the form."""

    def __init__(self, talk: Conversation, issuer: str, client_id: str, secret: Secret) -> None:
        self._talk = talk
        self._url = f"{issuer.rstrip('/')}/connect/token"
        self._client_id = client_id
        self._secret = secret

    async def fetch(self) -> tuple[Secret, float]:
        """A new token and its lifetime in seconds."""
        return await self._talk.ask("the token endpoint", self._make, self._accept)

    async def _make(self) -> Ask:
        form = {
            "grant_type": "client_credentials",
            "client_id": self._client_id,
            "client_secret": self._secret.text,
            "scope": SCOPE,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        return Ask(self._url, headers, urlencode(form).encode())

    async def _accept(self, reply: Reply) -> tuple[Secret, float]:
        body = await reply.read(LARGEST_TOKEN)
        verdict = judge_api(reply.status)
        if verdict in {Verdict.DENIED, Verdict.FORBIDDEN, Verdict.INVALID}:
            said = api_message(body, [self._secret.text])
            raise NotAuthorised(
                f"the token endpoint refuses the client credentials ({reply.status} {said})",
                hint="check ITP_SERVICE_CLIENT_ID, ITP_SERVICE_CLIENT_SECRET and ITP_ISSUER_URL",
            )
        wait = asked_wait(reply.header)
        demand(verdict, reply.status, wait, "the token endpoint", "is ITP_ISSUER_URL the address of the issuer?")
        token, life = parse_token(body)
        return token_from(token, "the token endpoint's answer"), life
