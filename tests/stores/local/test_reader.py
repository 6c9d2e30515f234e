"""Reading stored files: never through a symlink."""

import os
from pathlib import Path

import pytest

from tests.support.local_destination import open_destination
from tests.support.store_contract import (
    SAMPLE_VERSION,
    reject_bytes,
)
from tilesync.errors import DestinationError


@pytest.mark.parametrize("place", ["versions", "versions/e1", "versions/e1/sub"])
def test_reading_through_planted_links_is_refused(tmp_path: Path, outside: Path, place: str) -> None:
    """Files outside do not count as stored: sizes, digests, reads and removals through a symlink are refused."""
    link = tmp_path / "d" / place
    link.parent.mkdir(parents=True)
    target = {"versions": tmp_path, "versions/e1": outside, "versions/e1/sub": outside / "sub"}[place]
    link.symlink_to(target)
    with open_destination(tmp_path / "d") as destination:
        for look in (destination.files.size, destination.files.digest, destination.files.read):
            with pytest.raises(DestinationError):
                look(SAMPLE_VERSION, "sub/c")
        with pytest.raises(DestinationError):
            destination.files.read_into(SAMPLE_VERSION, "sub/c", reject_bytes)
        with pytest.raises(DestinationError):
            next(destination.files.chunks(SAMPLE_VERSION, "sub/c"))
        with pytest.raises(DestinationError):
            destination.files.remove(SAMPLE_VERSION, ["sub/c"])


def test_symlink_is_not_a_stored_file(tmp_path: Path, outside: Path) -> None:
    """A symlink at the path of a file has no size and no digest, and is never read."""
    link = tmp_path / "d/versions/e1/file"
    link.parent.mkdir(parents=True)
    link.symlink_to(outside / "file")
    with open_destination(tmp_path / "d") as destination:
        assert destination.files.size(SAMPLE_VERSION, "file") is None
        assert destination.files.digest(SAMPLE_VERSION, "file") is None
        assert destination.files.read_into(SAMPLE_VERSION, "file", reject_bytes) is None
        with pytest.raises(DestinationError):
            destination.files.read(SAMPLE_VERSION, "file")
        destination.files.remove(SAMPLE_VERSION, ["file"])
    assert not os.path.lexists(link)
