"""SQLite packages: the one table of the format, and nothing else."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.packages import write_sqlite
from tilesync.errors import DamagedPackage
from tilesync.stores.packages.readers import sqlite_package
from tilesync.stores.packages.readers.opening import PackageReference, open_package
from tilesync.stores.packages.readers.package import Package

FILES = {f"tiles/{number}.glb": bytes([number % 251]) * number for number in range(300)} | {"tileset.json": b"{}"}


def open_sqlite(path: Path) -> Package:
    return open_package(PackageReference(path))


def read(package: Package, name: str) -> bytes | None:
    entry = package.find(name)
    return b"".join(package.chunks(entry)) if entry is not None else None


def write_database(path: Path, *statements: str) -> Path:
    """Write a database by these statements."""
    with closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)
    return path


def test_rows_are_read_by_several_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows are listed in their order, page by page, and read by several threads at once."""
    monkeypatch.setattr(sqlite_package, "ROWS_PER_PAGE", 7)
    with (
        closing(open_sqlite(write_sqlite(tmp_path / "a.3dtiles", FILES))) as package,
        ThreadPoolExecutor(4) as pool,
    ):
        assert [(entry.name, entry.size) for entry in package.entries()] == [(n, len(d)) for n, d in FILES.items()]
        assert dict(zip(FILES, pool.map(lambda name: read(package, name), FILES), strict=True)) == FILES
        assert read(package, "none") is None


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE media (key TEXT, content BLOB)",
        "CREATE TABLE media (key TEXT PRIMARY KEY, content BLOB, more TEXT)",
        "CREATE TABLE media (key INTEGER PRIMARY KEY, content BLOB)",
        "CREATE TABLE media (key TEXT PRIMARY KEY, content BLOB) WITHOUT ROWID",
        "CREATE TABLE tiles (key TEXT PRIMARY KEY, content BLOB)",
        "CREATE VIEW media AS SELECT 'tileset.json' AS key, x'00' AS content",
        "CREATE VIRTUAL TABLE media USING fts5(key, content)",
    ],
)
def test_another_table_is_refused(tmp_path: Path, statement: str) -> None:
    """A database whose table differs from that of the format is refused; a view could run any expression."""
    path = write_database(tmp_path / "a.3dtiles", statement)
    with pytest.raises(DamagedPackage, match=r"is not a \.3dtiles package"):
        open_sqlite(path)


@pytest.mark.parametrize("value", ["NULL", "5", "'text'"])
def test_content_that_is_no_blob_is_refused(tmp_path: Path, value: str) -> None:
    """A row whose content is no blob is refused."""
    path = write_database(
        tmp_path / "a.3dtiles", sqlite_schema(), f"INSERT INTO media VALUES ('tileset.json', {value})"
    )
    with closing(open_sqlite(path)) as package, pytest.raises(DamagedPackage, match="without a name or content"):
        package.find("tileset.json")


def sqlite_schema() -> str:
    return "CREATE TABLE media (key TEXT PRIMARY KEY, content BLOB)"


@pytest.mark.parametrize("key", ["NULL", "x'00'", "'../x'", "'/x'", "'a' || char(0)"])
def test_names_that_are_not_safe(tmp_path: Path, key: str) -> None:
    """A row whose key is no safe name is refused."""
    path = write_database(tmp_path / "a.3dtiles", sqlite_schema(), f"INSERT INTO media VALUES ({key}, x'00')")
    with closing(open_sqlite(path)) as package, pytest.raises(DamagedPackage):
        list(package.entries())


def test_a_package_that_is_cut_off(tmp_path: Path) -> None:
    """A package that ends too early is refused when it is opened."""
    path = write_sqlite(tmp_path / "a.3dtiles", FILES)
    data = path.read_bytes()
    for length in [*range(0, 200, 10), *range(0, len(data), 4096), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(DamagedPackage):
            open_sqlite(path)


def test_a_package_that_is_still_written(tmp_path: Path) -> None:
    """A package with a journal beside it is not complete."""
    path = write_sqlite(tmp_path / "a.3dtiles", FILES)
    path.with_name("a.3dtiles-wal").write_bytes(b"changes")
    with pytest.raises(DamagedPackage, match="not complete"):
        open_sqlite(path)


def test_nothing_is_written(tmp_path: Path) -> None:
    """Reading leaves the package and its folder as they were."""
    path = write_sqlite(tmp_path / "a.3dtiles", FILES)
    before = path.read_bytes()
    with closing(open_sqlite(path)) as package:
        list(package.entries())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
