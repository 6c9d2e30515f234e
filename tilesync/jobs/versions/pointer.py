"""The pointer of a destination: find, pin and move it, with `latest.json` and the symlink."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tilesync import events
from tilesync.core.manifest import format_timestamp
from tilesync.model import ROOT, Version
from tilesync.protocols import Clock, Destination, Observer, ReadOnlyPublication, StoredFiles
from tilesync.tiles.rebase import rebase

if TYPE_CHECKING:
    from tilesync.catalog.catalog import Catalog

UNANNOUNCED_KEY = "unannounced"
"""Catalog key for the version that the pointer moved to, until that was announced."""

PINNING_KEY = "pinning"
"""Catalog key that marks a change of the pin, until the pointer has moved."""

MAX_BUFFERED_BYTES = 1 << 23
"""Maximum bytes of a pointer kept in memory while it moves; a larger one is generated twice."""


class Pointer:
    """The pointer of one destination, and its pin.

    The pin is in `latest.json`, so that every machine sees it. The catalog records a change of the pin before
    the pointer moves, and clears it afterwards, so a killed run loses neither.
    """

    def __init__(self, destination: Destination, clock: Clock, observe: Observer) -> None:
        self._publication = destination.publication
        self._catalog = destination.catalog
        self._files = destination.files
        self._clock = clock
        self._observe = observe

    def find_current(self) -> Version | None:
        """Return the version that the pointer names, if the catalog knows it."""
        return find_current_version(self._publication, self._catalog)

    def find_pinned(self) -> Version | None:
        """Return the version that the pointer is pinned to; None while it follows the newest export."""
        return find_pinned_version(self._publication, self._catalog)

    def pin(self, version: Version) -> None:
        """Record that the pointer must stay at this version; `move` completes the change."""
        self._catalog.set_value("pinned", version.name)
        self._catalog.set_value(PINNING_KEY, "yes")

    def unpin(self) -> None:
        """Record that the pointer follows the newest export again; `move` completes the change."""
        self._catalog.set_value("pinned", "")
        self._catalog.set_value(PINNING_KEY, "yes")

    def sync_with_latest(self) -> None:
        """Update the catalog if another machine moved the pointer."""
        latest, known_name = self._publication.latest(), self._catalog.get_value("points")
        if latest is None or latest["version"] == known_name or not self._catalog.get_value("pointer"):
            return
        for version in self._catalog.versions(name=known_name):
            self._catalog.update_version(version.with_times(replaced_at=format_timestamp(self._clock.now())))
        self._catalog.set_value("points", str(latest["version"]))

    def list_protected(self) -> set[str]:
        """Return the versions that must not retire: the current one, the next current one, and the pinned one."""
        latest_name, pinned = (self._publication.latest() or {}).get("version"), self.find_pinned()
        names = latest_name, self._catalog.get_value("points"), pinned.name if pinned is not None else None
        return {str(name) for name in names if name}

    def is_current(self, version: Version) -> bool:
        """Return whether the pointer, `latest.json` and the symlink all name this version."""
        return is_current_version(version, self._publication, self._catalog)

    def invalidate(self) -> None:
        """Mark the pointer as not current, before files at the top change; `move` makes it current again."""
        self._catalog.set_value("pointer", "")

    def move(self, version: Version) -> None:
        """Move the pointer, `latest.json` and the symlink to a finished version."""
        prefix, previous, pinned = self._publication.prefix(version), self.find_current(), self.find_pinned()
        pointer, document = self._make_document(version, prefix)
        has_moved = not self._publication.points_at(version, pointer)
        if previous is not None and previous.serial != version.serial:
            self._catalog.update_version(previous.with_times(replaced_at=format_timestamp(self._clock.now())))
        self._catalog.set_value("points", version.name)
        if has_moved:
            self._catalog.set_value(UNANNOUNCED_KEY, version.name)
        self.invalidate()
        is_pinned = pinned is not None and pinned.serial == version.serial
        latest = _make_latest(version, prefix, owner=self._publication.owner(), pinned=is_pinned)
        self._publication.point_at(version, document, latest)
        self._catalog.set_value("pointer", pointer)
        self._catalog.set_value(PINNING_KEY, "")
        if has_moved:
            self._observe(events.VersionPublished(version.name, version.summary.files, version.summary.bytes))

    def _make_document(self, version: Version, prefix: str) -> tuple[str, Iterable[bytes]]:
        """Return the SHA-256 of the pointer to a version, and its bytes; a small one is generated only once."""
        digest, pieces, size = hashlib.sha256(), list[bytes](), 0
        for piece in make_pointer(version, self._files, prefix):
            digest.update(piece)
            size += len(piece)
            if size <= MAX_BUFFERED_BYTES:
                pieces.append(piece)
        return digest.hexdigest(), pieces if size <= MAX_BUFFERED_BYTES else make_pointer(version, self._files, prefix)


def find_current_version(publication: ReadOnlyPublication, catalog: Catalog) -> Version | None:
    """Return the version that the pointer names, if the catalog knows it; also if `latest.json` is lost."""
    latest = publication.latest() or {"version": catalog.get_value("points")}
    return next(iter(catalog.versions(name=str(latest.get("version")))), None)


def is_current_version(version: Version, publication: ReadOnlyPublication, catalog: Catalog) -> bool:
    """Return whether the pointer, `latest.json` and the symlink all name this version."""
    known_digest, latest_pin = catalog.get_value("pointer"), (publication.latest() or {}).get("pinned")
    pinned = find_pinned_version(publication, catalog)
    pin_matches = bool(latest_pin) == (pinned is not None and pinned.serial == version.serial)
    return (
        bool(known_digest)
        and pin_matches
        and publication.points_at(version, known_digest or "")
        and publication.is_complete(version)
    )


def find_pinned_version(publication: ReadOnlyPublication, catalog: Catalog) -> Version | None:
    """Return the version that the pointer is pinned to; None while it follows the newest export.

    A pin that a killed run recorded, without moving the pointer, counts too.
    """
    latest = None if catalog.get_value(PINNING_KEY) else publication.latest()
    latest_name = str(latest["version"]) if latest is not None and latest.get("pinned") else None
    name = catalog.get_value("pinned") if latest is None else latest_name
    return next(iter(catalog.versions(name=name)), None) if name else None


def make_pointer(version: Version, files: StoredFiles, prefix: str) -> Iterator[bytes]:
    """Yield the bytes of the pointer: the root tileset of a version, with URIs rebased to the top folder."""
    chunks = files.chunks(version, ROOT)
    return rebase(chunks, prefix, version.container_url) if prefix else chunks


def compute_pointer_digest(version: Version, files: StoredFiles, prefix: str) -> str:
    """Compute the SHA-256 of the pointer to a version, in hexadecimal."""
    digest = hashlib.sha256()
    for piece in make_pointer(version, files, prefix):
        digest.update(piece)
    return digest.hexdigest()


def _make_latest(version: Version, prefix: str, *, owner: str | None, pinned: bool) -> dict[str, Any]:
    return {
        "version": version.name,
        "export": version.export,
        "imodel": version.facts.imodel,
        "owner": owner or version.facts.imodel or version.container_url or None,
        "changeset": version.facts.changeset,
        "finished": version.summary.published_at,
        "tileset": f"{prefix}{ROOT}",
        "manifest": f"manifests/{version.name}.jsonl",
        **({"pinned": True} if pinned else {}),
    }
