"""A destination whose catalog was lost: told again by its manifests and its bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from tilesync.core.manifest import format_timestamp, read_header, read_line
from tilesync.core.safe_names import collect_folders
from tilesync.core.sidecar import SidecarEntry
from tilesync.core.sidecar import read_line as read_note
from tilesync.errors import BlobDamaged, DestinationError, Incomplete, Unreadable
from tilesync.events import Notice, Warned
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.versions.file_check import check_stored_file
from tilesync.model import FileResult, StoredFile, Version
from tilesync.protocols import Destination
from tilesync.runtime.task_groups import gather_or_cancel
from tilesync.runtime.threads import run_in_thread

FILES_PER_BATCH = 1000

FILES_PER_THREAD_CALL = 32
"""Files that are read in one hop, others beside them."""


async def rebuild_catalog(destination: Destination, version_names: Iterable[str], run: RunContext) -> None:
    """Take every version that has a manifest, those `there`, into the catalog; each file counts as held only if its
    SHA-256 is right.

    A manifest that cannot be read is reported, and its version left alone. Begins anew when it was interrupted.
    """
    for half in destination.catalog.versions():
        destination.catalog.delete_version(half)
    for name in sorted(version_names):
        run.observe(Notice(f"no catalog here: looking at version {name} again to see what is held"))
        await rebuild_version(destination, name, run)
    destination.catalog.set_value("adopted", "yes")


async def rebuild_version(destination: Destination, name: str, run: RunContext) -> None:
    """Take one version that has a manifest into the catalog; one that cannot be read is reported. When the pointer left
    it nobody knows: it counts as left just now.
    """
    latest = await run_in_thread(destination.publication.latest) or {}
    try:
        version = await _read_version(destination, name)
    except Unreadable:  # what may not be looked at is not lost: it is not fetched again
        for half in destination.catalog.versions(name=name):
            destination.catalog.delete_version(half)
        raise
    except (DestinationError, Incomplete, StopIteration, KeyError, TypeError, ValueError) as error:
        run.observe(Warned(f"version {name} cannot be taken over ({error}); its files stay where they are"))
        for half in destination.catalog.versions(name=name):
            destination.catalog.delete_version(half)
    else:
        left = format_timestamp(run.clock.now()) if name != latest.get("version") else None
        destination.catalog.update_version(replace(version, replaced_at=left))


async def _read_version(destination: Destination, name: str) -> Version:
    catalog, lines = destination.catalog, destination.publication.manifest(name)
    first = await run_in_thread(next, lines, None)
    if first is None:
        raise ValueError("it is empty")
    version = catalog.add_version(read_header(first, name=name))
    noted, whole = await run_in_thread(_SidecarReader, destination, version), True
    while batch := await run_in_thread(_parse_lines, lines):
        destination.files.check_names(held.blob.name for held in batch)
        found = await run_in_thread(noted.match_unchanged, batch)
        rest = [held for held in batch if held.blob.name not in found]
        groups = [rest[start : start + FILES_PER_THREAD_CALL] for start in range(0, len(rest), FILES_PER_THREAD_CALL)]
        for read in await gather_or_cancel(
            run_in_thread(_check_files, destination, version, group) for group in groups
        ):
            found.update(read)
        lost = [(held.blob, None) for held in batch if held.blob.name not in found]
        whole = whole and not lost
        catalog.add_page(version, lost, collect_folders(held.blob.name for held in batch))
        await run_in_thread(catalog.add_stored_files, version, list(found.values()))
    catalog.finish_listing(version)
    return replace(version, damaged=not whole)


def _parse_lines(lines: Iterator[Mapping[str, Any]]) -> list[StoredFile]:
    return [read_line(said) for said in islice(lines, FILES_PER_BATCH)]


def _check_files(destination: Destination, version: Version, files: Sequence[StoredFile]) -> dict[str, FileResult]:
    found = ((held.blob.name, _check_file(destination, version, held)) for held in files)
    return {name: arrival for name, arrival in found if arrival is not None}


class _SidecarReader:
    """What was noted of the files of a version, in the order of its manifest: those that lie there as they were left
    need not be read. Notes that make no sense are none.
    """

    def __init__(self, destination: Destination, version: Version) -> None:
        self._files = destination.files
        self._references = destination.catalog.references
        self._version = version
        self._lines = destination.publication.read_sidecar(version)
        self._next_entry: SidecarEntry | None = self._read_entry()

    def _read_entry(self) -> SidecarEntry | None:
        try:
            said = next(self._lines, None) if self._lines is not None else None
            return read_note(said) if said is not None else None
        except (KeyError, TypeError, ValueError):
            self._lines = None
            return None

    def match_unchanged(self, batch: Sequence[StoredFile]) -> dict[str, FileResult]:
        """Those of a batch that are there as they were left, with what they say, by name."""
        known: dict[str, FileResult] = {}
        for held in batch:
            name = held.blob.name
            if self._next_entry is None or self._next_entry.name != name:
                continue
            note, partly = self._next_entry, False
            while (following := self._read_entry()) is not None and following.name == name:
                self._references.add(self._version, name, following.content, replace_existing=not partly)
                partly = True
            self._next_entry = following
            known[name] = FileResult(0, held._replace(mtime_ns=note.stamp), note.content, has_more_references=partly)
        same = self._files.unchanged(self._version, [each.stored for each in known.values()])
        return {name: each for (name, each), is_same in zip(known.items(), same, strict=True) if is_same}


def _check_file(destination: Destination, version: Version, stored: StoredFile) -> FileResult | None:
    """The file with its mtime and what it asks for, when its bytes are those of the manifest."""
    if destination.files.size(version, stored.blob.name) != stored.size:
        return None
    try:
        found = check_stored_file(
            destination.files, destination.catalog.references, version, stored, compare_md5=not stored.sha256
        )
    except BlobDamaged:
        return None
    if found is None or stored.sha256 not in {found.stored.sha256, b""}:
        return None
    return FileResult(0, found.stored, found.content, has_more_references=found.has_more_references)
