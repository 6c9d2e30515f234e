"""The two sides of a comparison: a version of a destination, or the listing of a source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import aclosing

from tilesync.core.filters import glob_matcher
from tilesync.core.foreign_json import parse_json, read_mapping
from tilesync.core.manifest import read_header, split_manifest, translate_damage
from tilesync.errors import ListingDenied, NotAuthorised
from tilesync.jobs.diff.records import FileRecord, cut_records, make_record
from tilesync.jobs.diff.spool import PlainSpool
from tilesync.model import EVERYTHING, Globs, Version
from tilesync.protocols import ReadOnlyPublication, SourceResolver
from tilesync.runtime.threads import run_in_thread
from tilesync.values import dataclass


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    `name`: of the version, or of the export. `files`: number of files. `open_records`: starts to read their records, in
    batches; `open_pieces`: the same as bytes that contain the digests. Both may be called again. `version`: None for a
    listing.
    """

    name: str
    files: int
    open_records: Callable[[], Iterator[list[bytes]]]
    open_pieces: Callable[[], Iterator[bytes]]
    version: Version | None = None


def make_version_side(publication: ReadOnlyPublication, name: str) -> Side:
    """Return the side of a version. Raises DestinationError if its manifest cannot be read."""
    with translate_damage(f"of version {name}"):
        header = next(split_manifest(publication.manifest_chunks(name)), b"")
        version = read_header(read_mapping(parse_json(header)), name=name)

    def open_records() -> Iterator[list[bytes]]:
        return _read_manifest(publication, version)

    def open_pieces() -> Iterator[bytes]:
        pieces = split_manifest(publication.manifest_chunks(name))
        next(pieces, None)
        return pieces

    return Side(name, version.summary.files, open_records, open_pieces, version)


def _read_manifest(publication: ReadOnlyPublication, version: Version) -> Iterator[list[bytes]]:
    """Yield the records of a manifest. Raises DestinationError if it is damaged or cut off."""
    files = 0
    with translate_damage(f"of version {version.name}"):
        pieces = split_manifest(publication.manifest_chunks(version.name))
        next(pieces, None)
        for piece in pieces:
            records = cut_records(piece)
            files += len(records)
            yield records
        if files != version.summary.files:
            raise ValueError(f"it lists {files:,} files, not {version.summary.files:,}")


async def list_source(resolver: SourceResolver, *, globs: Globs = EVERYTHING) -> Side:
    """Return the side of the export that a source resolves to, from its listing. No file is read.

    `globs`: those of the version that it is compared with, since a mirror takes only these files. Raises NotAuthorised
    if the container cannot be listed, and other RunErrors.
    """
    resolution = await resolver.resolve()
    source = await resolver.open_source(resolution)
    is_included, spool = glob_matcher(globs), PlainSpool()
    try:
        async with aclosing(source.pages(None)) as pages:
            async for page in pages:
                records = [
                    make_record(
                        blob.name,
                        FileRecord(
                            blob.size, (blob.sha256 or b"").hex(), blob.md5.hex() if blob.md5 is not None else ""
                        ),
                    )
                    for blob in page.blobs
                    if is_included(blob.name)
                ]
                await run_in_thread(spool.add, records)
    except ListingDenied as error:
        raise NotAuthorised(
            f"a comparison needs a listing of the container: {error}",
            hint="use a link that may list, or mirror the export and compare its version",
        ) from error
    return Side(resolution.export.id, spool.records, spool.batches, spool.pieces)
