"""Publishing: a version that is whole and complete becomes the current one, in one step."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tilesync.errors import GuardTripped, Incomplete
from tilesync.events import Failed, Published, Remarked
from tilesync.jobs.complete import Unmet, settle, tell_remarks, unmet
from tilesync.jobs.run import Run
from tilesync.model import ROOT, Totals, Version
from tilesync.protocols import Destination, HeldFiles
from tilesync.rules.manifest import header, line, stamp
from tilesync.rules.tilesets import rebase
from tilesync.threads import in_thread

BATCH = 2000


class Publisher:
    """Judges versions of one destination, and publishes those that pass."""

    def __init__(self, destination: Destination, run: Run, *, allow_missing: bool, allow_shrink: bool) -> None:
        self._publication = destination.publication
        self._catalog = destination.catalog
        self._files = destination.files
        self._run = run
        self._allow_missing = allow_missing
        self._allow_shrink = allow_shrink

    async def publish(self, version: Version) -> None:
        """Publish a version of which everything is held. Raises Incomplete for one that is not whole or not complete
        by meaning, GuardTripped for one that is much smaller than the current.
        """
        totals = self._catalog.totals(version)
        if totals.held_files != totals.files:
            raise Incomplete(f"{totals.files - totals.held_files} files are missing; nothing was published")
        if self._files.size(version, ROOT) is None:
            raise Incomplete(
                f"the container has no {ROOT}: what it holds is no mesh export, or not a whole one",
                hint="nothing was published; is this the container of a 3D Tiles export?",
            )
        version = await in_thread(self._judge_completeness, version)
        self._guard_against_shrinking(version, totals)
        version = replace(
            version, published=stamp(self._run.clock.now()), damaged=False, files=totals.files, bytes=totals.bytes
        )
        await in_thread(self.point, version)

    def _judge_completeness(self, version: Version) -> Version:
        """The version with the counts of what it asks for. Missing files are an error, but for those that were missing
        when it was published before.
        """
        found = settle(version, self._catalog, self._files)
        self._run.tally.completeness = found
        tell_remarks(version, self._catalog, self._run.observe)
        known = version.published is not None and found.missing <= version.completeness.missing
        allowed = self._allow_missing or known
        for each in unmet(version, self._catalog):
            where, message = each.where, each.message
            event = Remarked(where, "missing", message) if allowed else Failed(where, "BlobMissing", message)
            self._run.observe(event)
        if found.missing and not allowed:
            count = f"{found.missing:,} {'file' if found.missing == 1 else 'files'}"
            raise Incomplete(
                f"{count} that the tilesets ask for {'is' if found.missing == 1 else 'are'} not in the container",
                hint="nothing was published; if the export was made so, run again with --allow-missing",
            )
        return replace(version, completeness=found)

    def _guard_against_shrinking(self, version: Version, totals: Totals) -> None:
        """Raise GuardTripped for an export with under half the files or bytes of the one that is published."""
        latest = self._publication.latest() or {}
        current = next(iter(self._catalog.versions(name=str(latest.get("version")))), None)
        if current is None or current.serial == version.serial or self._allow_shrink:
            return
        if current.globs != version.globs:
            return
        if totals.files * 2 < current.files or totals.bytes * 2 < current.bytes:
            raise GuardTripped(
                f"version {version.name} has {totals.files:,} files of {totals.bytes:,} bytes, under half of what is"
                f" published ({current.files:,} files of {current.bytes:,} bytes)",
                hint="nothing was published; look at the export, and run again with --allow-shrink if it is right",
            )

    def point(self, version: Version) -> None:
        """Publish: files durable, manifest, pointer, latest.json, symlink; then the catalog knows."""
        pointer = pointer_digest(version, self._files)
        moved = not self._publication.points_at(version, pointer)
        sha256 = self._publication.write_manifest(version, self._manifest(version))
        self._publication.point_at(version, pointer_to(version, self._files), _latest(version))
        version = replace(version, manifest_sha256=sha256)
        self._catalog.update(version)
        self._catalog.remember("pointer", pointer)
        self._files.tidy()
        if moved:
            self._run.observe(Published(version.name, version.files, version.bytes))

    def stands(self, version: Version) -> bool:
        """Whether everything that leads to the current version leads to this one."""
        known = self._catalog.recall("pointer")
        return known is not None and self._publication.points_at(version, known) and self._publication.complete(version)

    def missing(self, version: Version) -> list[str]:
        """The names that a published version asks for and that its container did not have."""
        return [each.name for each in self._unmet(version) if each.name is not None]

    def _unmet(self, version: Version) -> list[Unmet]:
        if not version.completeness.missing:
            return []
        self._catalog.references.settle(version)
        return list(unmet(version, self._catalog))

    def _manifest(self, version: Version) -> Iterator[Mapping[str, Any]]:
        lost = self._unmet(version)
        yield header(
            version,
            [each.name for each in lost if each.name is not None],
            [each.message for each in lost if each.name is None],
        )
        after = ""
        while batch := self._catalog.held(version, after, limit=BATCH):
            after = batch[-1][0]
            yield from (line(held) for _, held in batch)


def pointer_to(version: Version, files: HeldFiles) -> Iterator[bytes]:
    """The pointer: the real root document of a version with its URIs re-based, so that it can stand at the top."""
    return rebase(files.chunks(version, ROOT), f"versions/{version.name}/")


def pointer_digest(version: Version, files: HeldFiles) -> str:
    """SHA-256 of the pointer to a version, in hexadecimal."""
    digest = hashlib.sha256()
    for piece in pointer_to(version, files):
        digest.update(piece)
    return digest.hexdigest()


def _latest(version: Version) -> dict[str, Any]:
    return {
        "version": version.name,
        "export": version.export,
        "imodel": version.imodel,
        "changeset": version.changeset,
        "finished": version.published,
        "tileset": f"versions/{version.name}/{ROOT}",
        "manifest": f"manifests/{version.name}.jsonl",
    }
