"""A destination whose catalog was lost: told again by its manifests and its bytes."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

from tilesync.errors import BlobDamaged, DestinationError, Incomplete
from tilesync.events import Notice, Warned
from tilesync.jobs.examine import examine
from tilesync.model import Arrival, Held, Version
from tilesync.protocols import Destination, Observer
from tilesync.rules.manifest import read_header, read_line
from tilesync.rules.names import folders_of

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
    latest = destination.publication.latest() or {}
    if latest.get("pinned"):
        destination.catalog.remember("pinned", str(latest["version"]))
    for version in destination.catalog.versions():
        if version.published is not None and version.name != latest.get("version"):
            destination.catalog.update(replace(version, left=latest.get("finished")))
    destination.catalog.remember("adopted", "yes")


def _adopt(destination: Destination, name: str) -> None:
    catalog, files = destination.catalog, destination.files
    lines = destination.publication.manifest(name)
    version = catalog.begin(read_header(next(lines), name=name))
    whole = True
    while batch := [read_line(said) for said in islice(lines, BATCH)]:
        files.judge(held.blob.name for held in batch)
        found = {held.blob.name: arrival for held in batch if (arrival := _found(destination, version, held))}
        lost = [(held.blob, None) for held in batch if held.blob.name not in found]
        whole = whole and not lost
        catalog.add_page(version, lost, folders_of(held.blob.name for held in batch))
        catalog.add_held(version, list(found.values()))
    catalog.finish_listing(version)
    catalog.update(replace(version, damaged=not whole))


def _found(destination: Destination, version: Version, held: Held) -> Arrival | None:
    """The file with its mtime and what it asks for, when its bytes are those of the manifest."""
    if destination.files.size(version, held.blob.name) != held.blob.size:
        return None
    try:
        found = examine(destination.files, destination.catalog.references, version, held.blob, md5=False)
    except BlobDamaged:
        return None
    if found is None or found.held.sha256 != held.sha256:
        return None
    return Arrival(0, found.held, found.reading, partly=found.partly)
