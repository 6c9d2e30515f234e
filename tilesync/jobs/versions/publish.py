"""Finishing: a version that is whole and complete gets its manifest; from then on it is never changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from tilesync.core import sidecar as notes
from tilesync.core.manifest import format_timestamp, make_header, make_line
from tilesync.core.sidecar import SidecarEntry
from tilesync.core.wording import format_count, format_file_count
from tilesync.errors import Incomplete
from tilesync.events import DiagnosticReported, FileFailed, GzipStored
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.versions.completeness import (
    UnmetReference,
    compute_completeness,
    list_unmet,
    missing_root_error,
    report_diagnostics,
)
from tilesync.jobs.versions.file_check import MAX_REFERENCES_IN_MEMORY
from tilesync.jobs.versions.gzip_files import GzipFileCounter
from tilesync.jobs.versions.soundness import describe_damage, is_essential, list_tolerated, list_unusable
from tilesync.model import ROOT, Content, DamagedFile, Version
from tilesync.protocols import Destination
from tilesync.runtime.threads import map_in_threads, run_in_thread

ROWS_PER_QUERY = 2000


class Publisher:
    """Judges versions of one destination, and finishes those that pass."""

    def __init__(self, destination: Destination, run: RunContext, *, allow_missing: bool) -> None:
        self._publication = destination.publication
        self._catalog = destination.catalog
        self._files = destination.files
        self._run = run
        self._allow_missing = allow_missing

    async def finish(self, version: Version, *, defects: Collection[str] = ()) -> Version:
        """Finish a version of which everything is held: its files durable, its manifest in place. `lacks`: what it is
        known to ask for in vain, as names and sentences of a manifest.

        Raises Incomplete for one that is not whole, or not complete by meaning.
        """
        totals = self._catalog.compute_totals(version)
        if totals.stored_files != totals.files:
            raise Incomplete(f"{totals.files - totals.stored_files} files are missing; this export was not published")
        if await run_in_thread(self._files.size, version, ROOT) is None:
            raise missing_root_error()
        version = await run_in_thread(self._check_completeness, version, defects)
        published = version.published_at or format_timestamp(self._run.clock.now())
        version = replace(
            version, published_at=published, damaged=False, files=totals.files, bytes=totals.bytes + totals.growth_bytes
        )
        return await run_in_thread(partial(self.seal, version, report_gzip=True))

    def seal(self, version: Version, *, report_gzip: bool = False) -> Version:
        """Make every file durable, then write the manifest; from here on the catalog knows the version as it is.
        `tells`: what a web server must say of its files is told.
        """
        gzip = GzipFileCounter()
        jobs: list[Callable[[], Any]] = [
            partial(self._publication.write_sidecar, version, self._make_sidecar_lines(version)),
            partial(self._publication.write_manifest, version, self._make_manifest_lines(version, gzip)),
        ]
        _, sha256 = map_in_threads(lambda job: job(), jobs, max_threads=2)
        version = replace(version, manifest_sha256=sha256)
        self._catalog.update_version(version)
        if report_gzip and not self._files.states_encoding and version.content is Content.STORED:
            count, endings = gzip.count_gzip(self._files, version)
            if count:
                self._run.observe(GzipStored(version.name, count, tuple(endings)))
        return version

    def _check_completeness(self, version: Version, defects: Collection[str]) -> Version:
        """The version with the counts of what it asks for. Missing files are an error, but for those that were missing
        when it was published before, here or where it is copied from.
        """
        found = compute_completeness(version, self._catalog, self._files)
        self._run.stats.completeness = found
        report_diagnostics(version, self._catalog, self._run.observe)
        known = version.published_at is not None and found.missing <= version.completeness.missing
        broken = self._release_unusable(version, defects)
        useless = {each.name for each in broken}
        absent = blind = 0
        first, empty = "", False
        for each in list_unmet(version, self._catalog):
            allowed = self._allow_missing or known or (each.name or each.message) in defects
            if each.name is None and each.subject in useless:
                continue  # what it says cannot be followed since it is broken
            if allowed:
                self._run.observe(DiagnosticReported(each.subject, "missing", each.message))
                continue
            self._run.observe(FileFailed(each.subject, "BlobMissing", each.message))
            if each.name is None:
                blind, first = blind + 1, first or each.message
            else:
                absent, empty = absent + 1, empty or each.is_stored
        led = self._report_leading_elsewhere(version, defects)
        problems = [
            *_missing_problem(absent, includes_empty=empty),
            *_unreadable_problem(blind, first),
            *_damaged_problem(broken),
            *_leading_elsewhere_problem(led),
        ]
        if problems:
            what, hints = ("; ".join(parts) for parts in zip(*problems, strict=True))
            raise Incomplete(what, hint=f"this export was not published; {hints}")
        return replace(version, completeness=found)

    def _report_leading_elsewhere(self, version: Version, defects: Collection[str]) -> int:
        """Tell the files that lead viewers of a copy elsewhere; how many they are, where that is an error."""
        if self._allow_missing or version.published_at is not None:
            return 0
        failed = 0
        for name, where in self._catalog.references.list_leading_elsewhere(version):
            if (message := f"{name}: {where}") not in defects:
                self._run.observe(FileFailed(name, "LeadsAway", message))
                failed += 1
        return failed

    def _release_unusable(self, version: Version, defects: Collection[str]) -> list[DamagedFile]:
        """Tell the broken files that something asks for, and return those that are errors. They are not held any
        more, so that the next run fetches them anew. What was published before may have been so on request.
        """
        failed, bears = list[DamagedFile](), self._allow_missing or version.published_at is not None
        for each in list_unusable(version, self._catalog):
            if each.name in defects or (bears and not is_essential(each)):
                self._run.observe(DiagnosticReported(each.name, "damaged", describe_damage(each)))
                continue
            self._run.observe(FileFailed(each.name, "BlobDamaged", f"{each.name}: {describe_damage(each)}"))
            failed.append(each)
        self._catalog.mark_wanted(version, [each.name for each in failed])
        self._run.stats.reclassify_as_failed(len(failed))
        return failed

    def list_missing(self, version: Version) -> list[str]:
        """The names that a published version asks for and that its container did not have."""
        return [each.name for each in self._list_unmet(version) if each.name is not None and not each.is_stored]

    def _describe_leading_elsewhere(self, version: Version) -> list[str]:
        """Sentences on the files that lead viewers of a copy elsewhere, and are published all the same."""
        if not version.completeness.unfollowed:
            return []
        self._catalog.references.compute_completeness(version)
        return [f"{name}: {where}" for name, where in self._catalog.references.list_leading_elsewhere(version)]

    def _list_damaged(self, version: Version) -> list[str]:
        """The names of the broken files that are published all the same."""
        if not self._catalog.references.has_suspect_files(version):
            return []
        self._catalog.references.compute_completeness(version)
        names = [name for name, _ in list_tolerated(version, self._catalog)]
        return sorted({*names, *(each.name for each in list_unusable(version, self._catalog))})

    def _list_unmet(self, version: Version) -> list[UnmetReference]:
        if not version.completeness.missing:
            return []
        self._catalog.references.compute_completeness(version)
        return list(list_unmet(version, self._catalog))

    def _make_sidecar_lines(self, version: Version) -> Iterator[Mapping[str, Any]]:
        after = ""
        while batch := self._catalog.list_stored(version, after, limit=ROWS_PER_QUERY):
            after = batch[-1][0]
            traces = {held.blob.name: held.mtime_ns for _, held in batch}
            for name, reading in self._catalog.references.read_contents(
                version, list(traces), references_per_part=MAX_REFERENCES_IN_MEMORY
            ):
                yield notes.make_line(SidecarEntry(name, traces[name], reading))

    def _make_manifest_lines(self, version: Version, gzip: GzipFileCounter) -> Iterator[Mapping[str, Any]]:
        lost = self._list_unmet(version)
        yield make_header(
            version,
            [each.name for each in lost if each.name is not None],
            [each.message for each in lost if each.name is None],
            damaged=self._list_damaged(version),
            elsewhere=self._describe_leading_elsewhere(version),
        )
        after = ""
        while batch := self._catalog.list_stored(version, after, limit=ROWS_PER_QUERY):
            after = batch[-1][0]
            for _, held in batch:
                gzip.add(held)
                yield make_line(held)


_Problem = tuple[str, str]
"""What is wrong, and what helps."""


def _missing_problem(count: int, *, includes_empty: bool) -> Iterator[_Problem]:
    """Files that are asked for in vain; `empty`: some are there, without bytes."""
    if count:
        state = f"not in the container{', or empty' if includes_empty else ''}"
        what = f"{format_file_count(count)} that the tilesets ask for {'is' if count == 1 else 'are'} {state}"
        yield what, "if the export was made so, run again with --allow-missing"


def _unreadable_problem(count: int, first_message: str) -> Iterator[_Problem]:
    """References that no copy can follow."""
    if count:
        what = f"{format_count(count, 'reference')} of the tilesets cannot be followed ({first_message})"
        hint = "what lies behind such a reference is lost: make the export anew, or publish without (--allow-missing)"
        yield what, hint


def _damaged_problem(damaged: Collection[DamagedFile]) -> Iterator[_Problem]:
    """Files that lie here and are of no use for who asks for them."""
    if not damaged:
        return
    what = f"{format_file_count(len(damaged))} that the tilesets ask for {'is' if len(damaged) == 1 else 'are'} broken"
    if any(each.name == ROOT for each in damaged):
        way = "no viewer can show: make the export anew"
    elif any(is_essential(each) for each in damaged):
        way = "can be left out with --exclude NAME"
    else:
        way = "is published with --allow-missing, or left out with --exclude NAME"
    yield what, f"the next run fetches broken files anew; what the container itself holds so {way}"


def _leading_elsewhere_problem(count: int) -> Iterator[_Problem]:
    """Files that lead viewers of a copy elsewhere."""
    if count:
        what = (
            f"{format_file_count(count)} of the tileset {'leads' if count == 1 else 'lead'} viewers of a copy elsewhere"
        )
        hint = (
            "such URIs end with the link, or are none of this container; with --allow-missing it is published as it is"
        )
        yield what, hint
