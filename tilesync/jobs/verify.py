"""The audit: what a destination holds against its manifest, offline."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from tilesync.errors import BlobDamaged, DestinationError, VerifyFailed
from tilesync.events import Finding, Warned
from tilesync.jobs.mirror import pointer_to
from tilesync.jobs.tally import Tally
from tilesync.model import POINTER, ROOT, Held, Version
from tilesync.protocols import Catalog, HeldFiles, Observer, Published
from tilesync.rules.manifest import read_header, read_line
from tilesync.threads import in_thread

UNMARKED = "the state is not here or cannot be written, so `tilesync mirror` will not know: verify with its --state-dir"
AT_ONCE = 4
BATCH = 64


class Verify:
    """One audit of the current version. `quick` compares names and sizes only.

    Every finding is told as an event. What is found bad is marked in the catalog, so that the next run of the main job
    fetches it again; without a catalog that can be written the audit says so and counts all the same.
    """

    def __init__(
        self, files: HeldFiles, publication: Published, *, catalog: Catalog | None, observe: Observer, tally: Tally
    ) -> None:
        self._files = files
        self._publication = publication
        self._catalog = catalog
        self._observe = observe
        self._tally = tally
        self.version: Version | None = None

    async def run(self, *, quick: bool) -> None:
        """Audit. Raises VerifyFailed when there is any finding, DestinationError when nothing is held."""
        latest = self._publication.latest()
        if latest is None:
            raise DestinationError(
                "no version is published here (there is no latest.json)",
                hint="give the folder that `tilesync mirror` published to, or run it again",
            )
        lines = self._publication.manifest(str(latest["version"]))
        bad: list[str] = []
        try:
            self.version = version = read_header(next(lines))
            bad = await self._files_of(version, lines, quick=quick)
        except (DestinationError, StopIteration, KeyError, TypeError, ValueError) as error:
            raise VerifyFailed(f"the manifest of version {latest['version']} cannot be read: {error}") from error
        findings = self._tally.failed
        if not bad and not self._pointer_stands(version):
            findings += 1
        if findings:
            marked = await in_thread(self._mark, version, bad)
            raise VerifyFailed(
                f"{findings} {'problem' if findings == 1 else 'problems'} found in version {version.name}",
                hint=None if marked else UNMARKED,
            )

    async def _files_of(self, version: Version, lines: Iterator[Mapping[str, Any]], *, quick: bool) -> list[str]:
        """The names that are bad. A few batches are read at once, so that memory stays flat and two disks' worth is
        under way.
        """
        self._tally.planned_bytes = version.bytes
        bad: list[str] = []
        under_way: set[asyncio.Task[list[Finding]]] = set()
        while batch := [read_line(said) for said in islice(lines, BATCH)]:
            self._tally.listed += len(batch)
            under_way.add(asyncio.create_task(in_thread(self._check, version, batch, quick=quick)))
            if len(under_way) >= AT_ONCE:
                done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                bad += self._tell(done)
        if under_way:
            bad += self._tell((await asyncio.wait(under_way))[0])
        if self._tally.listed != version.files:
            self._found(Finding(f"manifests/{version.name}.jsonl", "manifest",
                                f"{self._tally.listed} files, its first line says {version.files}"))  # fmt: skip
        return bad

    def _tell(self, done: set[asyncio.Task[list[Finding]]]) -> list[str]:
        findings = [finding for task in done for finding in task.result()]
        for finding in findings:
            self._found(finding)
        return [finding.name for finding in findings]

    def _found(self, finding: Finding) -> None:
        self._tally.failed += 1
        self._observe(finding)

    def _check(self, version: Version, batch: list[Held], *, quick: bool) -> list[Finding]:
        findings = [finding for held in batch if (finding := self._judge(version, held, quick=quick))]
        self._tally.verified += len(batch) - len(findings)
        return findings

    def _judge(self, version: Version, held: Held, *, quick: bool) -> Finding | None:
        name = held.blob.name
        try:
            size = self._files.size(version, name)
            if size is None:
                return Finding(name, "missing", "is not there, or is no regular file")
            if size != held.blob.size:
                return Finding(name, "size", f"is {size} bytes, the manifest says {held.blob.size}")
            if quick:
                return None
            digest = self._files.digest(version, name)
        except DestinationError as error:
            return Finding(name, "unreadable", str(error))
        self._tally.bytes += size
        if digest is None or digest[0] != held.sha256:
            return Finding(name, "content", "its SHA-256 is not that of the manifest")
        return None

    def _pointer_stands(self, version: Version) -> bool:
        try:
            stands = self._publication.pointer() == pointer_to(version, self._files.read(version, ROOT))
        except (DestinationError, BlobDamaged) as error:
            self._observe(Finding(POINTER, "pointer", f"cannot be compared with the root tileset: {error}"))
            return False
        if not stands:
            self._observe(Finding(POINTER, "pointer", f"does not lead to version {version.name} as it was published"))
        return stands

    def _mark(self, version: Version, bad: list[str]) -> bool:
        """Note what is bad for the next run of the main job; whether that could be done."""
        try:
            known = self._catalog.versions(name=version.name) if self._catalog is not None else []
            if self._catalog is not None and known:
                self._catalog.release(known[0], bad)
                self._catalog.update(replace(known[0], damaged=bool(bad) or known[0].damaged))
                return True
        except DestinationError as error:
            self._observe(Warned(f"the findings could not be noted for the next mirror: {error}"))
        return False
