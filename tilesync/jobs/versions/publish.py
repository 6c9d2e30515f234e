"""Publish a version: check that it is complete and sound, then write its manifest; after that it never changes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from tilesync.core.manifest import encode_files, encode_line, format_timestamp, is_known_defect, make_header
from tilesync.core.sidecar import SidecarEntry, encode_entry
from tilesync.core.wording import format_count, format_file_count
from tilesync.errors import Incomplete
from tilesync.events import DiagnosticReported, FileFailed, GzipStored
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.versions.completeness import (
    UnmetReference,
    compute_completeness,
    describe_damage,
    is_essential,
    list_tolerated,
    list_unmet,
    list_unusable,
    missing_root_error,
    report_diagnostics,
)
from tilesync.jobs.versions.file_check import MAX_REFERENCES_IN_MEMORY
from tilesync.jobs.versions.gzip_files import GzipFileCounter
from tilesync.model import ROOT, Content, DamagedFile, Version
from tilesync.protocols import Destination
from tilesync.runtime.threads import map_in_threads, run_in_thread

ROWS_PER_QUERY = 2000


class Publisher:
    """Checks versions of one destination, and publishes those that pass."""

    def __init__(self, destination: Destination, run: RunContext, *, allow_missing: bool) -> None:
        self._publication = destination.publication
        self._catalog = destination.catalog
        self._files = destination.files
        self._run = run
        self._allow_missing = allow_missing

    async def finish(self, version: Version, *, defects: Collection[str] = ()) -> Version:
        """Publish a version whose files are all stored: make them durable, then write the manifest.

        `defects`: known defects of the version it is copied from, as names and sentences of a manifest.

        Raises Incomplete if files are missing or damaged, or references lead nowhere.
        """
        totals = self._catalog.compute_totals(version)
        if totals.stored_files != totals.files:
            raise Incomplete(f"{totals.files - totals.stored_files} files are missing; this export was not published")
        if await run_in_thread(self._files.size, version, ROOT) is None:
            raise missing_root_error()
        version = await run_in_thread(self._check_completeness, version, defects)
        published = version.summary.published_at or format_timestamp(self._run.clock.now())
        version = replace(version, damaged=False).with_summary(
            published_at=published, files=totals.files, bytes=totals.bytes + totals.growth_bytes
        )
        return await run_in_thread(partial(self.seal, version, report_gzip=True))

    def seal(self, version: Version, *, report_gzip: bool = False) -> Version:
        """Make every file durable, write sidecar and manifest, and update the catalog.

        `report_gzip`: emit an event if a web server must send `Content-Encoding: gzip` for some files.
        """
        gzip_counter = GzipFileCounter()
        jobs: list[Callable[[], Any]] = [
            partial(self._publication.write_sidecar, version, self._make_sidecar(version)),
            partial(self._publication.write_manifest, version, self._make_manifest(version, gzip_counter)),
        ]
        _, sha256 = map_in_threads(lambda job: job(), jobs, max_threads=2)
        version = version.with_summary(manifest_sha256=sha256)
        self._catalog.update_version(version)
        if report_gzip and not self._files.states_encoding and version.content is Content.STORED:
            count, suffixes = gzip_counter.count_gzip(self._files, version)
            if count:
                self._run.observe(GzipStored(version.name, count, tuple(suffixes)))
        return version

    def _check_completeness(self, version: Version, defects: Collection[str]) -> Version:
        """Return the version with its completeness counts; raise Incomplete if it must not be published.

        Defects that it had when it was published before, here or where it is copied from, are no error.
        """
        completeness = compute_completeness(version, self._catalog, self._files)
        self._run.stats.completeness = completeness
        report_diagnostics(version, self._catalog, self._run.observe)
        has_known_gaps = version.is_published and completeness.missing <= version.summary.completeness.missing
        damaged = self._release_unusable(version, defects)
        damaged_names = {each.name for each in damaged}
        missing_count = unreadable_count = 0
        first_message, includes_empty = "", False
        for each in list_unmet(version, self._catalog, completeness):
            known = each.name in defects if each.name else is_known_defect(each.subject, each.message, defects)
            allowed = self._allow_missing or has_known_gaps or known
            if each.name is None and each.subject in damaged_names:
                continue  # already reported as damaged, so its references cannot be followed
            if allowed:
                self._run.observe(DiagnosticReported(each.subject, "missing", each.message))
                continue
            self._run.observe(FileFailed(each.subject, "BlobMissing", each.message))
            if each.name is None:
                unreadable_count, first_message = unreadable_count + 1, first_message or each.message
            else:
                missing_count, includes_empty = missing_count + 1, includes_empty or each.is_stored
        elsewhere_count = self._report_leading_elsewhere(version, defects)
        problems = [
            *_missing_problem(missing_count, includes_empty=includes_empty),
            *_unreadable_problem(unreadable_count, first_message),
            *_damaged_problem(damaged),
            *_leading_elsewhere_problem(elsewhere_count),
        ]
        if problems:
            message, hints = ("; ".join(parts) for parts in zip(*problems, strict=True))
            raise Incomplete(message, hint=f"this export was not published; {hints}")
        return version.with_summary(completeness=completeness)

    def _report_leading_elsewhere(self, version: Version, defects: Collection[str]) -> int:
        """Report the files that lead viewers of a copy elsewhere; return their number if that is an error, else 0."""
        if self._allow_missing or version.is_published:
            return 0
        failed = 0
        for name, where in self._catalog.references.list_leading_elsewhere(version):
            if not is_known_defect(name, message := f"{name}: {where}", defects):
                self._run.observe(FileFailed(name, "LeadsAway", message))
                failed += 1
        return failed

    def _release_unusable(self, version: Version, defects: Collection[str]) -> list[DamagedFile]:
        """Report the damaged files that something refers to, and return those that are errors.

        Errors count as not stored any more, so that the next run fetches them again. A version that was published
        before may have used --allow-missing, so its damaged files are errors only if the scene depends on them.
        """
        failed, tolerates = list[DamagedFile](), self._allow_missing or version.is_published
        for each in list_unusable(version, self._catalog):
            if each.name in defects or (tolerates and not is_essential(each)):
                self._run.observe(DiagnosticReported(each.name, "damaged", describe_damage(each)))
                continue
            self._run.observe(FileFailed(each.name, "BlobDamaged", f"{each.name}: {describe_damage(each)}"))
            failed.append(each)
        self._catalog.mark_wanted(version, [each.name for each in failed])
        self._run.stats.reclassify_as_failed(len(failed))
        return failed

    def list_missing(self, version: Version) -> list[str]:
        """List the names that a published version refers to and that its container did not have."""
        return [each.name for each in self._list_unmet(version) if each.name is not None and not each.is_stored]

    def _describe_leading_elsewhere(self, version: Version) -> list[str]:
        """List, for the manifest, a sentence for each published file that leads viewers of a copy elsewhere."""
        if not version.summary.completeness.unfollowed:
            return []
        self._catalog.references.compute_completeness(version)
        return [f"{name}: {where}" for name, where in self._catalog.references.list_leading_elsewhere(version)]

    def _list_damaged(self, version: Version) -> list[str]:
        """List, for the manifest, the names of the damaged files that are published anyway."""
        if not self._catalog.references.has_suspect_files(version):
            return []
        self._catalog.references.compute_completeness(version)
        names = [name for name, _ in list_tolerated(version, self._catalog)]
        return sorted({*names, *(each.name for each in list_unusable(version, self._catalog))})

    def _list_unmet(self, version: Version) -> list[UnmetReference]:
        if not version.summary.completeness.missing:
            return []
        return list(list_unmet(version, self._catalog, self._catalog.references.compute_completeness(version)))

    def _make_sidecar(self, version: Version) -> Iterator[bytes]:
        """Make the sidecar index, line by line."""
        after = ""
        while batch := self._catalog.unchanged.list_stamps(version, after, limit=ROWS_PER_QUERY):
            after = batch[-1][0]
            mtimes_ns = {recorded.name: recorded.mtime_ns for _, recorded in batch}
            for name, content in self._catalog.references.read_contents(
                version, list(mtimes_ns), references_per_part=MAX_REFERENCES_IN_MEMORY
            ):
                yield encode_entry(SidecarEntry(name, mtimes_ns[name], content))

    def _make_manifest(self, version: Version, gzip: GzipFileCounter) -> Iterator[bytes]:
        """Make the manifest, in pieces of whole lines."""
        unmet = self._list_unmet(version)
        yield encode_line(
            make_header(
                version,
                [each.name for each in unmet if each.name is not None],
                [each.message for each in unmet if each.name is None],
                damaged=self._list_damaged(version),
                elsewhere=self._describe_leading_elsewhere(version),
            )
        )
        after = ""
        while batch := self._catalog.list_stored(version, after, limit=ROWS_PER_QUERY):
            after = batch[-1][0]
            files = [stored for _, stored in batch]
            for stored in files:
                gzip.add(stored)
            yield encode_files(files)


_Problem = tuple[str, str]
"""A message and its hint."""


def _missing_problem(count: int, *, includes_empty: bool) -> Iterator[_Problem]:
    """Describe files that are referred to but missing; `includes_empty`: some are there, without bytes."""
    if count:
        state = f"not in the container{', or empty' if includes_empty else ''}"
        message = f"{format_file_count(count)} that the tilesets refer to {'is' if count == 1 else 'are'} {state}"
        yield message, "if the export itself lacks them, publish it with --allow-missing"


def _unreadable_problem(count: int, first_message: str) -> Iterator[_Problem]:
    """Describe references that no copy can follow."""
    if count:
        message = f"{format_count(count, 'reference')} of the tilesets cannot be followed ({first_message})"
        hint = "a copy lacks the tiles behind such references: create the export again, or publish with --allow-missing"
        yield message, hint


def _damaged_problem(damaged: Collection[DamagedFile]) -> Iterator[_Problem]:
    """Describe stored files that are damaged or unusable."""
    if not damaged:
        return
    message = (
        f"{format_file_count(len(damaged))} that the tilesets refer to {'is' if len(damaged) == 1 else 'are'} damaged"
    )
    if any(each.name == ROOT for each in damaged):
        advice = "no viewer can show this export: create it again"
    elif any(is_essential(each) for each in damaged):
        advice = "leave them out with --exclude NAME"
    else:
        advice = "publish them with --allow-missing, or leave them out with --exclude NAME"
    yield message, f"the next run fetches damaged files again; if they are damaged in the container too, {advice}"


def _leading_elsewhere_problem(count: int) -> Iterator[_Problem]:
    """Describe files that lead viewers of a copy elsewhere."""
    if count:
        message = (
            f"{format_file_count(count)} of the tileset {'leads' if count == 1 else 'lead'} viewers of a copy elsewhere"
        )
        hint = (
            "such URIs expire with the link, or point outside the container; --allow-missing publishes them unchanged"
        )
        yield message, hint
