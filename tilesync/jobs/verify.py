"""The audit: what a destination holds against its manifest and against what its tilesets ask for, offline."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from tilesync.core.manifest import read_defects, read_header, read_line
from tilesync.core.wording import format_count
from tilesync.errors import BlobDamaged, DestinationError, Incomplete, Unreadable, VerifyFailed
from tilesync.events import Finding, Warned
from tilesync.jobs.run.stats import RunStats
from tilesync.jobs.transfer.reuse import reuse_content
from tilesync.jobs.versions.completeness import compute_completeness, list_unmet, report_diagnostics
from tilesync.jobs.versions.file_audit import FileVerifier, check_size
from tilesync.jobs.versions.ownership import report_owner
from tilesync.jobs.versions.pointer import compute_pointer_digest
from tilesync.jobs.versions.soundness import describe_damage, list_unusable
from tilesync.model import POINTER, Duplicate, FileResult, StoredFile, Version
from tilesync.protocols import Catalog, Observer, ReadOnlyPublication, StoredFiles, Workers
from tilesync.runtime.threads import run_in_thread

UNMARKED_HINT = (
    "the state is not here or cannot be written, so `tilesync mirror` will not know: verify with its --state-dir"
)
UNREADABLE_PROBLEM = "unreadable"
UNREADABLE_HINT = (
    "mend what keeps the unreadable files from being read (permissions, the disk, what stands in their place), then"
    " verify again: they count as held, so `tilesync mirror` does not fetch them; it does when they are removed"
)
ANY_VERSION_ID = -1
"""The number of no version: twins of all others are those of every one."""
MAX_CONCURRENT_BATCHES = 6
FILES_PER_BATCH = 128
MIN_FILES_FOR_WORKERS = 512
"""Files for which helpers are worth their start."""


@dataclass(frozen=True)
class AuditInputs:
    """What is audited. `catalog` is the destination's own, None where it cannot be written; `scratch` an empty one."""

    files: StoredFiles
    publication: ReadOnlyPublication
    catalog: Catalog | None
    scratch: Catalog
    workers: Workers | None = None


class VerifyJob:
    """One audit of a destination. `quick` compares names and sizes only.

    Every finding is told as an event, with a file that asks for the one it is about. What is found bad is marked in the
    catalog, so that the next run of the main job fetches it again; without a catalog that can be written the audit says
    so and counts all the same. What was missing when the version was published is a remark, no finding.
    """

    def __init__(self, inputs: AuditInputs, observe: Observer, stats: RunStats, *, quick: bool) -> None:
        self._inputs = inputs
        self._observe = observe
        self._stats = stats
        self._quick = quick
        self._verifier = FileVerifier(inputs.files, inputs.scratch.references, inputs.workers)

    async def run(self, *, all_versions: bool) -> None:
        """Audit the current version, or `every` one; a file that several of them share is read once.

        Raises VerifyFailed when there is any finding, DestinationError when nothing is held.
        """
        await run_in_thread(report_owner, self._inputs.publication, self._observe)
        latest = (self._inputs.publication.latest() or {}).get("version")
        if latest is None and self._inputs.catalog is not None:
            latest = self._inputs.catalog.get_value("points")
        names = [str(latest)] if latest is not None else []
        if all_versions:
            names += [name for name in self._inputs.publication.manifest_names() if name not in names]
        if not names:
            raise DestinationError(
                "no version is published here (there is no latest.json)",
                hint="give the folder that `tilesync mirror` published to, or run it again",
            )
        found, marked = list[Finding](), True
        for name in names:
            before = self._stats.snapshot_and_reset()
            audit = _VersionAudit(self._inputs, self._verifier, name, self._observe, self._stats, quick=self._quick)
            await audit.run(is_current=name == latest)
            if audit.findings:
                found += audit.findings
                marked = await audit.report_findings() and marked
            self._stats.merge(before)
        await self._verifier.aclose()
        if found:
            raise VerifyFailed(_summarize_findings(found), hint=_make_hint(found, is_marked=marked))


def _content_key(stored: StoredFile) -> bytes | str:
    """What files of one content share."""
    return stored.sha256 or stored.blob.name


def _parse_lines(lines: Iterator[Mapping[str, Any]]) -> list[StoredFile]:
    return [read_line(said) for said in islice(lines, FILES_PER_BATCH)]


def _summarize_findings(findings: Sequence[Finding]) -> str:
    first, versions = findings[0], {finding.version for finding in findings}
    if len(findings) == 1 and first.problem == "manifest":
        return f"the manifest of version {first.version} {first.message}"
    where = f"version {first.version}" if len(versions) == 1 else format_count(len(versions), "version")
    return f"{format_count(len(findings), 'problem')} found in {where}"


def _make_hint(findings: Sequence[Finding], *, is_marked: bool) -> str | None:
    """What to do about findings, if not the usual: what cannot be read is not fetched again."""
    unreadable = sum(finding.problem == UNREADABLE_PROBLEM for finding in findings)
    usual = VerifyFailed.default_hint if is_marked else UNMARKED_HINT
    if not unreadable:
        return None if is_marked else UNMARKED_HINT
    return UNREADABLE_HINT if unreadable == len(findings) else f"{UNREADABLE_HINT}; of the others: {usual}"


