"""Catalog with one version, to which tests add files one by one, as a transfer does."""

from __future__ import annotations

from pathlib import Path

from tilesync.catalog.catalog import Catalog
from tilesync.jobs.versions.completeness import compute_completeness
from tilesync.jobs.versions.file_check import check_file
from tilesync.model import UNKNOWN_SIZE, Blob, Completeness, Diagnostic, FileResult, Role, StoredFile, Version
from tilesync.stores.local.reader import LocalStoredFiles, SafePathResolver

HOME = "https://account.blob.core.windows.net/container"


class CatalogFixture:
    """A catalog, files below `root`, and one version of them."""

    def __init__(self, root: Path, *, catalog: Path | None = None) -> None:
        self.root = root
        self.catalog = Catalog(catalog or Path(":memory:"))
        self.files = LocalStoredFiles(SafePathResolver(root))
        self.version = self.catalog.add_version(Version(0, "e1", "e1", container_url=HOME))

    def write(self, name: str, data: bytes) -> None:
        """Write the bytes of a file, without a catalog entry."""
        path = self.root / "versions" / self.version.name / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def put(self, name: str, data: bytes) -> None:
        """Store a file and record its references; an existing file is replaced."""
        self.write(name, data)
        result = check_file(self.files, self.catalog.references, self.version, Blob(name, UNKNOWN_SIZE))
        assert result is not None
        stored = StoredFile(Blob(name, len(data)), result.stored.sha256, result.stored.mtime_ns, result.stored.inode)
        self._record(FileResult(0, stored, result.content, has_more_references=result.has_more_references))

    def put_unread(self, name: str, data: bytes) -> None:
        """Store a file without validation."""
        self.write(name, data)
        self._record(FileResult(0, StoredFile(Blob(name, len(data)), b"", 0)))

    def _record(self, result: FileResult) -> None:
        name = result.stored.blob.name
        if not self.catalog.find_stored(self.version, [name]):
            self.catalog.add_stored_files(self.version, [result])
            return
        self.catalog.mark_wanted(self.version, [name])
        ((number, _),) = self.catalog.list_wanted(self.version, 0, limit=2)
        stored, content = result.stored, result.content
        self.catalog.mark_stored(
            self.version, [FileResult(number, stored, content, has_more_references=result.has_more_references)]
        )

    def put_all(self, files: dict[str, bytes]) -> None:
        """Store several files."""
        for name, data in files.items():
            self.put(name, data)

    def count_completeness(self) -> Completeness:
        """Count the references of the version."""
        return compute_completeness(self.version, self.catalog, self.files)

    def missing(self) -> set[str]:
        """Return the referenced files that are missing, after all references are resolved."""
        return {name for name, _, _ in self.catalog.references.list_missing(self.version)}

    def diagnostics(self) -> list[tuple[str, Diagnostic]]:
        """Return the diagnostics of the files."""
        return list(self.catalog.references.list_diagnostics(self.version))

    def problems(self) -> list[tuple[str, str]]:
        """Return the problem of each diagnostic, with its file."""
        return [(name, diagnostic.problem) for name, diagnostic in self.diagnostics()]

    def all_references(self) -> set[tuple[str, str, str]]:
        """Return every reference: referring file, target and role."""
        sql = "SELECT source, target, role FROM reference WHERE version=?"
        return set(self.catalog.query(sql, self.version.serial))

    def references_from(self, source: str, role: Role = Role.CONTENT) -> set[str]:
        """Return the references of one file in one role."""
        return set(self.catalog.references.list_targets(self.version, source, role))
