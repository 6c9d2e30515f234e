"""Verify a destination offline: compare its files with the manifest, and check that no referenced file is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tilesync.catalog.catalog import Catalog
from tilesync.core.manifest import is_known_defect, read_defects, read_header, read_lines
from tilesync.core.wording import format_count
from tilesync.errors import BlobDamaged, DestinationError, Incomplete, Unreadable, VerifyFailed
from tilesync.events import Finding, Warned
from tilesync.jobs.run.stats import RunStats
from tilesync.jobs.transfer.reuse import reuse_content
from tilesync.jobs.versions.completeness import (
    compute_completeness,
    describe_damage,
    list_unmet,
    list_unusable,
    report_diagnostics,
)
from tilesync.jobs.versions.file_check import FileVerifier, check_size
from tilesync.jobs.versions.ownership import report_owner
from tilesync.jobs.versions.pointer import compute_pointer_digest
from tilesync.model import POINTER, Duplicate, FileResult, StoredFile, Version
from tilesync.protocols import Observer, ReadOnlyPublication, StoredFiles, StructureChecks, Workers
from tilesync.runtime.threads import run_in_thread
from tilesync.values import dataclass

UNMARKED_HINT = (
    "the findings were not recorded, because the state folder is missing or not writable: run verify with the same"
    " --state-dir as `tilesync mirror`, so that the next mirror repairs these files"
)
UNREADABLE_PROBLEM = "unreadable"
UNREADABLE_HINT = (
    "make these files readable (check permissions, the disk, and whether they are regular files), then verify again;"
    " `tilesync mirror` fetches them again only if you delete them"
)
ANY_VERSION_ID = -1
"""An id that no version has: a search for duplicates with it covers all versions."""
MAX_CONCURRENT_BATCHES = 6
FILES_PER_BATCH = 256
MIN_FILES_FOR_WORKERS = 512
"""Minimum files of a version for which worker processes are started: with fewer, the start does not pay off."""


@dataclass(frozen=True)
class AuditInputs:
    """Inputs of an audit.

    `catalog`: that of the destination, or None if not writable. `scratch`: an empty catalog. `structure_checks`: those
    of a package.
    """

    files: StoredFiles
    publication: ReadOnlyPublication
    catalog: Catalog | None
    scratch: Catalog
    workers: Workers | None = None
    structure_checks: StructureChecks | None = None


class VerifyJob:
    """One audit of a destination. `quick` compares names and sizes only.

    Each finding is emitted as an event, together with the name of a file that refers to the bad file. Bad files are
    marked in the catalog, so that the next mirror run fetches them again; if the catalog is not writable, the hint says
    so. Files that were already missing when the version was published cause warnings, not findings.
    """

    def __init__(self, inputs: AuditInputs, observe: Observer, stats: RunStats, *, quick: bool) -> None:
        self._inputs = inputs
        self._observe = observe
        self._stats = stats
        self._quick = quick
        self._verifier = FileVerifier(inputs.files, inputs.scratch.references, inputs.workers)

    async def run(self, *, all_versions: bool) -> None:
        """Audit the current version or all versions; a file that several versions share is read once.

        Raises VerifyFailed if there is any finding, DestinationError if nothing is published.
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
                hint="give the destination of `tilesync mirror`, or run `tilesync mirror` again",
            )
        findings, is_marked = list[Finding](), True
        for name in names:
            before = self._stats.snapshot_and_reset()
            audit = _VersionAudit(self._inputs, self._verifier, name, self._observe, self._stats, quick=self._quick)
            await audit.run(is_current=name == latest)
            if audit.findings:
                findings += audit.findings
                is_marked = await audit.report_findings() and is_marked
            self._stats.merge(before)
        await self._verifier.aclose()
        checks = self._inputs.structure_checks
        if checks is not None:
            findings += await run_in_thread(self._check_structure, checks, names[0])
        if findings:
            hint = checks.remedy if checks is not None else _make_hint(findings, is_marked=is_marked)
            raise VerifyFailed(_summarize_findings(findings), hint=hint)

    def _check_structure(self, checks: StructureChecks, version: str) -> list[Finding]:
        """Check a package beyond its files; emit the findings and return them."""
        findings = list(checks.find_problems(version))
        for finding in findings:
            self._observe(finding)
        self._stats.failed += len(findings)
        return findings


