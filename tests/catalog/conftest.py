"""Fixtures of the tests of the catalog."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilesync.catalog.catalog import Catalog


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a catalog file that does not exist yet."""
    return tmp_path / "catalog.sqlite3"


@pytest.fixture
def catalog(path: Path) -> Catalog:
    """Make an empty catalog."""
    return Catalog(path)
