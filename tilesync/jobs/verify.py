"""The audit: what a destination holds against its manifest and against what its tilesets ask for, offline."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from tilesync.core.manifest import lacking, read_header, read_line
from tilesync.core.wording import counted
from tilesync.errors import BlobDamaged, DestinationError, Incomplete, Unreadable, VerifyFailed
from tilesync.events import Finding, Warned
from tilesync.jobs.run.stats import Tally
from tilesync.jobs.transfer.reuse import as_there
from tilesync.jobs.versions.completeness import settle, tell_remarks, unmet
from tilesync.jobs.versions.file_audit import Inspector, look
from tilesync.jobs.versions.ownership import tell_owner
from tilesync.jobs.versions.pointer import pointer_digest
from tilesync.jobs.versions.soundness import sentence, unusable
from tilesync.model import POINTER, Arrival, Held, Twin, Version
from tilesync.protocols import Catalog, HeldFiles, Helpers, Observer, Published
from tilesync.runtime.threads import in_thread

UNMARKED = "the state is not here or cannot be written, so `tilesync mirror` will not know: verify with its --state-dir"
UNREADABLE = "unreadable"
MEND = (
    "mend what keeps the unreadable files from being read (permissions, the disk, what stands in their place), then"
    " verify again: they count as held, so `tilesync mirror` does not fetch them; it does when they are removed"
)
EVERY = -1
"""The number of no version: twins of all others are those of every one."""
AT_ONCE = 6
BATCH = 128
MANY = 512
"""Files for which helpers are worth their start."""


@dataclass(frozen=True)
class Audited:
    """What is audited. `catalog` is the destination's own, None where it cannot be written; `scratch` an empty one."""

    files: HeldFiles
    publication: Published
    catalog: Catalog | None
    scratch: Catalog
    helpers: Helpers | None = None


class Verify:
    """One audit of a destination. `quick` compares names and sizes only.

    Every finding is told as an event, with a file that asks for the one it is about. What is found bad is marked in the
    catalog, so that the next run of the main job fetches it again; without a catalog that can be written the audit says
    so and counts all the same. What was missing when the version was published is a remark, no finding.
    """

    def __init__(self, audited: Audited, observe: Observer, tally: Tally, *, quick: bool) -> None:
        self._audited = audited
        self._observe = observe
        self._tally = tally
        self._quick = quick
        self._inspector = Inspector(audited.files, audited.scratch.references, audited.helpers)

    async def run(self, *, every: bool) -> None:
        """Audit the current version, or `every` one; a file that several of them share is read once.

        Raises VerifyFailed when there is any finding, DestinationError when nothing is held.
        """
        await in_thread(tell_owner, self._audited.publication, self._observe)
        latest = (self._audited.publication.latest() or {}).get("version")
        if latest is None and self._audited.catalog is not None:
            latest = self._audited.catalog.recall("points")
        names = [str(latest)] if latest is not None else []
        if every:
            names += [name for name in self._audited.publication.manifest_names() if name not in names]
        if not names:
            raise DestinationError(
                "no version is published here (there is no latest.json)",
                hint="give the folder that `tilesync mirror` published to, or run it again",
            )
        found, marked = list[Finding](), True
        for name in names:
            before = self._tally.set_aside()
            audit = _Audit(self._audited, self._inspector, name, self._observe, self._tally, quick=self._quick)
            await audit.run(current=name == latest)
            if audit.findings:
                found += audit.findings
                marked = await audit.report() and marked
            self._tally.add(before)
        await self._inspector.aclose()
        if found:
            raise VerifyFailed(_told(found), hint=_hint(found, marked=marked))


def _content(held: Held) -> bytes | str:
    """What files of one content share."""
    return held.sha256 or held.blob.name


def _parsed(lines: Iterator[Mapping[str, Any]]) -> list[Held]:
    return [read_line(said) for said in islice(lines, BATCH)]


def _told(found: Sequence[Finding]) -> str:
    first, versions = found[0], {finding.version for finding in found}
    if len(found) == 1 and first.problem == "manifest":
        return f"the manifest of version {first.version} {first.message}"
    where = f"version {first.version}" if len(versions) == 1 else counted(len(versions), "version")
    return f"{counted(len(found), 'problem')} found in {where}"


def _hint(found: Sequence[Finding], *, marked: bool) -> str | None:
    """What to do about findings, if not the usual: what cannot be read is not fetched again."""
    unreadable = sum(finding.problem == UNREADABLE for finding in found)
    usual = VerifyFailed.hint_text if marked else UNMARKED
    if not unreadable:
        return None if marked else UNMARKED
    return MEND if unreadable == len(found) else f"{MEND}; of the others: {usual}"


