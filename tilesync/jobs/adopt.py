"""A destination whose catalog was lost: told again by its manifests and its bytes."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

from tilesync.errors import DestinationError, Incomplete
from tilesync.events import Notice, Warned
from tilesync.model import Held, Version
from tilesync.protocols import Destination, Observer
from tilesync.rules.manifest import read_header, read_line
from tilesync.rules.names import folders

BATCH = 1000


def adopt(destination: Destination, observe: Observer) -> None:
    """Take every version that has a manifest into the catalog; each file counts as held only if its SHA-256 is right.

    A manifest that cannot be read is reported, and its version left alone. Begins anew when it was interrupted.
    """
    for half in destination.catalog.versions():
        destination.catalog.forget(half)
    for name in destination.publication.manifest_names():
        observe(Notice(f"no catalog here: reading version {name} again to see what is held"))
        try:
            _adopt(destination, name)
        except (DestinationError, Incomplete, StopIteration, KeyError, TypeError, ValueError) as error:
            observe(Warned(f"version {name} cannot be taken over ({error}); its files stay where they are"))
            for half in destination.catalog.versions(name=name):
                destination.catalog.forget(half)
    destination.catalog.remember("adopted", "yes")


def _adopt(destination: Destination, name: str) -> None:
    catalog, files = destination.catalog, destination.files
    lines = destination.publication.manifest(name)
    version = catalog.begin(read_header(next(lines)))
    whole = True
    while batch := [read_line(said) for said in islice(lines, BATCH)]:
        files.judge(held.blob.name for held in batch)
        found = [_found(destination, version, held) for held in batch]
        whole = whole and None not in found
        rows = [(held.blob, there) for held, there in zip(batch, found, strict=True)]
        catalog.add_page(version, rows, {folder for held in batch for folder in folders(held.blob.name)})
    catalog.finish_listing(version)
    catalog.update(replace(version, damaged=not whole))


def _found(destination: Destination, version: Version, held: Held) -> Held | None:
    """The file with its mtime, when its bytes are those of the manifest."""
    if destination.files.size(version, held.blob.name) != held.blob.size:
        return None
    digest = destination.files.digest(version, held.blob.name)
    return replace(held, mtime_ns=digest[2]) if digest is not None and digest[0] == held.sha256 else None
