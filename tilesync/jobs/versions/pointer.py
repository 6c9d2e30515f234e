"""The pointer: which version it names, what pins it there, and how it moves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from tilesync import events
from tilesync.core.manifest import format_timestamp
from tilesync.model import ROOT, Version
from tilesync.protocols import Catalog, Clock, Destination, Observer, ReadOnlyPublication, StoredFiles
from tilesync.tiles.json_documents import rebase

UNANNOUNCED_KEY = "unannounced"
"""Where the catalog keeps to which version the pointer moved, until that was told."""

PINNING_KEY = "pinning"
"""Where the catalog keeps that the pin is being changed, until the pointer has moved."""

MAX_BUFFERED_BYTES = 1 << 23
"""Bytes of a pointer that are kept in memory while it moves; a larger one is made again."""


class Pointer:
    """The pointer of one destination. What pins it stands in `latest.json`, for every machine; a wish to change that is
    recorded before the pointer moves, and holds until it has: a kill in between undoes neither.
    """

    def __init__(self, destination: Destination, clock: Clock, observe: Observer) -> None:
        self._publication = destination.publication
        self._catalog = destination.catalog
        self._files = destination.files
        self._clock = clock
        self._observe = observe

    def find_current(self) -> Version | None:
        """The version that the pointer names, as far as it is known here."""
        return find_current_version(self._publication, self._catalog)

    def find_pinned(self) -> Version | None:
        """The version that the pointer is pinned to; None while it follows the newest export."""
        return find_pinned_version(self._publication, self._catalog)

    def pin(self, version: Version) -> None:
        """The pointer is to stay at this version."""
        self._catalog.set_value("pinned", version.name)
        self._catalog.set_value(PINNING_KEY, "yes")

    def unpin(self) -> None:
        """The pointer may move again."""
        self._catalog.set_value("pinned", "")
        self._catalog.set_value(PINNING_KEY, "yes")

    def sync_with_latest(self) -> None:
        """Take in where another machine had the pointer lead meanwhile."""
        latest, mine = self._publication.latest(), self._catalog.get_value("points")
        if latest is None or latest["version"] == mine or not self._catalog.get_value("pointer"):
            return
        for version in self._catalog.versions(name=mine):
            self._catalog.update_version(replace(version, replaced_at=format_timestamp(self._clock.now())))
        self._catalog.set_value("points", str(latest["version"]))

    def list_protected(self) -> set[str]:
        """The versions that never retire: what anything at the top leads or is to lead to, and what is pinned."""
        said, pin = (self._publication.latest() or {}).get("version"), self.find_pinned()
        names = said, self._catalog.get_value("points"), pin.name if pin is not None else None
        return {str(name) for name in names if name}

    def is_current(self, version: Version) -> bool:
        """Whether everything that leads to the current version leads to this one."""
        return is_current_version(version, self._publication, self._catalog)

    def invalidate(self) -> None:
        """What led to the current version is about to change: until the pointer has moved nothing stands."""
        self._catalog.set_value("pointer", "")

    def move(self, version: Version) -> None:
        """Let the pointer, latest.json and the symlink name a version that is finished."""
        prefix, before, pin = self._publication.prefix(version), self.find_current(), self.find_pinned()
        pointer, document = self._make_document(version, prefix)
        moved = not self._publication.points_at(version, pointer)
        if before is not None and before.serial != version.serial:
            self._catalog.update_version(replace(before, replaced_at=format_timestamp(self._clock.now())))
        self._catalog.set_value("points", version.name)
        if moved:
            self._catalog.set_value(UNANNOUNCED_KEY, version.name)
        self.invalidate()
        is_pinned = pin is not None and pin.serial == version.serial
        latest = _make_latest(version, prefix, owner=self._publication.owner(), pinned=is_pinned)
        self._publication.point_at(version, document, latest)
        self._catalog.set_value("pointer", pointer)
        self._catalog.set_value(PINNING_KEY, "")
        if moved:
            self._observe(events.VersionPublished(version.name, version.files, version.bytes))

    def _make_document(self, version: Version, prefix: str) -> tuple[str, Iterable[bytes]]:
        """SHA-256 of the pointer to a version, and its bytes: made once, where they are few."""
        digest, pieces, size = hashlib.sha256(), list[bytes](), 0
        for piece in make_pointer(version, self._files, prefix):
            digest.update(piece)
            size += len(piece)
            if size <= MAX_BUFFERED_BYTES:
                pieces.append(piece)
        return digest.hexdigest(), pieces if size <= MAX_BUFFERED_BYTES else make_pointer(version, self._files, prefix)


def find_current_version(publication: ReadOnlyPublication, catalog: Catalog) -> Version | None:
    """The version that the pointer names, as far as it is known here: `latest.json` may be lost."""
    latest = publication.latest() or {"version": catalog.get_value("points")}
    return next(iter(catalog.versions(name=str(latest.get("version")))), None)


def is_current_version(version: Version, publication: ReadOnlyPublication, catalog: Catalog) -> bool:
    """Whether everything that leads to the current version leads to this one."""
    known, said = catalog.get_value("pointer"), (publication.latest() or {}).get("pinned")
    pin = find_pinned_version(publication, catalog)
    pinned_so = bool(said) == (pin is not None and pin.serial == version.serial)
    return (
        bool(known) and pinned_so and publication.points_at(version, known or "") and publication.is_complete(version)
    )


def find_pinned_version(publication: ReadOnlyPublication, catalog: Catalog) -> Version | None:
    """The version that the pointer is pinned to, or is to be by a run that did not come so far; None while it follows
    the newest export.
    """
    latest = None if catalog.get_value(PINNING_KEY) else publication.latest()
    said = str(latest["version"]) if latest is not None and latest.get("pinned") else None
    name = catalog.get_value("pinned") if latest is None else said
    return next(iter(catalog.versions(name=name)), None) if name else None


def make_pointer(version: Version, files: StoredFiles, prefix: str) -> Iterator[bytes]:
    """The pointer: the real root document of a version with its URIs re-based, so that it can stand at the top."""
    chunks = files.chunks(version, ROOT)
    return rebase(chunks, prefix, version.container_url) if prefix else chunks


def compute_pointer_digest(version: Version, files: StoredFiles, prefix: str) -> str:
    """SHA-256 of the pointer to a version, in hexadecimal."""
    digest = hashlib.sha256()
    for piece in make_pointer(version, files, prefix):
        digest.update(piece)
    return digest.hexdigest()


def _make_latest(version: Version, prefix: str, *, owner: str | None, pinned: bool) -> dict[str, Any]:
    return {
        "version": version.name,
        "export": version.export,
        "imodel": version.imodel,
        "owner": owner or version.imodel or version.container_url or None,
        "changeset": version.changeset,
        "finished": version.published_at,
        "tileset": f"{prefix}{ROOT}",
        "manifest": f"manifests/{version.name}.jsonl",
        **({"pinned": True} if pinned else {}),
    }
