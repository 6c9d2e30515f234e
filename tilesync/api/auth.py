"""Identities for the Mesh Export API: a token, a file or command that gives one, a share key, an application."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from tilesync.app.service import ISSUER_URL, Identity
from tilesync.errors import UsageError
from tilesync.model import Secret
from tilesync.runtime.secret_files import read_secret
from tilesync.values import dataclass


@dataclass(frozen=True)
class Token:
    """An access token. It expires after about an hour; a longer run needs another kind of identity."""

    token: str | Secret


@dataclass(frozen=True)
class TokenFile:
    """A file that holds an access token. It is read again when the service refuses the token."""

    path: str | Path


@dataclass(frozen=True)
class TokenCommand:
    """A command that prints an access token. It runs again, without a shell, when the service refuses the token."""

    command: str


@dataclass(frozen=True)
class ShareKey:
    """A share key of an iTwin, with read permission only."""

    key: str | Secret


@dataclass(frozen=True)
class ClientCredentials:
    """An application with a secret (OAuth 2.0 client credentials, scope itwin-platform). A run renews its tokens.

    `issuer` is the base URL of the identity service. Source: RFC 6749, section 4.4.
    """

    client_id: str
    client_secret: str | Secret
    issuer: str = ISSUER_URL


@dataclass(frozen=True)
class Environment:
    """The identity from environment variables, as on the command line.

    Reads TILESYNC_TOKEN_FILE, TILESYNC_TOKEN_COMMAND, TILESYNC_TOKEN, TILESYNC_SHARE_KEY, ITP_SERVICE_CLIENT_ID with
    ITP_SERVICE_CLIENT_SECRET or ITP_SERVICE_CLIENT_SECRET_FILE, and ITP_ISSUER_URL; the first that is set is used.
    `token_file` and `token_command` override the variables of the same name. ITP_SERVICE_CLIENT_SECRET_FILE counts only
    where ITP_SERVICE_CLIENT_ID is set, so that a service manager may always set it.
    """

    token_file: str | Path | None = None
    token_command: str | None = None


Auth: TypeAlias = Token | TokenFile | TokenCommand | ShareKey | ClientCredentials | Environment
"""Every kind of identity."""


def create_identity(auth: Auth | None) -> Identity:
    """Resolve an identity; None means the environment. Raises UsageError for incomplete client credentials."""
    match auth:
        case None:
            return _from_environment(Environment(), os.environ)
        case Environment():
            return _from_environment(auth, os.environ)
        case Token():
            return Identity(token=_secret(auth.token))
        case TokenFile():
            return Identity(token_file=Path(auth.path))
        case TokenCommand():
            return Identity(token_command=auth.command)
        case ShareKey():
            return Identity(share_key=_secret(auth.key))
        case ClientCredentials():
            _check_credentials_complete(auth.client_id, auth.client_secret)
            return Identity(client_id=auth.client_id, client_secret=_secret(auth.client_secret), issuer=auth.issuer)
    raise UsageError(
        f"{type(auth).__name__} is not an identity",
        hint="use Token, TokenFile, TokenCommand, ShareKey, ClientCredentials or Environment of tilesync",
    )


def _from_environment(auth: Environment, variables: Mapping[str, str]) -> Identity:
    def secret(name: str) -> Secret | None:
        return Secret(variables[name]) if variables.get(name) else None

    client_id, client_secret = variables.get("ITP_SERVICE_CLIENT_ID"), variables.get("ITP_SERVICE_CLIENT_SECRET")
    if client_id:
        client_secret = read_secret("ITP_SERVICE_CLIENT_SECRET", variables)
    token_file = auth.token_file or variables.get("TILESYNC_TOKEN_FILE")
    identity = Identity(
        token=secret("TILESYNC_TOKEN"),
        token_file=Path(token_file) if token_file else None,
        token_command=auth.token_command or variables.get("TILESYNC_TOKEN_COMMAND") or None,
        share_key=secret("TILESYNC_SHARE_KEY"),
        client_id=client_id,
        client_secret=Secret(client_secret) if client_secret else None,
    )
    _check_credentials_complete(identity.client_id, identity.client_secret)
    return replace(identity, issuer=variables.get("ITP_ISSUER_URL") or ISSUER_URL)


def _check_credentials_complete(client_id: str | None, client_secret: str | Secret | None) -> None:
    if bool(client_id) != bool(client_secret):
        missing = "ITP_SERVICE_CLIENT_SECRET" if client_id else "ITP_SERVICE_CLIENT_ID"
        raise UsageError(
            f"half of the client credentials is missing: {missing}",
            hint="set both ITP_SERVICE_CLIENT_ID and ITP_SERVICE_CLIENT_SECRET (or ITP_SERVICE_CLIENT_SECRET_FILE), or"
            " neither",
        )


def _secret(text: str | Secret) -> Secret:
    return text if isinstance(text, Secret) else Secret(text)
