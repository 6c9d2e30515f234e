"""Settings of a fleet, as its file states them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from datetime import time, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tilesync.values import dataclass

DEFAULT_CALLS_PER_MINUTE = 400
"""API calls per minute of all mirrors together. Source: rate limits of the iTwin platform, 500 at the lowest tier."""

DEFAULT_CONNECTIONS = 256
"""Concurrent transfers of all mirrors together."""


@dataclass(frozen=True, slots=True)
class SecretReference:
    """Reference to a secret: the variable, the file, or the command that has it. One of them is set."""

    env: str = ""
    file: Path | None = None
    command: str = ""

    def __str__(self) -> str:
        if self.env:
            return f"the variable {self.env}"
        return f"the file {self.file}" if self.file is not None else "a command"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Identity of a mirror by references; without any, that of the environment."""

    token: SecretReference | None = None
    share_key: SecretReference | None = None
    client_id: str = ""
    client_secret: SecretReference | None = None
    issuer_url: str = ""


@dataclass(frozen=True, slots=True)
class MirrorEntry:
    """One `[[mirror]]` of a fleet file.

    One of `imodel`, `itwin` and `source` is set: an iModel, every iModel of an iTwin, or a container link or mirror.
    `include`, `exclude`: globs for the display names or ids of the iModels of `itwin`. `dests`: templates of the
    destinations; the first is filled from the source, the others from the first. `options`: options of `mirror` by
    their long names, parsed. `line`: where the entry begins in the file.
    """

    name: str
    dests: tuple[str | SecretReference, ...]
    imodel: str | None = None
    itwin: str | None = None
    source: str | SecretReference | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    credentials: Credentials = Credentials()
    max_age: timedelta | None = None
    line: int | None = None

    def selects(self, name: str, imodel: str) -> bool:
        """Return whether the globs select an iModel of the iTwin, by its display name or its id."""
        return _matches(self.include or ("*",), name, imodel) and not _matches(self.exclude, name, imodel)


def _matches(globs: tuple[str, ...], *names: str) -> bool:
    return any(name == glob or fnmatchcase(name, glob) for glob in globs for name in names)


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """The `[fleet]` table, and the mirrors.

    `jobs`: mirrors that run at the same time, None for a suitable number. `bwlimit`: bytes per second of all mirrors
    together. `until`: local time at which the run stops. `path`: the file; relative paths in it start at its folder.
    """

    path: Path
    mirrors: tuple[MirrorEntry, ...]
    jobs: int | None = None
    calls_per_minute: int = DEFAULT_CALLS_PER_MINUTE
    connections: int = DEFAULT_CONNECTIONS
    bwlimit: float | None = None
    until: time | None = None
    max_duration: timedelta | None = None
    state_dir: Path | None = None
    report: Path | None = None
    metrics_file: Path | None = None
    ping: str | SecretReference | None = None
    on_failure: str | None = None
    on_success: str | None = None
