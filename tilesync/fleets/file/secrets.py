"""Secrets of a fleet file: read them from the variables, files and commands that the file refers to."""

from __future__ import annotations

import os

from tilesync.api.auth import Auth, ClientCredentials, ShareKey, Token, TokenCommand, TokenFile
from tilesync.errors import UsageError
from tilesync.fleets.file.settings import Credentials, SecretReference
from tilesync.itwin.jwt import decode_secret_text
from tilesync.model import Secret
from tilesync.runtime.safe_open import read_small_file
from tilesync.runtime.subprocess import run_secret_command
from tilesync.runtime.threads import STOP_EVENT, run_in_thread


async def read_secret(reference: SecretReference, key: str) -> Secret:
    """Read a secret as `read_secret_blocking` does, in a thread."""
    return await run_in_thread(read_secret_blocking, reference, key)


def read_secret_blocking(reference: SecretReference, key: str) -> Secret:
    """Read a secret; `key`: its key in the file, for messages. Raises UsageError, and NotAuthorised for a command."""
    if reference.command:
        text = run_secret_command(reference.command, key)
    elif reference.file is not None:
        try:
            text = decode_secret_text(read_small_file(reference.file, stop=STOP_EVENT.get()))
        except (OSError, ValueError) as error:
            raise UsageError(f"{reference} of {key} cannot be read ({error})") from error
    else:
        text = os.environ.get(reference.env, "")
    if not text.strip():
        raise UsageError(f"{reference} of {key} is empty or not set")
    return Secret(text.strip())


async def create_auth(credentials: Credentials) -> Auth | None:
    """Create the identity of a mirror; None for that of the environment. Raises UsageError, NotAuthorised."""
    token = credentials.token
    if token is not None:
        if token.file is not None:
            return TokenFile(token.file)
        if token.command:
            return TokenCommand(token.command)
        return Token(await read_secret(token, "token"))
    if credentials.share_key is not None:
        return ShareKey(await read_secret(credentials.share_key, "share-key"))
    if credentials.client_secret is not None:
        secret = await read_secret(credentials.client_secret, "client-secret")
        if credentials.issuer_url:
            return ClientCredentials(credentials.client_id, secret, credentials.issuer_url)
        return ClientCredentials(credentials.client_id, secret)
    return None