class _Audit:
    """The audit of one version."""

    def __init__(
        self, audited: Audited, inspector: Inspector, name: str, observe: Observer, tally: Tally, *, quick: bool
    ) -> None:
        self._files = audited.files
        self._publication = audited.publication
        self._catalog = audited.catalog
        self._scratch = audited.scratch
        self._inspector = inspector
        self._several = bool(audited.scratch.versions())
        self._name = name
        self._observe = observe
        self._tally = tally
        self._quick = quick
        self._version: Version | None = None
        self.findings: list[Finding] = []

    async def run(self, *, current: bool) -> None:
        """Look at everything; `current`: also at what leads there."""
        lines = self._publication.manifest(self._name)
        try:
            said = next(lines)
            version = self._version = self._scratch.begin(read_header(said, name=self._name))
            await self._files_of(version, lines)
        except Unreadable as error:
            self._find(Finding(f"manifests/{self._name}.jsonl", UNREADABLE, str(error)))
            return
        except (DestinationError, Incomplete, StopIteration, KeyError, TypeError, ValueError) as error:
            self._find(Finding(f"manifests/{self._name}.jsonl", "manifest", f"cannot be read: {error}"))
            return
        if not self._quick:
            await in_thread(self._judge_completeness, version, set(lacking(said)), set(self._bad()))
        if current and not self._bad() and (problem := self._pointer_problem(version)):
            self._find(Finding(POINTER, "pointer", problem))
        if current and self._publication.latest() is None:
            self._find(Finding("latest.json", "pointer", "is not there, or says nothing of a version"))

    def _find(self, finding: Finding) -> None:
        self.findings.append(replace(finding, version=self._name))

    def _bad(self) -> list[str]:
        return [finding.name for finding in self.findings if finding.problem not in {"manifest", "pointer"}]

    async def report(self) -> bool:
        """Tell every finding with a file that asks for it, and mark what is bad; whether that could be done."""
        askers = dict[str, str]()
        if self._version is not None:
            names = [finding.name for finding in self.findings]
            askers = await in_thread(self._scratch.references.askers, self._version, names)
        for finding in sorted(self.findings, key=lambda finding: finding.name):
            self._observe(replace(finding, asked_by=finding.asked_by or askers.get(finding.name, "")))
        self._tally.failed = len(self.findings)
        return await in_thread(self._mark, self._bad())

    async def _files_of(self, version: Version, lines: Iterator[Mapping[str, Any]]) -> None:
        """Look at every file. A few batches are read at once: memory stays flat, and every core has work."""
        self._tally.planned_bytes += version.bytes
        self._tally.inventory_complete = True
        if version.files >= MANY and not self._quick:
            self._inspector.call()
        if self._quick:
            await in_thread(self._files.survey, version)
        under_way: set[asyncio.Task[None]] = set()
        try:
            while batch := await in_thread(_parsed, lines):
                self._tally.listed += len(batch)
                under_way.add(asyncio.create_task(self._check(version, batch)))
                if len(under_way) >= AT_ONCE:
                    done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                    _ = [task.result() for task in done]
            if under_way:
                _ = [task.result() for task in (await asyncio.wait(under_way))[0]]
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
        if self._tally.listed != version.files:
            problem = f"names {self._tally.listed} files, its first line says {version.files}"
            self._find(Finding(f"manifests/{version.name}.jsonl", "manifest", problem))

    async def _check(self, version: Version, batch: list[Held]) -> None:
        """Judge a batch of files; what those that are right ask for is noted in the scratch catalog."""
        if self._quick:
            judged: list[Finding | Arrival | None] = await in_thread(self._look_at, version, batch)
        else:
            judged = await self._read_each(version, batch)
        found = [item for item in judged if isinstance(item, Arrival)]
        findings = [item for item in judged if isinstance(item, Finding)]
        if found:
            await in_thread(self._scratch.add_held, version, found)
        for finding in findings:
            self._find(finding)
        self._tally.failed += len(findings)
        self._tally.verified += len(batch) - len(findings)

    def _look_at(self, version: Version, batch: list[Held]) -> list[Finding | Arrival | None]:
        return [look(self._files, version, held) for held in batch]

    async def _read_each(self, version: Version, batch: list[Held]) -> list[Finding | Arrival | None]:
        """Judge each file by its bytes, which are read once for all names that a file has."""
        known: dict[str, Finding | Arrival] = {}
        if self._several:
            known.update(await in_thread(self._read_before, version, batch))
        first = {_content(held): held for held in reversed(batch) if held.blob.name not in known}
        await self._inspect(version, list(first.values()), known)
        again = [held for held in batch if held.blob.name not in known]
        known.update(await in_thread(self._as_the_first, version, again, first, known))
        await self._inspect(version, [held for held in again if held.blob.name not in known], known)
        return [known[held.blob.name] for held in batch]

    async def _inspect(self, version: Version, some: list[Held], known: dict[str, Finding | Arrival]) -> None:
        told = await self._inspector.inspect(version, some) if some else {}
        self._tally.bytes += sum(each.held.size for each in told.values() if isinstance(each, Arrival))
        known.update(told)

    def _as_the_first(
        self,
        version: Version,
        some: list[Held],
        first: Mapping[bytes | str, Held],
        known: Mapping[str, Finding | Arrival],
    ) -> dict[str, Finding | Arrival]:
        """Those that are the same file as another name that was read, where what they say is the same."""
        same: dict[str, Finding | Arrival] = {}
        for held in some:
            read = known[first[_content(held)].blob.name]
            says_nothing = isinstance(read, Arrival) and not (read.reading.references or read.reading.remarks)
            if isinstance(read, Arrival) and says_nothing and read.held.inode:
                trace = self._files.trace(version, held.blob.name)
                if trace == (read.held.mtime_ns, read.held.inode):
                    same[held.blob.name] = read._replace(
                        held=read.held._replace(blob=held.blob, unpacked=held.unpacked)
                    )
        return same

    def _read_before(self, version: Version, batch: list[Held]) -> dict[str, Arrival]:
        """Those of a batch that are one file with what the audit has read before, where they ask for the same."""
        retold, copied = dict[str, Arrival](), list[Twin]()
        for name, twins in self._scratch.twins.by_sha256(replace(version, serial=EVERY), batch).items():
            trace = self._files.trace(version, name)
            for twin in twins:
                arrival = Arrival(0, twin.held._replace(blob=twin.held.blob._replace(name=name)))
                same = trace is not None and trace.inode and trace == (twin.held.mtime_ns, twin.held.inode)
                if same and (found := as_there(arrival, twin)):
                    retold[name] = found
                    copied += [twin] if found.partly else []
                    break
        if copied:
            self._scratch.twins.copy_references(version, copied)
        return retold

    def _judge_completeness(self, version: Version, known: set[str], bad: set[str]) -> None:
        """Note what the files ask for that is not there, but for what was so from the start, or is bad already."""
        self._tally.completeness = settle(version, self._scratch, self._files)
        tell_remarks(version, self._scratch, self._observe)
        for broken in unusable(version, self._scratch):
            if broken.name in known:
                self._observe(Warned(f"damaged since it was published: {broken.name}: {sentence(broken)}"))
            elif broken.name not in bad:
                self._find(Finding(broken.name, "content", f"is damaged: {broken.reason}", broken.asker))
        for each in unmet(version, self._scratch):
            if (each.name or each.message) in known:
                self._observe(Warned(f"missing since it was published: {each.message}"))
            elif each.name is None:
                self._find(Finding(each.asker, "reference", each.message))
            elif each.name not in bad:
                self._find(Finding(each.name, "missing", "is not there", each.asker))

    def _pointer_problem(self, version: Version) -> str | None:
        prefix = self._publication.prefix(version)
        try:
            pointer, files = self._publication.pointer(), self._files
            stands = pointer == pointer_digest(version, files, prefix)  # or as it was made before absolute URIs were
            stands = stands or pointer == pointer_digest(replace(version, home=""), files, prefix)
            staged = self._publication.staged(version)
        except (DestinationError, BlobDamaged) as error:
            return f"cannot be compared with the root tileset: {error}"
        if staged:
            return (
                f"stands for all files of version {version.name}, and some of them wait in the state for their places"
            )
        return None if stands else f"does not lead to version {version.name} as it was published"

    def _mark(self, bad: list[str]) -> bool:
        """Note what is bad for the next run of the main job; whether that could be done."""
        try:
            known = self._catalog.versions(name=self._name) if self._catalog is not None else []
            if self._catalog is not None and known:
                broken = any(finding.problem not in {"pointer", UNREADABLE} for finding in self.findings)
                gone = {finding.name for finding in self.findings if finding.problem == "missing"}
                unread = {finding.name for finding in self.findings if finding.problem == UNREADABLE}
                bad = [name for name in bad if name not in unread]
                self._catalog.release(known[0], [name for name in bad if name in gone])
                self._catalog.release(known[0], [name for name in bad if name not in gone], linked=True)
                self._catalog.update(replace(known[0], damaged=broken or known[0].damaged))
                return True
        except DestinationError as error:
            self._observe(Warned(f"the findings could not be noted for the next mirror: {error}"))
        return False
