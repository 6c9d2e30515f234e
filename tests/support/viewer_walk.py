"""The closure of a tileset in a plain folder, by the product's own rules: what a viewer can ask for."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tilesync.catalog.catalog import Catalog
from tilesync.errors import BlobDamaged
from tilesync.jobs.versions.file_check import examine
from tilesync.jobs.versions.subtree_walk import Expansion
from tilesync.model import ROOT, Arrival, Blob, Held, Kind, Reading, Reference, Remark, Role, Trace, Version
from tilesync.protocols import Catalog as CatalogProtocol
from tilesync.protocols import Glance


@dataclass
class Closure:
    """What was found: names that are there, names that are not, what is damaged and why, and remarks."""

    files: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    damaged: dict[str, str] = field(default_factory=dict)
    remarks: list[tuple[str, Remark]] = field(default_factory=list)


class Folder:
    """A folder as held files."""

    portable = False
    wide = 1

    def __init__(self, root: Path) -> None:
        self.root = root

    def size(self, version: Version, name: str) -> int | None:
        """The size of a file."""
        path = self.root / name
        return path.stat().st_size if path.is_file() else None

    def survey(self, version: Version) -> None:
        """Not asked for."""
        raise NotImplementedError

    def glances(self, version: Version, catalog: CatalogProtocol, place: str) -> Iterator[Glance]:
        """Not asked for."""
        raise NotImplementedError

    def trace(self, version: Version, name: str) -> Trace | None:
        """Not asked for."""
        raise NotImplementedError

    def unchanged(self, version: Version, held: Sequence[Held]) -> list[bool]:
        """Not asked for."""
        raise NotImplementedError

    def feed(self, version: Version, name: str, into: Callable[[bytes], object]) -> Trace | None:
        """Its bytes."""
        if self.size(version, name) is None:
            return None
        into((self.root / name).read_bytes())
        return Trace(0)

    def digest(self, version: Version, name: str) -> bytes | None:
        """Not asked for."""
        raise NotImplementedError

    def chunks(self, version: Version, name: str, *, offset: int = 0) -> Iterator[bytes]:
        """Its bytes."""
        yield self.read(version, name)[offset:]

    def read(self, version: Version, name: str) -> bytes:
        """Its bytes."""
        return (self.root / name).read_bytes()


def walk(folder: Path, entry: str = "tileset.json", *, home: str = "https://host/container") -> Closure:
    """Everything that the tileset `entry` of a folder asks for, directly or not."""
    found, files = Closure(), Folder(folder)
    with tempfile.TemporaryDirectory() as state:
        catalog = Catalog(Path(state) / "catalog.sqlite3")
        version = catalog.begin(Version(0, "v", "e", None, None, "", {}, home=home))
        if entry != ROOT:  # what no root leads to is not followed
            leads = Reading(Kind.TILESET, (Reference(entry, Role.CONTENT),))
            catalog.add_held(version, [Arrival(0, Held(Blob(ROOT, 0), b"", 0), leads)])
        expansion = Expansion(version, catalog, files)
        pending, seen = [entry], {entry}
        while pending or (pending := _more(catalog, expansion, seen)):
            name = pending.pop()
            size = files.size(version, name)
            if size is None:
                found.missing.add(name)
                continue
            found.files.add(name)
            try:
                read = examine(files, catalog.references, version, Blob(name, size))
            except BlobDamaged as error:
                found.damaged[name] = str(error)
                continue
            assert read is not None
            catalog.add_held(version, [Arrival(0, read.held, read.reading, partly=read.partly)])
            asked = {reference.target for reference in read.reading.references} - seen
            seen |= asked
            pending += asked
        found.remarks = list(catalog.references.remarks(version))
        catalog.close()
    return found


def _more(catalog: Catalog, expansion: Expansion, seen: set[str]) -> list[str]:
    """Names that subtrees ask for and that were not known."""
    more: set[str] = set()
    while expansion.grow(last=True):
        rows = catalog.query("SELECT coalesce(name, target) FROM reference")
        more |= {name for (name,) in rows} - seen
        seen |= more
        if more:
            break
    return list(more)


def closure(folder: Path, entry: str = "tileset.json") -> set[str]:
    """The names of a folder that a viewer can ask for, `entry` included."""
    return walk(folder, entry).files
