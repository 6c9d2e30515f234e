"""Writer of .3dtiles files, read back by SQLite."""

from __future__ import annotations

import random
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.small_disk import mounted_small_disk
from tilesync.errors import DestinationError, DiskFull
from tilesync.protocols.package import MAX_WHOLE_BYTES
from tilesync.stores.packages.formats import MANIFEST_ENTRY, MEDIA_TABLE
from tilesync.stores.packages.sqlite_writer import MAX_ROW_BYTES, SqliteWriter

FILES = {"tileset.json": b"{}", "tiles/ä b%20+#.bin": b"x" * 5000, "data/empty": b""}
LARGE = random.Random(1).randbytes(MAX_WHOLE_BYTES + 12_345)


def chunks(data: bytes, size: int = 1 << 20) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def write(path: Path, files: dict[str, bytes]) -> None:
    with open(path, "wb") as file, closing(SqliteWriter(str(path), file)) as writer:
        writer.add_manifest(8, [b"manifest"])
        for name, data in files.items():
            writer.add(name, len(data), chunks(data))
        writer.finish()


def test_rows_are_read_back_in_order(tmp_path: Path) -> None:
    """The only table is the one that readers check; it has the manifest first, then the files, large ones too."""
    write(tmp_path / "a", {**FILES, "large.glb": LARGE})
    with closing(sqlite3.connect(tmp_path / "a")) as db:
        assert db.execute("SELECT sql FROM sqlite_master WHERE type='table'").fetchall() == [(MEDIA_TABLE,)]
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = db.execute("SELECT key, content FROM media ORDER BY rowid").fetchall()
    assert rows == [(MANIFEST_ENTRY, b"manifest"), *FILES.items(), ("large.glb", LARGE)]


def test_header_names_no_release_of_sqlite(tmp_path: Path) -> None:
    """The fields of the header that tell the release and the number of changes are constant, and agree."""
    write(tmp_path / "a", FILES)
    data = (tmp_path / "a").read_bytes()
    assert data[24:28] == data[92:96] == (1).to_bytes(4, "big")
    assert int.from_bytes(data[96:100], "big") == 3_040_000


def test_too_large_files_are_a_problem_before(tmp_path: Path) -> None:
    """A file that a row cannot hold is known before anything is written; so is a manifest."""
    with open(tmp_path / "a", "wb") as file, closing(SqliteWriter(str(tmp_path / "a"), file)) as writer:
        assert writer.find_problem("a.glb", MAX_ROW_BYTES - 10_000) is None
        assert "can hold" in (writer.find_problem("a.glb", MAX_ROW_BYTES) or "")
        with pytest.raises(DestinationError, match="manifest is too large"):
            writer.add_manifest(MAX_ROW_BYTES, [])


def test_full_disk_is_told(tmp_path: Path) -> None:
    """A disk that fills up while the database is written is DiskFull, for small and for large files."""
    for size in (4096, len(LARGE)):
        with (
            mounted_small_disk(tmp_path / f"disk {size}") as disk,
            open(disk / "a", "wb") as file,
            closing(SqliteWriter(str(disk / "a"), file)) as writer,
            pytest.raises(DiskFull),
        ):
            write_until_full(writer, LARGE[:size])


def write_until_full(writer: SqliteWriter, data: bytes) -> None:
    for number in range(30_000_000 // len(data)):
        writer.add(f"{number}", len(data), [data])
    writer.finish()


def test_name_twice_is_an_error(tmp_path: Path) -> None:
    """A key exists once: the second file of one name is a DestinationError, not a bug."""
    with open(tmp_path / "a", "wb") as file, closing(SqliteWriter(str(tmp_path / "a"), file)) as writer:
        writer.add("a", 1, [b"x"])
        with pytest.raises(DestinationError):
            writer.add("a", 1, [b"x"])


def test_measure_is_an_upper_bound(tmp_path: Path) -> None:
    """The measured sizes are at least the written bytes, and not twice as many."""
    files = {f"tiles/{number:05d}.glb": random.Random(number).randbytes(number * 10) for number in range(1500)}
    write(tmp_path / "a", files)
    with open(tmp_path / "b", "wb") as file, closing(SqliteWriter(str(tmp_path / "b"), file)) as writer:
        total = sum(writer.measure(name, len(data)) for name, data in files.items())
    assert total * 0.5 <= (tmp_path / "a").stat().st_size <= total + 10_000


def test_an_error_names_the_package(tmp_path: Path) -> None:
    """A limit on the size of files is an error of the disk to SQLite: the message names OUT, the hint the limit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with open(tmp_path / "a.part", "wb") as file:
        writer = SqliteWriter(str(tmp_path / "a.part"), file, display_name="out/a.3dtiles")
        writer.add("tileset.json", 20_000, [b" " * 20_000])
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
            with pytest.raises(DestinationError, match=r"cannot write out/a\.3dtiles: ") as caught:
                writer.finish()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            writer.close()
    assert "ulimit -f" in caught.value.hint
