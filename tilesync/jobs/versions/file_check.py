"""A held file read again: what its bytes prove and what they ask for, as if they had just passed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from tilesync.model import Blob, ParsedContent, StoredFile, Version
from tilesync.protocols import ReferenceIndex, StoredFiles
from tilesync.tiles.validator import ContentCheck

MAX_REFERENCES_IN_MEMORY = 5000
"""References of one file that are kept in memory; then they go to the catalog."""


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """What a held file is. `partly`: more references of it than `reading` holds are in the catalog already."""

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
    """Read a held file; None when it is not there. Raises BlobDamaged when it is not what `blob` says, or is broken and
    neither a digest of `blob` nor its SHA-256 being `known` says that it is to be so.

    Without `md5` the MD5 of `blob` is not compared; without `references` everything that a file says is in memory.
    """
    check = ContentCheck(blob if compare_md5 else blob._replace(md5=None), version.container_url)
    partly = False

    def take(chunk: bytes) -> None:
        nonlocal partly
        check.feed(chunk)
        if references is not None and check.pending_count > MAX_REFERENCES_IN_MEMORY:
            references.add(version, blob.name, check.drain(), replace_existing=not partly)
            partly = True

    trace = files.read_into(version, blob.name, take)
    if trace is None:
        return None
    held = StoredFile(blob, check.finish(known_sha256s=known_sha256s).sha256, *trace)
    return CheckedFile(held, check.drain(), partly)


def check_stored_file(
    files: StoredFiles,
    references: ReferenceIndex | None,
    version: Version,
    stored: StoredFile,
    *,
    compare_md5: bool = True,
) -> CheckedFile | None:
    """Read a held file as it lies, likewise. Its SHA-256 is told, not compared; a broken one is known by it."""
    found = check_file(
        files, references, version, stored.on_disk, compare_md5=compare_md5, known_sha256s=(stored.sha256,)
    )
    if found is None or stored.unpacked is None:
        return found
    return replace(found, stored=found.stored._replace(blob=stored.blob, unpacked=stored.unpacked))
