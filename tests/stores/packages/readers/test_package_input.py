"""File of a package: exact reads, also from several threads."""

from __future__ import annotations

import gc
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tilesync.errors import DamagedPackage, DestinationError, ExportReplaced
from tilesync.stores.packages.readers import package_input
from tilesync.stores.packages.readers.package_input import PackageInput

DATA = bytes(range(256)) * 100


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "package"
    path.write_bytes(DATA)
    return path


@pytest.mark.parametrize("has_pread", [True, False])
def test_reads_from_several_threads(path: Path, monkeypatch: pytest.MonkeyPatch, has_pread: bool) -> None:
    """Reads at different offsets do not disturb each other, with and without pread."""
    if not has_pread:
        monkeypatch.delattr(os, "pread")
    with closing(PackageInput(path)) as file, ThreadPoolExecutor(4) as pool:
        offsets = range(0, len(DATA) - 300, 7)
        results = list(pool.map(lambda offset: file.read_at(offset, 300), offsets))
    assert results == [DATA[offset : offset + 300] for offset in offsets]


@pytest.mark.parametrize(("offset", "size"), [(len(DATA), 1), (0, len(DATA) + 1), (-1, 1), (1 << 62, 1)])
def test_reads_behind_the_end_are_refused(path: Path, offset: int, size: int) -> None:
    """A read that the file does not cover is an error, not a shorter result."""
    with closing(PackageInput(path)) as file, pytest.raises(DamagedPackage):
        file.read_at(offset, size)


def test_chunks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A range is yielded in chunks."""
    monkeypatch.setattr(package_input, "READ_CHUNK_BYTES", 1000)
    with closing(PackageInput(path)) as file:
        chunks = list(file.chunks(5, 2500))
        assert [len(chunk) for chunk in chunks] == [1000, 1000, 500]
        assert b"".join(chunks) == DATA[5:2505]
        assert file.read_up_to(len(DATA) - 3, 10) == DATA[-3:]


def test_a_file_that_becomes_shorter(path: Path) -> None:
    """A file that is cut off while it is open gives an error."""
    with closing(PackageInput(path)) as file:
        os.truncate(path, 10)
        with pytest.raises(DamagedPackage, match="shorter"):
            file.read_at(5, 100)
        with pytest.raises(ExportReplaced):
            file.check_unchanged()


def test_a_package_is_closed_once(path: Path) -> None:
    """A closed package reads nothing, and one that nobody uses any more is closed."""
    file = PackageInput(path)
    file.close()
    file.close()
    with pytest.raises(DestinationError, match="closed"):
        file.read_at(0, 1)
    before = len(os.listdir("/proc/self/fd"))
    files = [PackageInput(path) for _ in range(5)]
    del files
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_only_a_regular_file_is_opened(tmp_path: Path) -> None:
    """A folder, a FIFO and a missing file are refused at once."""
    os.mkfifo(tmp_path / "fifo")
    for name in (".", "fifo", "none"):
        with pytest.raises(DestinationError):
            PackageInput(tmp_path / name)
