"""The last net: in what a run tells is no secret that this process was given, and nothing that looks like one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tilesync.core.masking import masked, parts_of
from tilesync.events import Event

SECRETS = (
    "TILESYNC_TOKEN",
    "TILESYNC_SHARE_KEY",
    "ITP_SERVICE_CLIENT_SECRET",
    "AZURE_STORAGE_KEY",
    "AZURE_CLIENT_SECRET",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)
LINKS = ("TILESYNC_SOURCE", "TILESYNC_DEST", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_CONNECTION_STRING")
"""Variables that hold a secret, and those of which some fields are one."""

TOLD = ("message", "hint", "reason", "what")
"""Fields of events with sentences, which may quote others. Names of files are told as they are."""


class Masking:
    """Masks what a run tells."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        secrets = [part for name in SECRETS for part in parts_of(environment.get(name, ""))]
        secrets += [part for name in LINKS for part in parts_of(environment.get(name, ""))[1:]]
        self._secrets = tuple(secrets)

    def text(self, text: str) -> str:
        """The text without secrets."""
        return masked(text, self._secrets)

    def event(self, event: Event) -> Event:
        """The event without secrets in its sentences."""
        told = {name: text for name in TOLD if (text := getattr(event, name, ""))}
        changed = {name: safe for name, text in told.items() if (safe := self.text(text)) != text}
        return replace(event, **changed) if changed else event
