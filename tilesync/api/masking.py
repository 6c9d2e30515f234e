"""The last net: in what a run tells is no secret that this process was given, and nothing that looks like one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tilesync.core.masking import mask_secrets, split_secret
from tilesync.events import Event

SECRET_VARIABLES = (
    "TILESYNC_TOKEN",
    "TILESYNC_SHARE_KEY",
    "ITP_SERVICE_CLIENT_SECRET",
    "AZURE_STORAGE_KEY",
    "AZURE_CLIENT_SECRET",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)
LINK_VARIABLES = ("TILESYNC_SOURCE", "TILESYNC_DEST", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_CONNECTION_STRING")
"""Variables that hold a secret, and those of which some fields are one."""

MASKED_FIELDS = ("message", "hint", "reason", "what")
"""Fields of events with sentences, which may quote others. Names of files are told as they are."""


class SecretMasker:
    """Masks what a run tells."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        secrets = [part for name in SECRET_VARIABLES for part in split_secret(environment.get(name, ""))]
        secrets += [part for name in LINK_VARIABLES for part in split_secret(environment.get(name, ""))[1:]]
        self._secrets = tuple(secrets)

    def mask_text(self, text: str) -> str:
        """The text without secrets."""
        return mask_secrets(text, self._secrets)

    def mask_event(self, event: Event) -> Event:
        """The event without secrets in its sentences."""
        told = {name: text for name in MASKED_FIELDS if (text := getattr(event, name, ""))}
        changed = {name: safe for name, text in told.items() if (safe := self.mask_text(text)) != text}
        return replace(event, **changed) if changed else event
