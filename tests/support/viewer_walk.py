"""Walk a tileset in a plain folder by the product's own rules, to find all files that a viewer can request."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.fake_destination import UnusedFileMethods
from tilesync.catalog.catalog import Catalog
from tilesync.errors import BlobDamaged
from tilesync.jobs.versions.file_check import check_file
from tilesync.jobs.versions.subtree_walk import SubtreeWalk
from tilesync.model import (
    ROOT,
    Blob,
    Diagnostic,
    FileResult,
    FileStamp,
    Kind,
    ParsedContent,
    Reference,
    Role,
    StoredFile,
    Version,
)
from tilesync.protocols import WholeFile


@dataclass
class WalkResult:
    """Result of a walk: present names, missing names, damaged files with the reason, and diagnostics."""

    files: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    damaged: dict[str, str] = field(default_factory=dict)
    diagnostics: list[tuple[str, Diagnostic]] = field(default_factory=list)


class FolderFiles(UnusedFileMethods):
    """A folder as stored files."""

    parallel_reads = 1

    def __init__(self, root: Path) -> None:
        self.root = root

    def size(self, version: Version, name: str) -> int | None:
        """Return the size of a file."""
        path = self.root / name
        return path.stat().st_size if path.is_file() else None

    def worker_reader(self) -> None:
        """Return None: workers cannot read these files."""

    def read_into(self, version: Version, name: str, consume: Callable[[bytes], object]) -> FileStamp | None:
        """Return the bytes of a file."""
        if self.size(version, name) is None:
            return None
        consume((self.root / name).read_bytes())
        return FileStamp(0)

    def read_whole(self, version: Version, stored: Sequence[StoredFile]) -> Iterator[WholeFile | None]:
        """Not used by these tests."""
        raise NotImplementedError

    def digest(self, version: Version, name: str) -> bytes | None:
        """Not used by these tests."""
        raise NotImplementedError

    def chunks(self, version: Version, name: str, *, offset: int = 0) -> Iterator[bytes]:
        """Return the bytes of a file."""
        yield self.read(version, name)[offset:]

    def read(self, version: Version, name: str) -> bytes:
        """Return the bytes of a file."""
        return (self.root / name).read_bytes()


def walk(folder: Path, entry: str = "tileset.json", *, home: str = "https://host/container") -> WalkResult:
    """Find everything that the tileset `entry` of a folder references, directly or not."""
    result, files = WalkResult(), FolderFiles(folder)
    with tempfile.TemporaryDirectory() as state:
        catalog = Catalog(Path(state) / "catalog.sqlite3")
        version = catalog.add_version(Version(0, "v", "e", container_url=home))
        if entry != ROOT:  # what no root leads to is not followed
            leads = ParsedContent(Kind.TILESET, (Reference(entry, Role.CONTENT),))
            catalog.add_stored_files(version, [FileResult(0, StoredFile(Blob(ROOT, 0), b"", 0), leads)])
        expansion = SubtreeWalk(version, catalog, files)
        pending, seen = [entry], {entry}
        while pending or (pending := _new_subtree_targets(catalog, expansion, seen)):
            name = pending.pop()
            size = files.size(version, name)
            if size is None:
                result.missing.add(name)
                continue
            result.files.add(name)
            try:
                read = check_file(files, catalog.references, version, Blob(name, size))
            except BlobDamaged as error:
                result.damaged[name] = str(error)
                continue
            assert read is not None
            catalog.add_stored_files(
                version, [FileResult(0, read.stored, read.content, has_more_references=read.has_more_references)]
            )
            asked = {reference.target for reference in read.content.references} - seen
            seen |= asked
            pending += asked
        result.diagnostics = list(catalog.references.list_diagnostics(version))
        catalog.close()
    return result


def _new_subtree_targets(catalog: Catalog, expansion: SubtreeWalk, seen: set[str]) -> list[str]:
    """Return new names that subtrees reference."""
    more: set[str] = set()
    while expansion.advance(is_final=True):
        rows = catalog.query("SELECT coalesce(name, target) FROM reference")
        more |= {name for (name,) in rows} - seen
        seen |= more
        if more:
            break
    return list(more)


def closure(folder: Path, entry: str = "tileset.json") -> set[str]:
    """Return the names in a folder that a viewer can request, `entry` included."""
    return walk(folder, entry).files
