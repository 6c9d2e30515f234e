"""Finishing: a version that is whole and complete gets its manifest; from then on it is never changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from tilesync.core import sidecar as notes
from tilesync.core.manifest import header, line, stamp
from tilesync.core.sidecar import Note
from tilesync.core.wording import counted, files
from tilesync.errors import Incomplete
from tilesync.events import Failed, GzipStored, Remarked
from tilesync.jobs.run.context import Run
from tilesync.jobs.versions.completeness import Unmet, rootless, settle, tell_remarks, unmet
from tilesync.jobs.versions.file_check import SPOOL
from tilesync.jobs.versions.gzip_files import GzipFiles
from tilesync.jobs.versions.soundness import bearable, is_of_the_scene, sentence, unusable
from tilesync.model import ROOT, Content, Unsound, Version
from tilesync.protocols import Destination
from tilesync.runtime.threads import in_thread, side_by_side

BATCH = 2000


class Publisher:
    """Judges versions of one destination, and finishes those that pass."""

    def __init__(self, destination: Destination, run: Run, *, allow_missing: bool) -> None:
        self._publication = destination.publication
        self._catalog = destination.catalog
        self._files = destination.files
        self._run = run
        self._allow_missing = allow_missing

    async def finish(self, version: Version, *, lacks: Collection[str] = ()) -> Version:
        """Finish a version of which everything is held: its files durable, its manifest in place. `lacks`: what it is
        known to ask for in vain, as names and sentences of a manifest.

        Raises Incomplete for one that is not whole, or not complete by meaning.
        """
        totals = self._catalog.totals(version)
        if totals.held_files != totals.files:
            raise Incomplete(f"{totals.files - totals.held_files} files are missing; this export was not published")
        if await in_thread(self._files.size, version, ROOT) is None:
            raise rootless()
        version = await in_thread(self._judge_completeness, version, lacks)
        published = version.published or stamp(self._run.clock.now())
        version = replace(
            version, published=published, damaged=False, files=totals.files, bytes=totals.bytes + totals.growth
        )
        return await in_thread(partial(self.seal, version, tells=True))

    def seal(self, version: Version, *, tells: bool = False) -> Version:
        """Make every file durable, then write the manifest; from here on the catalog knows the version as it is.
        `tells`: what a web server must say of its files is told.
        """
        gzip = GzipFiles()
        jobs: list[Callable[[], Any]] = [
            partial(self._publication.note, version, self._notes(version)),
            partial(self._publication.write_manifest, version, self._manifest(version, gzip)),
        ]
        _, sha256 = side_by_side(lambda job: job(), jobs, width=2)
        version = replace(version, manifest_sha256=sha256)
        self._catalog.update(version)
        if tells and not self._files.states_encoding and version.content is Content.STORED:
            count, endings = gzip.found(self._files, version)
            if count:
                self._run.observe(GzipStored(version.name, count, tuple(endings)))
        return version

    def _judge_completeness(self, version: Version, lacks: Collection[str]) -> Version:
        """The version with the counts of what it asks for. Missing files are an error, but for those that were missing
        when it was published before, here or where it is copied from.
        """
        found = settle(version, self._catalog, self._files)
        self._run.tally.completeness = found
        tell_remarks(version, self._catalog, self._run.observe)
        known = version.published is not None and found.missing <= version.completeness.missing
        broken = self._judge_soundness(version, lacks)
        useless = {each.name for each in broken}
        absent = blind = 0
        first, empty = "", False
        for each in unmet(version, self._catalog):
            allowed = self._allow_missing or known or (each.name or each.message) in lacks
            if each.name is None and each.where in useless:
                continue  # what it says cannot be followed since it is broken
            if allowed:
                self._run.observe(Remarked(each.where, "missing", each.message))
                continue
            self._run.observe(Failed(each.where, "BlobMissing", each.message))
            if each.name is None:
                blind, first = blind + 1, first or each.message
            else:
                absent, empty = absent + 1, empty or each.held
        led = self._judge_where_it_leads(version, lacks)
        problems = [*_missing(absent, empty=empty), *_unreadable(blind, first), *_broken(broken), *_leading_away(led)]
        if problems:
            what, hints = ("; ".join(parts) for parts in zip(*problems, strict=True))
            raise Incomplete(what, hint=f"this export was not published; {hints}")
        return replace(version, completeness=found)

    def _judge_where_it_leads(self, version: Version, lacks: Collection[str]) -> int:
        """Tell the files that lead viewers of a copy elsewhere; how many they are, where that is an error."""
        if self._allow_missing or version.published is not None:
            return 0
        failed = 0
        for name, where in self._catalog.references.leading_away(version):
            if (message := f"{name}: {where}") not in lacks:
                self._run.observe(Failed(name, "LeadsAway", message))
                failed += 1
        return failed

    def _judge_soundness(self, version: Version, lacks: Collection[str]) -> list[Unsound]:
        """Tell the broken files that something asks for, and return those that are errors. They are not held any
        more, so that the next run fetches them anew. What was published before may have been so on request.
        """
        failed, bears = list[Unsound](), self._allow_missing or version.published is not None
        for each in unusable(version, self._catalog):
            if each.name in lacks or (bears and not is_of_the_scene(each)):
                self._run.observe(Remarked(each.name, "damaged", sentence(each)))
                continue
            self._run.observe(Failed(each.name, "BlobDamaged", f"{each.name}: {sentence(each)}"))
            failed.append(each)
        self._catalog.release(version, [each.name for each in failed])
        self._run.tally.fail(len(failed))
        return failed

    def missing(self, version: Version) -> list[str]:
        """The names that a published version asks for and that its container did not have."""
        return [each.name for each in self._unmet(version) if each.name is not None and not each.held]

    def _elsewhere(self, version: Version) -> list[str]:
        """Sentences on the files that lead viewers of a copy elsewhere, and are published all the same."""
        if not version.completeness.unfollowed:
            return []
        self._catalog.references.settle(version)
        return [f"{name}: {where}" for name, where in self._catalog.references.leading_away(version)]

    def _damaged(self, version: Version) -> list[str]:
        """The names of the broken files that are published all the same."""
        if not self._catalog.references.is_doubtful(version):
            return []
        self._catalog.references.settle(version)
        names = [name for name, _ in bearable(version, self._catalog)]
        return sorted({*names, *(each.name for each in unusable(version, self._catalog))})

    def _unmet(self, version: Version) -> list[Unmet]:
        if not version.completeness.missing:
            return []
        self._catalog.references.settle(version)
        return list(unmet(version, self._catalog))

    def _notes(self, version: Version) -> Iterator[Mapping[str, Any]]:
        after = ""
        while batch := self._catalog.held(version, after, limit=BATCH):
            after = batch[-1][0]
            traces = {held.blob.name: held.mtime_ns for _, held in batch}
            for name, reading in self._catalog.references.told(version, list(traces), together=SPOOL):
                yield notes.line(Note(name, traces[name], reading))

    def _manifest(self, version: Version, gzip: GzipFiles) -> Iterator[Mapping[str, Any]]:
        lost = self._unmet(version)
        yield header(
            version,
            [each.name for each in lost if each.name is not None],
            [each.message for each in lost if each.name is None],
            damaged=self._damaged(version),
            elsewhere=self._elsewhere(version),
        )
        after = ""
        while batch := self._catalog.held(version, after, limit=BATCH):
            after = batch[-1][0]
            for _, held in batch:
                gzip.add(held)
                yield line(held)


_Problem = tuple[str, str]
"""What is wrong, and what helps."""


def _missing(count: int, *, empty: bool) -> Iterator[_Problem]:
    """Files that are asked for in vain; `empty`: some are there, without bytes."""
    if count:
        state = f"not in the container{', or empty' if empty else ''}"
        what = f"{files(count)} that the tilesets ask for {'is' if count == 1 else 'are'} {state}"
        yield what, "if the export was made so, run again with --allow-missing"


def _unreadable(count: int, first: str) -> Iterator[_Problem]:
    """References that no copy can follow."""
    if count:
        what = f"{counted(count, 'reference')} of the tilesets cannot be followed ({first})"
        hint = "what lies behind such a reference is lost: make the export anew, or publish without (--allow-missing)"
        yield what, hint


def _broken(broken: Collection[Unsound]) -> Iterator[_Problem]:
    """Files that lie here and are of no use for who asks for them."""
    if not broken:
        return
    what = f"{files(len(broken))} that the tilesets ask for {'is' if len(broken) == 1 else 'are'} broken"
    if any(each.name == ROOT for each in broken):
        way = "no viewer can show: make the export anew"
    elif any(is_of_the_scene(each) for each in broken):
        way = "can be left out with --exclude NAME"
    else:
        way = "is published with --allow-missing, or left out with --exclude NAME"
    yield what, f"the next run fetches broken files anew; what the container itself holds so {way}"


def _leading_away(count: int) -> Iterator[_Problem]:
    """Files that lead viewers of a copy elsewhere."""
    if count:
        what = f"{files(count)} of the tileset {'leads' if count == 1 else 'lead'} viewers of a copy elsewhere"
        hint = (
            "such URIs end with the link, or are none of this container; with --allow-missing it is published as it is"
        )
        yield what, hint
