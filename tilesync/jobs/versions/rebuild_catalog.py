"""A destination whose catalog was lost: told again by its manifests and its bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from tilesync.core.manifest import read_header, read_line, stamp
from tilesync.core.safe_names import folders_of
from tilesync.core.sidecar import Note
from tilesync.core.sidecar import read_line as read_note
from tilesync.errors import BlobDamaged, DestinationError, Incomplete, Unreadable
from tilesync.events import Notice, Warned
from tilesync.jobs.run.context import Run
from tilesync.jobs.versions.file_check import examine_held
from tilesync.model import Arrival, Held, Version
from tilesync.protocols import Destination
from tilesync.runtime.task_groups import gathered
from tilesync.runtime.threads import in_thread

BATCH = 1000

TOGETHER = 32
"""Files that are read in one hop, others beside them."""


async def adopt(destination: Destination, there: Iterable[str], run: Run) -> None:
    """Take every version that has a manifest, those `there`, into the catalog; each file counts as held only if its
    SHA-256 is right.

    A manifest that cannot be read is reported, and its version left alone. Begins anew when it was interrupted.
    """
    for half in destination.catalog.versions():
        destination.catalog.forget(half)
    for name in sorted(there):
        run.observe(Notice(f"no catalog here: looking at version {name} again to see what is held"))
        await adopt_version(destination, name, run)
    destination.catalog.remember("adopted", "yes")


async def adopt_version(destination: Destination, name: str, run: Run) -> None:
    """Take one version that has a manifest into the catalog; one that cannot be read is reported. When the pointer left
    it nobody knows: it counts as left just now.
    """
    latest = await in_thread(destination.publication.latest) or {}
    try:
        version = await _adopt(destination, name)
    except Unreadable:  # what may not be looked at is not lost: it is not fetched again
        for half in destination.catalog.versions(name=name):
            destination.catalog.forget(half)
        raise
    except (DestinationError, Incomplete, StopIteration, KeyError, TypeError, ValueError) as error:
        run.observe(Warned(f"version {name} cannot be taken over ({error}); its files stay where they are"))
        for half in destination.catalog.versions(name=name):
            destination.catalog.forget(half)
    else:
        left = stamp(run.clock.now()) if name != latest.get("version") else None
        destination.catalog.update(replace(version, left=left))


async def _adopt(destination: Destination, name: str) -> Version:
    catalog, lines = destination.catalog, destination.publication.manifest(name)
    first = await in_thread(next, lines, None)
    if first is None:
        raise ValueError("it is empty")
    version = catalog.begin(read_header(first, name=name))
    noted, whole = await in_thread(_Noted, destination, version), True
    while batch := await in_thread(_parsed, lines):
        destination.files.judge(held.blob.name for held in batch)
        found = await in_thread(noted.take, batch)
        rest = [held for held in batch if held.blob.name not in found]
        groups = [rest[start : start + TOGETHER] for start in range(0, len(rest), TOGETHER)]
        for read in await gathered(in_thread(_read, destination, version, group) for group in groups):
            found.update(read)
        lost = [(held.blob, None) for held in batch if held.blob.name not in found]
        whole = whole and not lost
        catalog.add_page(version, lost, folders_of(held.blob.name for held in batch))
        await in_thread(catalog.add_held, version, list(found.values()))
    catalog.finish_listing(version)
    return replace(version, damaged=not whole)


def _parsed(lines: Iterator[Mapping[str, Any]]) -> list[Held]:
    return [read_line(said) for said in islice(lines, BATCH)]


def _read(destination: Destination, version: Version, some: Sequence[Held]) -> dict[str, Arrival]:
    found = ((held.blob.name, _found(destination, version, held)) for held in some)
    return {name: arrival for name, arrival in found if arrival is not None}


class _Noted:
    """What was noted of the files of a version, in the order of its manifest: those that lie there as they were left
    need not be read. Notes that make no sense are none.
    """

    def __init__(self, destination: Destination, version: Version) -> None:
        self._files = destination.files
        self._references = destination.catalog.references
        self._version = version
        self._lines = destination.publication.noted(version)
        self._next: Note | None = self._read()

    def _read(self) -> Note | None:
        try:
            said = next(self._lines, None) if self._lines is not None else None
            return read_note(said) if said is not None else None
        except (KeyError, TypeError, ValueError):
            self._lines = None
            return None

    def take(self, batch: Sequence[Held]) -> dict[str, Arrival]:
        """Those of a batch that are there as they were left, with what they say, by name."""
        known: dict[str, Arrival] = {}
        for held in batch:
            name = held.blob.name
            if self._next is None or self._next.name != name:
                continue
            note, partly = self._next, False
            while (following := self._read()) is not None and following.name == name:
                self._references.add(self._version, name, following.reading, anew=not partly)
                partly = True
            self._next = following
            known[name] = Arrival(0, held._replace(mtime_ns=note.trace), note.reading, partly=partly)
        same = self._files.unchanged(self._version, [each.held for each in known.values()])
        return {name: each for (name, each), is_same in zip(known.items(), same, strict=True) if is_same}


def _found(destination: Destination, version: Version, held: Held) -> Arrival | None:
    """The file with its mtime and what it asks for, when its bytes are those of the manifest."""
    if destination.files.size(version, held.blob.name) != held.size:
        return None
    try:
        found = examine_held(destination.files, destination.catalog.references, version, held, md5=not held.sha256)
    except BlobDamaged:
        return None
    if found is None or held.sha256 not in {found.held.sha256, b""}:
        return None
    return Arrival(0, found.held, found.reading, partly=found.partly)
