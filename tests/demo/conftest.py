"""The files of the demo city."""

import pytest

from tilesync.demo.city import build_city


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return build_city()