class _VersionAudit:
    """The audit of one version."""

    def __init__(
        self, inputs: AuditInputs, verifier: FileVerifier, name: str, observe: Observer, stats: RunStats, *, quick: bool
    ) -> None:
        self._files = inputs.files
        self._publication = inputs.publication
        self._catalog = inputs.catalog
        self._scratch = inputs.scratch
        self._verifier = verifier
        self._is_not_first = bool(inputs.scratch.versions())
        self._name = name
        self._observe = observe
        self._stats = stats
        self._quick = quick
        self._version: Version | None = None
        self.findings: list[Finding] = []

    async def run(self, *, is_current: bool) -> None:
        """Look at everything; `current`: also at what leads there."""
        lines = self._publication.manifest(self._name)
        try:
            said = next(lines)
            version = self._version = self._scratch.add_version(read_header(said, name=self._name))
            await self._check_files(version, lines)
        except Unreadable as error:
            self._add_finding(Finding(f"manifests/{self._name}.jsonl", UNREADABLE_PROBLEM, str(error)))
            return
        except (DestinationError, Incomplete, StopIteration, KeyError, TypeError, ValueError) as error:
            self._add_finding(Finding(f"manifests/{self._name}.jsonl", "manifest", f"cannot be read: {error}"))
            return
        if not self._quick:
            await run_in_thread(self._check_completeness, version, set(read_defects(said)), set(self._list_damaged()))
        if is_current and not self._list_damaged() and (problem := self._find_pointer_problem(version)):
            self._add_finding(Finding(POINTER, "pointer", problem))
        if is_current and self._publication.latest() is None:
            self._add_finding(Finding("latest.json", "pointer", "is not there, or says nothing of a version"))

    def _add_finding(self, finding: Finding) -> None:
        self.findings.append(replace(finding, version=self._name))

    def _list_damaged(self) -> list[str]:
        return [finding.name for finding in self.findings if finding.problem not in {"manifest", "pointer"}]

    async def report_findings(self) -> bool:
        """Tell every finding with a file that asks for it, and mark what is bad; whether that could be done."""
        askers = dict[str, str]()
        if self._version is not None:
            names = [finding.name for finding in self.findings]
            askers = await run_in_thread(self._scratch.references.find_referrers, self._version, names)
        for finding in sorted(self.findings, key=lambda finding: finding.name):
            self._observe(replace(finding, asked_by=finding.asked_by or askers.get(finding.name, "")))
        self._stats.failed = len(self.findings)
        return await run_in_thread(self._mark_damaged, self._list_damaged())

    async def _check_files(self, version: Version, lines: Iterator[Mapping[str, Any]]) -> None:
        """Look at every file. A few batches are read at once: memory stays flat, and every core has work."""
        self._stats.planned_bytes += version.bytes
        self._stats.inventory_complete = True
        if version.files >= MIN_FILES_FOR_WORKERS and not self._quick:
            self._verifier.request_start()
        if self._quick:
            await run_in_thread(self._files.prepare_listing, version)
        under_way: set[asyncio.Task[None]] = set()
        try:
            while batch := await run_in_thread(_parse_lines, lines):
                self._stats.listed += len(batch)
                under_way.add(asyncio.create_task(self._check_batch(version, batch)))
                if len(under_way) >= MAX_CONCURRENT_BATCHES:
                    done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                    _ = [task.result() for task in done]
            if under_way:
                _ = [task.result() for task in (await asyncio.wait(under_way))[0]]
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
        if self._stats.listed != version.files:
            problem = f"names {self._stats.listed} files, its first line says {version.files}"
            self._add_finding(Finding(f"manifests/{version.name}.jsonl", "manifest", problem))

    async def _check_batch(self, version: Version, batch: list[StoredFile]) -> None:
        """Judge a batch of files; what those that are right ask for is noted in the scratch catalog."""
        if self._quick:
            judged: list[Finding | FileResult | None] = await run_in_thread(self._check_sizes, version, batch)
        else:
            judged = await self._verify_contents(version, batch)
        found = [item for item in judged if isinstance(item, FileResult)]
        findings = [item for item in judged if isinstance(item, Finding)]
        if found:
            await run_in_thread(self._scratch.add_stored_files, version, found)
        for finding in findings:
            self._add_finding(finding)
        self._stats.failed += len(findings)
        self._stats.verified += len(batch) - len(findings)

    def _check_sizes(self, version: Version, batch: list[StoredFile]) -> list[Finding | FileResult | None]:
        return [check_size(self._files, version, held) for held in batch]

    async def _verify_contents(self, version: Version, batch: list[StoredFile]) -> list[Finding | FileResult | None]:
        """Judge each file by its bytes, which are read once for all names that a file has."""
        known: dict[str, Finding | FileResult] = {}
        if self._is_not_first:
            known.update(await run_in_thread(self._match_verified_before, version, batch))
        first = {_content_key(held): held for held in reversed(batch) if held.blob.name not in known}
        await self._verify_files(version, list(first.values()), known)
        again = [held for held in batch if held.blob.name not in known]
        known.update(await run_in_thread(self._match_same_inode, version, again, first, known))
        await self._verify_files(version, [held for held in again if held.blob.name not in known], known)
        return [known[held.blob.name] for held in batch]

    async def _verify_files(
        self, version: Version, files: list[StoredFile], known: dict[str, Finding | FileResult]
    ) -> None:
        told = await self._verifier.verify_files(version, files) if files else {}
        self._stats.transferred_bytes += sum(each.stored.size for each in told.values() if isinstance(each, FileResult))
        known.update(told)

    def _match_same_inode(
        self,
        version: Version,
        files: list[StoredFile],
        first_by_content: Mapping[bytes | str, StoredFile],
        known: Mapping[str, Finding | FileResult],
    ) -> dict[str, Finding | FileResult]:
        """Those that are the same file as another name that was read, where what they say is the same."""
        same: dict[str, Finding | FileResult] = {}
        for held in files:
            read = known[first_by_content[_content_key(held)].blob.name]
            says_nothing = isinstance(read, FileResult) and not (read.content.references or read.content.diagnostics)
            if isinstance(read, FileResult) and says_nothing and read.stored.inode:
                trace = self._files.stamp(version, held.blob.name)
                if trace == (read.stored.mtime_ns, read.stored.inode):
                    same[held.blob.name] = read._replace(
                        stored=read.stored._replace(blob=held.blob, unpacked=held.unpacked)
                    )
        return same

    def _match_verified_before(self, version: Version, batch: list[StoredFile]) -> dict[str, FileResult]:
        """Those of a batch that are one file with what the audit has read before, where they ask for the same."""
        retold, copied = dict[str, FileResult](), list[Duplicate]()
        for name, twins in self._scratch.duplicates.find_by_sha256(
            replace(version, serial=ANY_VERSION_ID), batch
        ).items():
            trace = self._files.stamp(version, name)
            for twin in twins:
                arrival = FileResult(0, twin.stored._replace(blob=twin.stored.blob._replace(name=name)))
                same = trace is not None and trace.inode and trace == (twin.stored.mtime_ns, twin.stored.inode)
                if same and (found := reuse_content(arrival, twin)):
                    retold[name] = found
                    copied += [twin] if found.has_more_references else []
                    break
        if copied:
            self._scratch.duplicates.copy_references(version, copied)
        return retold

    def _check_completeness(self, version: Version, known_defects: set[str], damaged: set[str]) -> None:
        """Note what the files ask for that is not there, but for what was so from the start, or is bad already."""
        self._stats.completeness = compute_completeness(version, self._scratch, self._files)
        report_diagnostics(version, self._scratch, self._observe)
        for broken in list_unusable(version, self._scratch):
            if broken.name in known_defects:
                self._observe(Warned(f"damaged since it was published: {broken.name}: {describe_damage(broken)}"))
            elif broken.name not in damaged:
                self._add_finding(Finding(broken.name, "content", f"is damaged: {broken.reason}", broken.referrer))
        for each in list_unmet(version, self._scratch):
            if (each.name or each.message) in known_defects:
                self._observe(Warned(f"missing since it was published: {each.message}"))
            elif each.name is None:
                self._add_finding(Finding(each.referrer, "reference", each.message))
            elif each.name not in damaged:
                self._add_finding(Finding(each.name, "missing", "is not there", each.referrer))

    def _find_pointer_problem(self, version: Version) -> str | None:
        prefix = self._publication.prefix(version)
        try:
            pointer, files = self._publication.pointer_digest(), self._files
            stands = pointer == compute_pointer_digest(
                version, files, prefix
            )  # or as it was made before absolute URIs were
            stands = stands or pointer == compute_pointer_digest(replace(version, container_url=""), files, prefix)
            staged = self._publication.has_staged_files(version)
        except (DestinationError, BlobDamaged) as error:
            return f"cannot be compared with the root tileset: {error}"
        if staged:
            return (
                f"stands for all files of version {version.name}, and some of them wait in the state for their places"
            )
        return None if stands else f"does not lead to version {version.name} as it was published"

    def _mark_damaged(self, damaged: list[str]) -> bool:
        """Note what is bad for the next run of the main job; whether that could be done."""
        try:
            known = self._catalog.versions(name=self._name) if self._catalog is not None else []
            if self._catalog is not None and known:
                broken = any(finding.problem not in {"pointer", UNREADABLE_PROBLEM} for finding in self.findings)
                gone = {finding.name for finding in self.findings if finding.problem == "missing"}
                unread = {finding.name for finding in self.findings if finding.problem == UNREADABLE_PROBLEM}
                damaged = [name for name in damaged if name not in unread]
                self._catalog.mark_wanted(known[0], [name for name in damaged if name in gone])
                self._catalog.mark_wanted(known[0], [name for name in damaged if name not in gone], include_linked=True)
                self._catalog.update_version(replace(known[0], damaged=broken or known[0].damaged))
                return True
        except DestinationError as error:
            self._observe(Warned(f"the findings could not be noted for the next mirror: {error}"))
        return False
