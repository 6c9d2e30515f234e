"""Fixtures of the tests of versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.catalog_fixture import CatalogFixture


@pytest.fixture
def fixture(tmp_path: Path) -> CatalogFixture:
    """Make a catalog with one version, and a folder for its files."""
    return CatalogFixture(tmp_path)
