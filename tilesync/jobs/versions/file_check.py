"""File check: read a stored file again for its digests and its references, as during a download."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tilesync.model import Blob, ParsedContent, StoredFile, Version
from tilesync.protocols import StoredFiles
from tilesync.tiles.validator import ContentCheck

if TYPE_CHECKING:
    from tilesync.catalog.references import ReferenceIndex

MAX_REFERENCES_IN_MEMORY = 5000
"""References of one file that are kept in memory; beyond that they are written to the catalog."""


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """Result of a file check. `has_more_references`: the catalog already holds references that `content` lacks."""

    stored: StoredFile
    content: ParsedContent
    has_more_references: bool


def check_file(
    files: StoredFiles,
    references: ReferenceIndex | None,
    version: Version,
    blob: Blob,
    *,
    compare_md5: bool = True,
    known_sha256s: Collection[bytes] = (),
) -> CheckedFile | None:
    """Read and check a stored file; return None if it is not there.

    `compare_md5`: compare the MD5 of `blob`. Without `references`, all references of the file are kept in memory.

    Raises BlobDamaged if the file does not match `blob`, or if its content is broken and no digest proves that the
    container holds it like that (a digest of `blob`, or its SHA-256 in `known_sha256s`).
    """
    check = ContentCheck(blob if compare_md5 else blob._replace(md5=None), version.container_url)
    has_more_references = False

    def feed_chunk(chunk: bytes) -> None:
        nonlocal has_more_references
        check.feed(chunk)
        if references is not None and check.pending_count > MAX_REFERENCES_IN_MEMORY:
            references.add(version, blob.name, check.drain(), replace_existing=not has_more_references)
            has_more_references = True

    stamp = files.read_into(version, blob.name, feed_chunk)
    if stamp is None:
        return None
    stored = StoredFile(blob, check.finish(known_sha256s=known_sha256s).sha256, *stamp)
    return CheckedFile(stored, check.drain(), has_more_references)


def check_stored_file(
    files: StoredFiles,
    references: ReferenceIndex | None,
    version: Version,
    stored: StoredFile,
    *,
    compare_md5: bool = True,
) -> CheckedFile | None:
    """Read and check a stored file in its form on disk, which may be unpacked.

    The SHA-256 is returned, not compared; it only proves that a broken file was stored like that.
    """
    found = check_file(
        files, references, version, stored.on_disk, compare_md5=compare_md5, known_sha256s=(stored.sha256,)
    )
    if found is None or stored.unpacked is None:
        return found
    return replace(found, stored=found.stored._replace(blob=stored.blob, unpacked=stored.unpacked))
