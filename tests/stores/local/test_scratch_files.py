"""Temporary catalog and files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.store_contract import SAMPLE_VERSION
from tilesync.errors import DestinationError
from tilesync.stores.local.scratch_files import open_scratch_files


def test_scratch_files_are_deleted_at_the_end() -> None:
    """Scratch space has an empty catalog and writable files, and its folder is deleted at the end."""
    with open_scratch_files() as (catalog, files, put_there):
        assert catalog.is_new
        put_there(SAMPLE_VERSION, "a/ä b", b"12")
        assert files.read(SAMPLE_VERSION, "a/ä b") == b"12"
        root = Path(files._resolver._tree.path)
        with pytest.raises(DestinationError):
            put_there(SAMPLE_VERSION, "../up", b"x")
    assert not root.exists()
