"""Access tokens and share keys that authenticate requests to the Mesh Export API."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlencode

from tilesync.core.http_status import Verdict, format_status, raise_for_status
from tilesync.errors import NotAuthorised
from tilesync.itwin.jwt import decode_secret_text
from tilesync.itwin.responses import api_message, classify_api_status, parse_token
from tilesync.model import Secret
from tilesync.protocols import Clock
from tilesync.runtime.safe_open import read_small_file
from tilesync.runtime.subprocess import run_secret_command
from tilesync.runtime.threads import STOP_EVENT, run_in_thread
from tilesync.transport.api_client import MAX_TOKEN_RESPONSE_BYTES, ApiClient, ApiRequest, ApiResponse
from tilesync.transport.retry import retry_after_seconds

RENEW_EARLY_S = 60.0
"""A token is renewed this many seconds before it expires."""

OAUTH_SCOPE = "itwin-platform"


TokenFetcher = Callable[[], Awaitable[tuple[Secret, float | None]]]
"""Gets a token and its lifetime in seconds, None if that is not known."""


class BearerTokenProvider:
    """Bearer token that is fetched again before it expires, and when the service refuses it.

    Concurrent callers cause one fetch. `remedy`: the hint if the token stays refused.
    """

    def __init__(self, fetch: TokenFetcher, clock: Clock, *, remedy: str = "get a fresh token") -> None:
        self._fetch = fetch
        self.remedy = remedy
        self._clock = clock
        self._lock = asyncio.Lock()
        self._header = ""
        self._renew_at: float | None = None
        self.lifetime_s: float | None = None
        """Lifetime of the last token in seconds when it was fetched; None if it was not stated."""

    async def header(self) -> str:
        """Return the value of `Authorization`, with a token that is valid for at least another minute."""
        async with self._lock:
            if not self._header or (self._renew_at is not None and self._clock.monotonic() >= self._renew_at):
                await self._renew()
            return self._header

    async def renew_refused(self, header: str) -> bool:
        """Fetch a new token, unless that has happened since. Return whether the token has changed."""
        async with self._lock:
            if self._header == header:
                await self._renew()
            return self._header != header

    async def _renew(self) -> None:
        token, lifetime_s = await self._fetch()
        self._header, self.lifetime_s = f"Bearer {token.text}", lifetime_s
        self._renew_at = (
            None
            if lifetime_s is None
            else self._clock.monotonic()
            + (lifetime_s - RENEW_EARLY_S if lifetime_s > RENEW_EARLY_S else lifetime_s / 2)
        )


class ShareKeyProvider:
    """An iTwin share key, sent as `Authorization: Basic`; it cannot be renewed."""

    lifetime_s = None
    remedy = "the share key has expired, or belongs to another service: create a new one for the iTwin"

    def __init__(self, key: Secret) -> None:
        self._key = key

    async def header(self) -> str:
        """Return the value of `Authorization`."""
        return f"Basic {self._key.text}"

    async def renew_refused(self, header: str) -> bool:
        """Return False: a refused key stays refused."""
        return False


def extract_token(text: str, token_source: str) -> Secret:
    """Extract the token from `text`, with or without `Bearer`. Raises NotAuthorised when there is none."""
    words = text.removeprefix("\ufeff").split()
    token = words[-1] if words else ""
    if words[:-1] not in ([], ["Bearer"]) or token in {"", "Bearer"} or not (token.isascii() and token.isprintable()):
        raise NotAuthorised(
            f"{token_source} contains no token", hint="it must contain one access token and nothing else"
        )
    return Secret(token)


async def read_environment_token(token: Secret) -> tuple[Secret, None]:
    """Return the token of TILESYNC_TOKEN, as it was when the run started."""
    return extract_token(token.text, "TILESYNC_TOKEN"), None


EMPTY_FILE_READS = 5
EMPTY_FILE_PAUSE_S = 0.2
"""Reads of a token file that is empty, and the seconds between them: a program may be just writing it anew."""


async def read_token_file(
    path: Path, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> tuple[Secret, None]:
    """Read the token from a file. An empty file is read again after a moment; a pipe is not, since it is used up."""
    try:
        text = decode_secret_text(await run_in_thread(_read_file, path))
        reads = 1
        while not text.strip() and reads < EMPTY_FILE_READS and await run_in_thread(path.is_file):
            await sleep(EMPTY_FILE_PAUSE_S)
            text, reads = decode_secret_text(await run_in_thread(_read_file, path)), reads + 1
    except (OSError, ValueError) as error:
        raise NotAuthorised(f"the token file {path} cannot be read ({error})", hint="check --token-file") from error
    return extract_token(text, f"the token file {path}"), None


def _read_file(path: Path) -> bytes:
    return read_small_file(path, stop=STOP_EVENT.get())


async def run_token_command(command: str) -> tuple[Secret, None]:
    """Run a command, and return the token that it prints."""
    return extract_token(await run_command(command, "--token-command"), "the output of --token-command"), None


async def run_command(command: str, option: str) -> str:
    """Run a command without a shell, and return its stdout. Raises UsageError, and NotAuthorised when it fails."""
    return await run_in_thread(run_secret_command, command, option)


class ClientCredentialsGrant:
    """OAuth 2.0 client credentials (RFC 6749, section 4.4) at `{issuer}/connect/token`, id and secret in the form."""

    def __init__(self, api_client: ApiClient, issuer: str, client_id: str, secret: Secret) -> None:
        self._api_client = api_client
        self._url = f"{issuer.rstrip('/')}/connect/token"
        self._client_id = client_id
        self._secret = secret

    async def fetch(self) -> tuple[Secret, float]:
        """Request a new token. Return it with its lifetime in seconds."""
        return await self._api_client.request("the token endpoint", self._build_request, self._read_response)

    async def _build_request(self) -> ApiRequest:
        form = {
            "grant_type": "client_credentials",
            "client_id": self._client_id,
            "client_secret": self._secret.text,
            "scope": OAUTH_SCOPE,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        return ApiRequest(self._url, headers, urlencode(form).encode())

    async def _read_response(self, response: ApiResponse) -> tuple[Secret, float]:
        body = await response.read(MAX_TOKEN_RESPONSE_BYTES)
        verdict = classify_api_status(response.status)
        if verdict in {Verdict.DENIED, Verdict.FORBIDDEN, Verdict.INVALID}:
            message = api_message(body, [self._secret.text])
            raise NotAuthorised(
                f"the token endpoint refuses the client credentials {format_status(response.status, message)}",
                hint="check the client id, the secret and the issuer: ITP_SERVICE_CLIENT_ID, ITP_SERVICE_CLIENT_SECRET"
                " and ITP_ISSUER_URL, or client-id, client-secret and issuer-url of the fleet file",
            )
        wait = retry_after_seconds(response.header)
        raise_for_status(
            verdict,
            response.status,
            wait,
            "the token endpoint",
            "is ITP_ISSUER_URL (issuer-url of a fleet file) the address of the issuer?",
        )
        token, lifetime_s = parse_token(body)
        return extract_token(token, "the response of the token endpoint"), lifetime_s
