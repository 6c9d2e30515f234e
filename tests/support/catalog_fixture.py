"""A version whose files are put in their place one by one, each read as if it had just arrived."""

from __future__ import annotations

from pathlib import Path

from tilesync.catalog.catalog import Catalog
from tilesync.jobs.versions.completeness import settle
from tilesync.jobs.versions.file_check import examine
from tilesync.model import UNKNOWN, Arrival, Blob, Completeness, Held, Remark, Role, Version
from tilesync.stores.local.reader import Door, HeldFiles

HOME = "https://account.blob.core.windows.net/container"


class Shelf:
    """A catalog, files below `root`, and one version of both."""

    def __init__(self, root: Path, *, catalog: Path | None = None) -> None:
        self.root = root
        self.catalog = Catalog(catalog or Path(":memory:"))
        self.files = HeldFiles(Door(root))
        self.version = self.catalog.begin(Version(0, "e1", "e1", None, None, "", {}, home=HOME))

    def write(self, name: str, data: bytes) -> None:
        """The bytes alone."""
        path = self.root / "versions" / self.version.name / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def put(self, name: str, data: bytes) -> None:
        """A file that is held, with what it says; one that is there already is replaced."""
        self.write(name, data)
        found = examine(self.files, self.catalog.references, self.version, Blob(name, UNKNOWN))
        assert found is not None
        held = Held(Blob(name, len(data)), found.held.sha256, found.held.mtime_ns, found.held.inode)
        self._take(Arrival(0, held, found.reading, partly=found.partly))

    def put_unread(self, name: str, data: bytes) -> None:
        """A file that is held, though its bytes would not have passed."""
        self.write(name, data)
        self._take(Arrival(0, Held(Blob(name, len(data)), b"", 0)))

    def _take(self, arrival: Arrival) -> None:
        name = arrival.held.blob.name
        if not self.catalog.held_among(self.version, [name]):
            self.catalog.add_held(self.version, [arrival])
            return
        self.catalog.release(self.version, [name])
        ((number, _),) = self.catalog.wanted(self.version, 0, limit=2)
        held, reading = arrival.held, arrival.reading
        self.catalog.hold(self.version, [Arrival(number, held, reading, partly=arrival.partly)])

    def put_all(self, files: dict[str, bytes]) -> None:
        """Many of them."""
        for name, data in files.items():
            self.put(name, data)

    def settle(self) -> Completeness:
        """What the version asks for, counted."""
        return settle(self.version, self.catalog, self.files)

    def missing(self) -> set[str]:
        """What is asked for and not there, after settling."""
        return {name for name, _, _ in self.catalog.references.missing(self.version)}

    def remarks(self) -> list[tuple[str, Remark]]:
        """What is to be said of the files."""
        return list(self.catalog.references.remarks(self.version))

    def asked(self) -> set[tuple[str, str, str]]:
        """Every reference: who asks, for what, and as what."""
        sql = "SELECT source, target, role FROM reference WHERE version=?"
        return set(self.catalog.query(sql, self.version.serial))

    def asked_by(self, source: str, role: Role = Role.CONTENT) -> set[str]:
        """What one file asks for in one role."""
        return set(self.catalog.references.of(self.version, source, role))
