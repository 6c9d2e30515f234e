"""Fixtures of the tests of local folders."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.local_destination import snapshot_tree


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder outside the destination, which must not change."""
    folder = tmp_path / "outside"
    (folder / "sub").mkdir(parents=True)
    (folder / "file").write_text("precious")
    (folder / "sub/c").write_text("precious")
    before = snapshot_tree(folder)
    yield folder
    assert snapshot_tree(folder) == before
