"""A held file read again: what its bytes prove and what they ask for, as if they had just passed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from tilesync.model import Blob, Held, Reading, Version
from tilesync.protocols import HeldFiles, References
from tilesync.tiles.validator import ContentCheck

SPOOL = 5000
"""References of one file that are kept in memory; then they go to the catalog."""


@dataclass(frozen=True, slots=True)
class Examined:
    """What a held file is. `partly`: more references of it than `reading` holds are in the catalog already."""

    held: Held
    reading: Reading
    partly: bool


def examine(
    files: HeldFiles,
    references: References | None,
    version: Version,
    blob: Blob,
    *,
    md5: bool = True,
    known: Collection[bytes] = (),
) -> Examined | None:
    """Read a held file; None when it is not there. Raises BlobDamaged when it is not what `blob` says, or is broken and
    neither a digest of `blob` nor its SHA-256 being `known` says that it is to be so.

    Without `md5` the MD5 of `blob` is not compared; without `references` everything that a file says is in memory.
    """
    check = ContentCheck(blob if md5 else blob._replace(md5=None), version.home)
    partly = False

    def take(chunk: bytes) -> None:
        nonlocal partly
        check.feed(chunk)
        if references is not None and check.named > SPOOL:
            references.add(version, blob.name, check.take(), anew=not partly)
            partly = True

    trace = files.feed(version, blob.name, take)
    if trace is None:
        return None
    held = Held(blob, check.finish(seen=known).sha256, *trace)
    return Examined(held, check.take(), partly)


def examine_held(
    files: HeldFiles, references: References | None, version: Version, held: Held, *, md5: bool = True
) -> Examined | None:
    """Read a held file as it lies, likewise. Its SHA-256 is told, not compared; a broken one is known by it."""
    found = examine(files, references, version, held.lying, md5=md5, known=(held.sha256,))
    if found is None or held.unpacked is None:
        return found
    return replace(found, held=found.held._replace(blob=held.blob, unpacked=held.unpacked))
