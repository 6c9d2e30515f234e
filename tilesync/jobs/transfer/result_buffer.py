"""Result buffer: results of a transfer that are not in the catalog yet, written together every quarter of a second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tilesync.catalog.catalog import Catalog
from tilesync.events import FileReused, FileStored
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.transfer.reuse import Reuse
from tilesync.model import FileResult, Kind, Version
from tilesync.runtime.threads import run_in_thread


class RecordedResults(NamedTuple):
    """Number of results that were written, and whether a subtree may be followed now."""

    written: int
    may_expand: bool


class ResultBuffer:
    """Files that are placed, and blobs that the container does not have. Counts and reports each when it is added."""

    def __init__(self, version: Version, catalog: Catalog, run: RunContext, reuse: Reuse) -> None:
        self._version = version
        self._catalog = catalog
        self._run = run
        self._reuse = reuse
        self._results: list[FileResult] = []
        self._missing: list[int] = []

    def __bool__(self) -> bool:
        return bool(self._results or self._missing)

    def add_fetched(self, results: Sequence[FileResult]) -> None:
        """Add blobs that were fetched and placed."""
        self._results += results
        self._run.stats.fetched += len(results)
        self._run.stats.verified += len(results)
        if self._run.reports_every_file:
            for result in results:
                self._run.observe(FileStored(result.stored.blob.name, result.stored.blob.size))

    def add_reused(self, result: FileResult) -> None:
        """Add a file that is shared with another version."""
        blob, stats = result.stored.blob, self._run.stats
        self._results.append(result)
        stats.reused += 1
        stats.reused_bytes += blob.size
        stats.verified += 1
        if self._run.reports_every_file:
            self._run.observe(FileReused(blob.name, blob.size))

    def add_existing(self, result: FileResult) -> None:
        """Add a file that existed already, and was verified."""
        self._results.append(result)
        self._run.stats.verified += 1

    def add_missing(self, number: int) -> None:
        """Add the number of a referenced blob that the container does not have."""
        self._missing.append(number)
        self._run.stats.listed -= 1

    async def flush(self) -> RecordedResults:
        """Write all results to the catalog, in one call to a thread: a cancellation waits until it ends."""
        (done, self._results), (missing, self._missing) = (self._results, []), (self._missing, [])
        if done or missing:
            new = await run_in_thread(self._record, done, missing)
            self._run.stats.listed += new  # not `+= await`: that would use the count from before
        return RecordedResults(len(done) + len(missing), any(_may_expand(result) for result in done))

    def _record(self, done: list[FileResult], missing: list[int]) -> int:
        """Write to the catalog; return how many new names a walk learned."""
        new = self._catalog.mark_stored(self._version, self._reuse.deduplicate(done)) if done else 0
        if missing:
            self._catalog.mark_missing(self._version, missing)
        return new


def _may_expand(result: FileResult) -> bool:
    """Return whether a subtree may wait for this file: it is a tileset, subtree or schema, or perhaps a buffer."""
    content = result.content
    return content.has_implicit_tiling or content.kind in {Kind.SUBTREE, Kind.SCHEMA, Kind.NONE}
