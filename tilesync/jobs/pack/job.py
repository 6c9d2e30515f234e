"""Pack job: write a version into a package, and prove each file while it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO, Final, TypeVar

from tilesync.core.manifest import translate_damage
from tilesync.core.wording import format_file_count
from tilesync.errors import PackFailed
from tilesync.events import VersionChosen, Warned
from tilesync.jobs.pack.manifest_copy import ManifestCopy
from tilesync.jobs.pack.precheck import Precheck, refuse_repeated_names
from tilesync.jobs.pack.proven_files import ProvenFiles, UnprovenFile
from tilesync.jobs.run.stats import RunStats
from tilesync.jobs.versions.resolve import resolve_version
from tilesync.model import ROOT, StoredFile, Version
from tilesync.protocols import Observer, PackageWriter, ReadOnlyPublication, StoredFiles
from tilesync.protocols.package import MAX_WHOLE_BYTES
from tilesync.runtime.read_ahead import map_ahead
from tilesync.runtime.threads import raise_if_stopped
from tilesync.values import dataclass

T = TypeVar("T")

MAX_READ_AHEAD_BYTES: Final = 64 << 20
"""Maximum bytes of files that are in memory."""

MAX_FINDINGS: Final = 100
"""Bad files after which a run gives up: `tilesync verify` finds the others."""


@dataclass(frozen=True)
class PackInputs:
    """Inputs of a pack job.

    `check_space` raises DiskFull if the package has no room. `manifest_file`: an empty temporary file.
    """

    files: StoredFiles
    publication: ReadOnlyPublication
    writer: PackageWriter
    check_space: Callable[[int], None]
    manifest_file: IO[bytes]


class PackJob:
    """One run of `pack`: blocks, and writes to a package that its caller commits after success.

    Everything that can be known before is checked before the first byte is written. If a file turns out bad, nothing
    more is written, but the other files are checked too, so that one run names them all.
    """

    def __init__(self, inputs: PackInputs, observe: Observer, stats: RunStats) -> None:
        self._inputs = inputs
        self._writer = inputs.writer
        self._observe = observe
        self._stats = stats

    def run(self, version_text: str) -> Version:
        """Write the version that `version_text` names; return it.

        Raises PackFailed if files are missing or damaged, UsageError, DestinationError, DiskFull.
        """
        name = resolve_version(self._inputs.publication, version_text)
        manifest = ManifestCopy(self._inputs.publication, name, self._inputs.manifest_file)
        with translate_damage(f"of version {name}"):
            version = manifest.version()
        self._announce(version)
        root = self._check_before(manifest, version)
        self._writer.add_manifest(manifest.size, manifest.chunks())
        self._add_files(version, _root_first(root, manifest))
        if self._stats.failed:
            raise PackFailed(
                f"{format_file_count(self._stats.failed)} of version {name}"
                f" {'is' if self._stats.failed == 1 else 'are'} missing or damaged; no package was written"
            )
        self._writer.finish()
        return version

    def _announce(self, version: Version) -> None:
        self._observe(VersionChosen(version.name, "held"))
        self._stats.listed, self._stats.inventory_complete = version.summary.files, True
        self._stats.planned_bytes += version.summary.bytes

    def _check_before(self, manifest: ManifestCopy, version: Version) -> StoredFile:
        """Check what the manifest tells: counts, names, limits of the format, space. Return the root tileset."""
        precheck = Precheck(self._writer, version)
        with translate_damage(f"of version {version.name}"):
            for stored in _until_stopped(manifest.files()):
                precheck.add(stored)
            root = precheck.find_root()
            if not precheck.is_sorted:
                refuse_repeated_names(manifest.files())
        precheck.refuse_unfit_files()
        self._inputs.check_space(precheck.package_bytes + self._writer.measure("", manifest.size))
        for sentence in precheck.warnings():
            self._observe(Warned(sentence))
        return root

    def _add_files(self, version: Version, stored_files: Iterator[StoredFile]) -> None:
        proven = ProvenFiles(self._inputs.files, version)
        results = map_ahead(
            proven.read,
            _until_stopped(stored_files),
            threads=self._inputs.files.parallel_reads,
            weigh=lambda stored: stored.size if stored.size <= MAX_WHOLE_BYTES else 0,
            max_weight=MAX_READ_AHEAD_BYTES,
        )
        for stored, result in results:
            try:
                self._add_file(stored, result, proven)
            except UnprovenFile as error:
                self._stats.failed += 1
                self._observe(error.finding)
                if self._stats.failed >= MAX_FINDINGS:
                    results.close()
                    return
            else:
                self._stats.verified += 1

    def _add_file(self, stored: StoredFile, result: bytes | UnprovenFile | None, proven: ProvenFiles) -> None:
        """Write a file, from memory or chunk by chunk; after a failure only check it. Raises UnprovenFile."""
        if isinstance(result, UnprovenFile):
            raise result
        chunks = self._count_while_reading(proven.chunks(stored) if result is None else iter((result,)))
        if self._stats.failed:
            for _ in chunks:
                continue
        else:
            self._writer.add(stored.blob.name, stored.size, chunks)

    def _count_while_reading(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in _until_stopped(chunks):
            yield chunk
            self._stats.transferred_bytes += len(chunk)


def _root_first(root: StoredFile, manifest: ManifestCopy) -> Iterator[StoredFile]:
    yield root
    for stored in manifest.files():
        if stored.blob.name != ROOT:
            yield stored


def _until_stopped(items: Iterator[T]) -> Iterator[T]:
    """Pass items on until nobody waits for the result any more."""
    for item in items:
        raise_if_stopped("packing")
        yield item
