"""Mask secrets in all output: the values of secret variables, and text that looks like a secret.

This is the last defence: messages of tilesync contain no secrets, but an error of a library may quote one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tilesync.core.masking import mask_secrets, split_secret
from tilesync.errors import UsageError
from tilesync.events import Event
from tilesync.runtime.secret_files import SECRETS_WITH_FILE, read_secret

SECRET_VARIABLES = (
    "TILESYNC_TOKEN",
    "TILESYNC_SHARE_KEY",
    "ITP_SERVICE_CLIENT_SECRET",
    "AZURE_STORAGE_KEY",
    "AZURE_CLIENT_SECRET",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)
SECRET_OPTION_VARIABLES = ("TILESYNC_PING", "TILESYNC_SERVE_TOKEN")
"""Variables of options whose whole value is a secret: who knows the URL of a ping can send it."""

LINK_VARIABLES = ("TILESYNC_SOURCE", "TILESYNC_DEST", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_CONNECTION_STRING")
"""Environment variables with a secret as one field of their value; in SECRET_VARIABLES the whole value is secret."""

MASKED_FIELDS = ("message", "hint", "reason", "what")
"""Event fields with sentences, which may quote a server or a library. File names are never masked."""


class SecretMasker:
    """Masks the secrets of this process in texts and events."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        secrets = [
            part
            for name in (*SECRET_VARIABLES, *SECRET_OPTION_VARIABLES)
            for part in split_secret(environment.get(name, ""))
        ]
        secrets += [part for name in SECRETS_WITH_FILE for part in split_secret(_read_secret_file(name, environment))]
        secrets += [part for name in LINK_VARIABLES for part in split_secret(environment.get(name, ""))[1:]]
        self._secrets = tuple(secrets)

    def mask_text(self, text: str) -> str:
        """Return the text without secrets."""
        return mask_secrets(text, self._secrets)

    def mask_event(self, event: Event) -> Event:
        """Return the event without secrets in its sentences."""
        sentences = {name: text for name in MASKED_FIELDS if (text := getattr(event, name, ""))}
        changed = {name: safe for name, text in sentences.items() if (safe := self.mask_text(text)) != text}
        return replace(event, **changed) if changed else event


def _read_secret_file(name: str, environment: Mapping[str, str]) -> str:
    """Return the secret in the file of NAME_FILE; "" if it cannot be read: then nobody can quote it."""
    try:
        return read_secret(name, {f"{name}_FILE": environment.get(f"{name}_FILE", "")})
    except UsageError:
        return ""
