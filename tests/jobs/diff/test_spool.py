"""Records in a temporary file."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tilesync.errors import DiskFull
from tilesync.jobs.diff import spool
from tilesync.jobs.diff.spool import PartitionedSpool, PlainSpool, SortedSpool

RECORDS = [b"%d" % (number * 7919 % 1000) for number in range(1000)]


@pytest.fixture(params=[1, 100, 1 << 20])
def _limits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep everything, something or nothing in memory."""
    for name in ("MAX_BUFFERED_BYTES", "MAX_SORTED_BYTES", "_PIECE_BYTES", "_READ_BYTES"):
        monkeypatch.setattr(spool, name, request.param)


@pytest.mark.usefixtures("_limits")
def test_partitions_have_all_records_of_a_key() -> None:
    """Each record is in one partition, together with all others of its key."""
    parts = PartitionedSpool(7)
    for start in range(0, 1000, 90):
        batch = RECORDS[start : start + 90]
        parts.add([each[:1] for each in batch], batch)
    found = [parts.read(number) for number in range(7)]
    assert sorted(each for part in found for each in part) == sorted(RECORDS)
    for key in {each[:1] for each in RECORDS}:
        assert sum(any(each[:1] == key for each in part) for part in found) == 1


@pytest.mark.usefixtures("_limits")
def test_sorted_records_are_read_as_often_as_wanted() -> None:
    """All records come in ascending order, also while another reader reads, and after more were added."""
    records = SortedSpool()
    records.add(RECORDS[:500])
    assert list(records) == sorted(RECORDS[:500])
    records.add(RECORDS[500:])
    readers = iter(records), iter(records)
    assert list(zip(*readers, strict=True)) == [(each, each) for each in sorted(RECORDS)]
    assert list(SortedSpool()) == []


@pytest.mark.usefixtures("_limits")
def test_plain_records_keep_their_order() -> None:
    """Records come back in the order in which they were added, as lists and as pieces."""
    records = PlainSpool()
    for start in range(0, 1000, 90):
        records.add(RECORDS[start : start + 90])
    assert [each for batch in records.batches() for each in batch] == RECORDS
    assert b"\n".join(records.pieces()) == b"\n".join(RECORDS)
    assert records.records == 1000


def test_the_temporary_file_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill leaves nothing behind, and a small comparison writes no file at all."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    small = SortedSpool()
    small.add(RECORDS)
    monkeypatch.setattr(spool, "MAX_SORTED_BYTES", 1)
    large = SortedSpool()
    large.add(RECORDS)
    assert list(small) == list(large)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the temporary file, not the destination."""

    def fail(**_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    monkeypatch.setattr(spool, "MAX_SORTED_BYTES", 1)
    with pytest.raises(DiskFull, match="temporary file for the comparison"):
        SortedSpool().add(RECORDS)
