"""The audit: what a destination holds against its manifest and against what its tilesets ask for, offline."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from tilesync.errors import BlobDamaged, DestinationError, Incomplete, VerifyFailed
from tilesync.events import Finding, Warned
from tilesync.jobs.complete import settle, tell_remarks, unmet
from tilesync.jobs.examine import examine
from tilesync.jobs.pointing import pointer_digest
from tilesync.jobs.tally import Tally
from tilesync.model import POINTER, Arrival, Held, Version
from tilesync.protocols import Catalog, HeldFiles, Observer, Published
from tilesync.rules.manifest import read_header, read_line
from tilesync.threads import in_thread

UNMARKED = "the state is not here or cannot be written, so `tilesync mirror` will not know: verify with its --state-dir"
AT_ONCE = 4
BATCH = 64


@dataclass(frozen=True)
class Audited:
    """What is audited. `catalog` is the destination's own, None where it cannot be written; `scratch` an empty one."""

    files: HeldFiles
    publication: Published
    catalog: Catalog | None
    scratch: Catalog


class Verify:
    """One audit of the current version. `quick` compares names and sizes only.

    Every finding is told as an event, with a file that asks for the one it is about. What is found bad is marked in the
    catalog, so that the next run of the main job fetches it again; without a catalog that can be written the audit says
    so and counts all the same. What was missing when the version was published is a remark, no finding.
    """

    def __init__(self, audited: Audited, observe: Observer, tally: Tally) -> None:
        self._files = audited.files
        self._publication = audited.publication
        self._catalog = audited.catalog
        self._scratch = audited.scratch
        self._observe = observe
        self._tally = tally
        self._findings: list[Finding] = []

    async def run(self, *, quick: bool) -> None:
        """Audit. Raises VerifyFailed when there is any finding, DestinationError when nothing is held."""
        latest = self._publication.latest()
        if latest is None:
            raise DestinationError(
                "no version is published here (there is no latest.json)",
                hint="give the folder that `tilesync mirror` published to, or run it again",
            )
        lines = self._publication.manifest(str(latest["version"]))
        try:
            said = next(lines)
            version = self._scratch.begin(read_header(said))
            await self._files_of(version, lines, quick=quick)
        except (DestinationError, Incomplete, StopIteration, KeyError, TypeError, ValueError) as error:
            raise VerifyFailed(f"the manifest of version {latest['version']} cannot be read: {error}") from error
        bad = [finding.name for finding in self._findings if finding.problem != "manifest"]
        if not quick:
            known = {*said.get("missing_names", ()), *said.get("unheld", ())}
            await in_thread(self._judge_completeness, version, known, set(bad))
        if not bad and (problem := self._pointer_problem(version)):
            self._findings.append(Finding(POINTER, "pointer", problem))
        if self._findings:
            await self._report(version, bad)

    async def _report(self, version: Version, bad: list[str]) -> None:
        """Tell every finding with a file that asks for it, and mark what is bad. Raises VerifyFailed."""
        askers = await in_thread(self._scratch.references.askers, version, [f.name for f in self._findings])
        for finding in sorted(self._findings, key=lambda finding: finding.name):
            self._observe(replace(finding, asked_by=finding.asked_by or askers.get(finding.name, "")))
        marked = await in_thread(self._mark, version, bad)
        count = len(self._findings)
        self._tally.failed = count
        raise VerifyFailed(
            f"{count} {'problem' if count == 1 else 'problems'} found in version {version.name}",
            hint=None if marked else UNMARKED,
        )

    async def _files_of(self, version: Version, lines: Iterator[Mapping[str, Any]], *, quick: bool) -> None:
        """Look at every file. A few batches are read at once: memory stays flat, and two disks' worth is under way."""
        self._tally.planned_bytes = version.bytes
        under_way: set[asyncio.Task[None]] = set()
        while batch := [read_line(said) for said in islice(lines, BATCH)]:
            self._tally.listed += len(batch)
            under_way.add(asyncio.create_task(in_thread(self._check, version, batch, quick=quick)))
            if len(under_way) >= AT_ONCE:
                done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                _ = [task.result() for task in done]
        if under_way:
            _ = [task.result() for task in (await asyncio.wait(under_way))[0]]
        if self._tally.listed != version.files:
            problem = f"{self._tally.listed} files, its first line says {version.files}"
            self._findings.append(Finding(f"manifests/{version.name}.jsonl", "manifest", problem))

    def _check(self, version: Version, batch: list[Held], *, quick: bool) -> None:
        """Judge a batch of files; what those that are right ask for is noted in the scratch catalog."""
        judged = [self._look(version, held) if quick else self._read(version, held) for held in batch]
        found = [item for item in judged if isinstance(item, Arrival)]
        findings = [item for item in judged if isinstance(item, Finding)]
        self._scratch.add_held(version, found)
        self._findings += findings
        self._tally.failed += len(findings)
        self._tally.verified += len(batch) - len(findings)

    def _look(self, version: Version, held: Held) -> Finding | None:
        """Name and size only."""
        name = held.blob.name
        try:
            size = self._files.size(version, name)
        except DestinationError as error:
            return Finding(name, "unreadable", str(error))
        if size is None:
            return Finding(name, "missing", "is not there, or is no regular file")
        if size != held.blob.size:
            return Finding(name, "size", f"is {size} bytes, the manifest says {held.blob.size}")
        return None

    def _read(self, version: Version, held: Held) -> Finding | Arrival:
        """Every byte: the digest, and what the file asks for."""
        if finding := self._look(version, held):
            return finding
        name = held.blob.name
        try:
            found = examine(self._files, self._scratch.references, version, held.blob, md5=False)
        except DestinationError as error:
            return Finding(name, "unreadable", str(error))
        except BlobDamaged as error:
            return Finding(name, "content", f"is damaged: {error}")
        self._tally.bytes += held.blob.size
        if found is None or found.held.sha256 != held.sha256:
            return Finding(name, "content", "its SHA-256 is not that of the manifest")
        return Arrival(0, found.held, found.reading, partly=found.partly)

    def _judge_completeness(self, version: Version, known: set[str], bad: set[str]) -> None:
        """Note what the files ask for that is not there, but for what was so from the start, or is bad already."""
        self._tally.completeness = settle(version, self._scratch, self._files)
        tell_remarks(version, self._scratch, self._observe)
        for each in unmet(version, self._scratch):
            if (each.name or each.message) in known:
                self._observe(Warned(f"missing since it was published: {each.message}"))
            elif each.name is None:
                self._findings.append(Finding(each.asker, "reference", each.message))
            elif each.name not in bad:
                self._findings.append(Finding(each.name, "missing", "is not there", each.asker))

    def _pointer_problem(self, version: Version) -> str | None:
        try:
            stands = self._publication.pointer() == pointer_digest(version, self._files)
        except (DestinationError, BlobDamaged) as error:
            return f"cannot be compared with the root tileset: {error}"
        return None if stands else f"does not lead to version {version.name} as it was published"

    def _mark(self, version: Version, bad: list[str]) -> bool:
        """Note what is bad for the next run of the main job; whether that could be done."""
        try:
            known = self._catalog.versions(name=version.name) if self._catalog is not None else []
            if self._catalog is not None and known:
                gone = {finding.name for finding in self._findings if finding.problem == "missing"}
                self._catalog.release(known[0], [name for name in bad if name in gone])
                self._catalog.release(known[0], [name for name in bad if name not in gone], linked=True)
                self._catalog.update(replace(known[0], damaged=bool(bad) or known[0].damaged))
                return True
        except DestinationError as error:
            self._observe(Warned(f"the findings could not be noted for the next mirror: {error}"))
        return False
