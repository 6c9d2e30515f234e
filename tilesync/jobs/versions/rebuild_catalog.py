"""Rebuild a lost catalog from the manifests and the files of a destination."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from tilesync.core.manifest import format_timestamp, read_header, read_lines
from tilesync.core.safe_names import collect_folders
from tilesync.core.sidecar import SidecarEntry
from tilesync.core.sidecar import read_line as read_sidecar_line
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
"""Files that one thread call reads; several calls run at once."""


async def rebuild_catalog(destination: Destination, version_names: Iterable[str], run: RunContext) -> None:
    """Add every version that has a manifest to the catalog; a file counts as stored only if its SHA-256 matches.

    A manifest that cannot be read is reported, and its version is left alone. Starts over after an interruption.
    """
    for partial_version in destination.catalog.versions():
        destination.catalog.delete_version(partial_version)
    for name in sorted(version_names):
        run.observe(Notice(f"the catalog is missing: checking the files of version {name} again"))
        await rebuild_version(destination, name, run)
    destination.catalog.set_value("adopted", "yes")


async def rebuild_version(destination: Destination, name: str, run: RunContext) -> None:
    """Add one version that has a manifest to the catalog; report a manifest that cannot be read.

    It is not known when the pointer left the version, so it counts as replaced just now.
    """
    destination.catalog.prepare_for_many_rows()
    latest = await run_in_thread(destination.publication.latest) or {}
    try:
        version = await _read_version(destination, name)
    except Unreadable:  # files without read permission are not lost, so do not fetch them again
        for partial_version in destination.catalog.versions(name=name):
            destination.catalog.delete_version(partial_version)
        raise
    except (DestinationError, Incomplete, StopIteration, KeyError, TypeError, ValueError) as error:
        run.observe(Warned(f"version {name} cannot be added to the catalog ({error}); its files stay where they are"))
        for partial_version in destination.catalog.versions(name=name):
            destination.catalog.delete_version(partial_version)
    else:
        replaced_at = format_timestamp(run.clock.now()) if name != latest.get("version") else None
        destination.catalog.update_version(version.with_times(replaced_at=replaced_at))


async def _read_version(destination: Destination, name: str) -> Version:
    catalog, lines = destination.catalog, destination.publication.manifest(name)
    header = await run_in_thread(next, lines, None)
    if header is None:
        raise ValueError("it is empty")
    version = catalog.add_version(read_header(header, name=name))
    sidecar, is_complete = await run_in_thread(_SidecarReader, destination, version), True
    while batch := await run_in_thread(read_lines, lines, FILES_PER_BATCH):
        destination.files.check_names(stored.blob.name for stored in batch)
        found = await run_in_thread(sidecar.match_unchanged, batch)
        rest = [stored for stored in batch if stored.blob.name not in found]
        groups = [rest[start : start + FILES_PER_THREAD_CALL] for start in range(0, len(rest), FILES_PER_THREAD_CALL)]
        for results in await gather_or_cancel(
            run_in_thread(_check_files, destination, version, group) for group in groups
        ):
            found.update(results)
        lost_files = [(stored.blob, None) for stored in batch if stored.blob.name not in found]
        is_complete = is_complete and not lost_files
        catalog.add_page(version, lost_files, collect_folders(stored.blob.name for stored in batch))
        await run_in_thread(catalog.add_stored_files, version, list(found.values()))
    catalog.finish_listing(version)
    return replace(version, damaged=not is_complete)


def _check_files(destination: Destination, version: Version, files: Sequence[StoredFile]) -> dict[str, FileResult]:
    found = ((stored.blob.name, _check_file(destination, version, stored)) for stored in files)
    return {name: result for name, result in found if result is not None}


class _SidecarReader:
    """Reader of the sidecar of a version, in the order of its manifest: unchanged files need not be read again.

    An invalid line ends the sidecar; the rest of the files is read.
    """

    def __init__(self, destination: Destination, version: Version) -> None:
        self._files = destination.files
        self._references = destination.catalog.references
        self._version = version
        self._lines = destination.publication.read_sidecar(version)
        self._next_entry: SidecarEntry | None = self._read_entry()

    def _read_entry(self) -> SidecarEntry | None:
        try:
            line = next(self._lines, None) if self._lines is not None else None
            return read_sidecar_line(line) if line is not None else None
        except (KeyError, TypeError, ValueError):
            self._lines = None
            return None

    def match_unchanged(self, batch: Sequence[StoredFile]) -> dict[str, FileResult]:
        """Return the unchanged files of a batch by name, with their content from the sidecar."""
        known: dict[str, FileResult] = {}
        for stored in batch:
            name = stored.blob.name
            if self._next_entry is None or self._next_entry.name != name:
                continue
            entry, has_more_references = self._next_entry, False
            while (next_entry := self._read_entry()) is not None and next_entry.name == name:
                self._references.add(self._version, name, next_entry.content, replace_existing=not has_more_references)
                has_more_references = True
            self._next_entry = next_entry
            known[name] = FileResult(
                0, stored._replace(mtime_ns=entry.stamp), entry.content, has_more_references=has_more_references
            )
        unchanged = self._files.unchanged(self._version, [result.stored for result in known.values()])
        return {
            name: result for (name, result), is_unchanged in zip(known.items(), unchanged, strict=True) if is_unchanged
        }


def _check_file(destination: Destination, version: Version, stored: StoredFile) -> FileResult | None:
    """Return a file with its mtime and its references if its bytes match the manifest, else None."""
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