def _content_key(stored: StoredFile) -> bytes | str:
    """Return the key that files with the same content share."""
    return stored.sha256 or stored.blob.name


def _summarize_findings(findings: Sequence[Finding]) -> str:
    first, versions = findings[0], {finding.version for finding in findings}
    if len(findings) == 1 and first.problem == "manifest":
        return f"the manifest of version {first.version} {first.message}"
    where = f"version {first.version}" if len(versions) == 1 else format_count(len(versions), "version")
    return f"{format_count(len(findings), 'problem')} found in {where}"


def _make_hint(findings: Sequence[Finding], *, is_marked: bool) -> str | None:
    """Return the hint for findings, or None for the default one. Unreadable files need a hint of their own."""
    unreadable = sum(finding.problem == UNREADABLE_PROBLEM for finding in findings)
    other_hint = VerifyFailed.default_hint if is_marked else UNMARKED_HINT
    if not unreadable:
        return None if is_marked else UNMARKED_HINT
    return UNREADABLE_HINT if unreadable == len(findings) else f"{UNREADABLE_HINT}; for the other files: {other_hint}"


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
        self._has_earlier_versions = bool(inputs.scratch.versions())
        self._name = name
        self._observe = observe
        self._stats = stats
        self._quick = quick
        self._version: Version | None = None
        self.findings: list[Finding] = []

    async def run(self, *, is_current: bool) -> None:
        """Check manifest, files and references of the version; if `is_current`, also the pointer and `latest.json`."""
        lines = self._publication.manifest(self._name)
        try:
            header = next(lines)
            version = self._version = self._scratch.add_version(read_header(header, name=self._name))
            await self._check_files(version, lines)
        except Unreadable as error:
            self._add_finding(Finding(f"manifests/{self._name}.jsonl", UNREADABLE_PROBLEM, str(error)))
            return
        except (DestinationError, Incomplete, StopIteration, KeyError, TypeError, ValueError) as error:
            self._add_finding(Finding(f"manifests/{self._name}.jsonl", "manifest", f"cannot be read: {error}"))
            return
        if not self._quick:
            await run_in_thread(self._check_completeness, version, set(read_defects(header)), set(self._list_damaged()))
        if is_current and not self._list_damaged() and (problem := self._find_pointer_problem(version)):
            self._add_finding(Finding(POINTER, "pointer", problem))
        if is_current and self._publication.latest() is None:
            self._add_finding(Finding("latest.json", "pointer", "is not there, or names no version"))

    def _add_finding(self, finding: Finding) -> None:
        self.findings.append(replace(finding, version=self._name))

    def _list_damaged(self) -> list[str]:
        return [finding.name for finding in self.findings if finding.problem not in {"manifest", "pointer"}]

    async def report_findings(self) -> bool:
        """Emit every finding with a file that refers to it, mark the bad files, and return whether they were marked."""
        referrers = dict[str, str]()
        if self._version is not None:
            names = [finding.name for finding in self.findings]
            referrers = await run_in_thread(self._scratch.references.find_referrers, self._version, names)
        for finding in sorted(self.findings, key=lambda finding: finding.name):
            self._observe(replace(finding, asked_by=finding.asked_by or referrers.get(finding.name, "")))
        self._stats.failed = len(self.findings)
        return await run_in_thread(self._mark_damaged, self._list_damaged())

    async def _check_files(self, version: Version, lines: Iterator[Mapping[str, Any]]) -> None:
        """Check every file, a few batches at a time: memory use stays constant, and every core has work."""
        self._stats.planned_bytes += version.summary.bytes
        self._stats.inventory_complete = True
        if version.summary.files >= MIN_FILES_FOR_WORKERS and not self._quick:
            self._verifier.request_start()
        if self._quick:
            await run_in_thread(self._files.prepare_listing, version)
        under_way: set[asyncio.Task[None]] = set()
        try:
            while batch := await run_in_thread(read_lines, lines, FILES_PER_BATCH):
                self._stats.listed += len(batch)
                under_way.add(asyncio.create_task(self._check_batch(version, batch)))
                if len(under_way) >= MAX_CONCURRENT_BATCHES:
                    done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()  # raises the error of the task, if any
            if under_way:
                for task in (await asyncio.wait(under_way))[0]:
                    task.result()
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
        if self._stats.listed != version.summary.files:
            problem = f"lists {self._stats.listed} files, but its first line says {version.summary.files}"
            self._add_finding(Finding(f"manifests/{version.name}.jsonl", "manifest", problem))

    async def _check_batch(self, version: Version, batch: list[StoredFile]) -> None:
        """Check a batch of files; record the references of the good ones in the scratch catalog."""
        if self._quick:
            results: list[Finding | FileResult | None] = await run_in_thread(self._check_sizes, version, batch)
        else:
            results = await self._verify_contents(version, batch)
        verified = [item for item in results if isinstance(item, FileResult)]
        findings = [item for item in results if isinstance(item, Finding)]
        if verified:
            await run_in_thread(self._scratch.add_stored_files, version, verified)
        for finding in findings:
            self._add_finding(finding)
        self._stats.failed += len(findings)
        self._stats.verified += len(batch) - len(findings)

    def _check_sizes(self, version: Version, batch: list[StoredFile]) -> list[Finding | FileResult | None]:
        return [check_size(self._files, version, stored) for stored in batch]

    async def _verify_contents(self, version: Version, batch: list[StoredFile]) -> list[Finding | FileResult | None]:
        """Verify the bytes of each file; a file on disk with several names (hard links) is read once."""
        known: dict[str, Finding | FileResult] = {}
        if self._has_earlier_versions:
            known.update(await run_in_thread(self._match_verified_before, version, batch))
        first = {_content_key(stored): stored for stored in reversed(batch) if stored.blob.name not in known}
        await self._verify_files(version, list(first.values()), known)
        if remaining := [stored for stored in batch if stored.blob.name not in known]:
            known.update(await run_in_thread(self._match_same_inode, version, remaining, first, known))
            await self._verify_files(version, [stored for stored in remaining if stored.blob.name not in known], known)
        return [known[stored.blob.name] for stored in batch]

    async def _verify_files(
        self, version: Version, files: list[StoredFile], known: dict[str, Finding | FileResult]
    ) -> None:
        results = await self._verifier.verify_files(version, files) if files else {}
        self._stats.transferred_bytes += sum(
            result.stored.size for result in results.values() if isinstance(result, FileResult)
        )
        known.update(results)

    def _match_same_inode(
        self,
        version: Version,
        files: list[StoredFile],
        first_by_content: Mapping[bytes | str, StoredFile],
        known: Mapping[str, Finding | FileResult],
    ) -> dict[str, Finding | FileResult]:
        """Return results for names that are hard links of a verified file and have no references of their own."""
        matched: dict[str, Finding | FileResult] = {}
        for stored in files:
            result = known[first_by_content[_content_key(stored)].blob.name]
            has_no_references = isinstance(result, FileResult) and not (
                result.content.references or result.content.diagnostics
            )
            if isinstance(result, FileResult) and has_no_references and result.stored.inode:
                stamp = self._files.stamp(version, stored.blob.name)
                if stamp == (result.stored.mtime_ns, result.stored.inode):
                    matched[stored.blob.name] = result._replace(
                        stored=result.stored._replace(blob=stored.blob, unpacked=stored.unpacked)
                    )
        return matched

    def _match_verified_before(self, version: Version, batch: list[StoredFile]) -> dict[str, FileResult]:
        """Return results for hard links of files verified in earlier versions, if their references are the same."""
        matched, copied = dict[str, FileResult](), list[Duplicate]()
        for name, duplicates in self._scratch.duplicates.find_by_sha256(
            replace(version, serial=ANY_VERSION_ID), batch
        ).items():
            stamp = self._files.stamp(version, name)
            for duplicate in duplicates:
                result = FileResult(0, duplicate.stored._replace(blob=duplicate.stored.blob._replace(name=name)))
                is_same_file = (
                    stamp is not None and stamp.inode and stamp == (duplicate.stored.mtime_ns, duplicate.stored.inode)
                )
                if is_same_file and (found := reuse_content(result, duplicate)):
                    matched[name] = found
                    copied += [duplicate] if found.has_more_references else []
                    break
        if copied:
            self._scratch.duplicates.copy_references(version, copied)
        return matched

    def _check_completeness(self, version: Version, known_defects: set[str], damaged: set[str]) -> None:
        """Add findings for missing and damaged files, except known defects and files that already have a finding."""
        self._stats.completeness = compute_completeness(version, self._scratch, self._files)
        report_diagnostics(version, self._scratch, self._observe)
        for damaged_file in list_unusable(version, self._scratch):
            if damaged_file.name in known_defects:
                self._observe(
                    Warned(f"already damaged when published: {damaged_file.name}: {describe_damage(damaged_file)}")
                )
            elif damaged_file.name not in damaged:
                self._add_finding(
                    Finding(damaged_file.name, "content", f"is damaged: {damaged_file.reason}", damaged_file.referrer)
                )
        for unmet in list_unmet(version, self._scratch, self._stats.completeness):
            if (
                unmet.name in known_defects
                if unmet.name
                else is_known_defect(unmet.subject, unmet.message, known_defects)
            ):
                self._observe(Warned(f"already missing when published: {unmet.message}"))
            elif unmet.name is None:
                self._add_finding(Finding(unmet.referrer, "reference", unmet.message))
            elif unmet.name not in damaged:
                self._add_finding(Finding(unmet.name, "missing", "is not there", unmet.referrer))

    def _find_pointer_problem(self, version: Version) -> str | None:
        prefix = self._publication.prefix(version)
        try:
            digest, files = self._publication.pointer_digest(), self._files
            is_current = digest == compute_pointer_digest(version, files, prefix)
            # Earlier releases did not rebase absolute URIs of the container.
            is_current = is_current or digest == compute_pointer_digest(
                replace(version, container_url=""), files, prefix
            )
            has_staged_files = self._publication.has_staged_files(version)
        except (DestinationError, BlobDamaged) as error:
            return f"cannot be compared with the root tileset: {error}"
        if has_staged_files:
            return f"names version {version.name}, but some files of that version are still in the state folder"
        return None if is_current else f"does not lead to version {version.name} as it was published"

    def _mark_damaged(self, damaged: list[str]) -> bool:
        """Mark bad files in the catalog for the next mirror run; return whether that was possible."""
        try:
            known = self._catalog.versions(name=self._name) if self._catalog is not None else []
            if self._catalog is not None and known:
                has_damage = any(finding.problem not in {"pointer", UNREADABLE_PROBLEM} for finding in self.findings)
                missing_names = {finding.name for finding in self.findings if finding.problem == "missing"}
                unreadable_names = {finding.name for finding in self.findings if finding.problem == UNREADABLE_PROBLEM}
                damaged = [name for name in damaged if name not in unreadable_names]
                self._catalog.mark_wanted(known[0], [name for name in damaged if name in missing_names])
                self._catalog.mark_wanted(
                    known[0], [name for name in damaged if name not in missing_names], include_linked=True
                )
                self._catalog.update_version(replace(known[0], damaged=has_damage or known[0].damaged))
                return True
        except DestinationError as error:
            self._observe(Warned(f"the findings could not be recorded for the next mirror: {error}"))
        return False
