"""An Azure container as destination, on a real blob service."""

from dataclasses import replace
from pathlib import Path

import pytest
from away import azure_destination
from azurite import Azurite, Road, new_container
from contract import VERSION, DestinationContract, Open, blob, put, run


class TestContainer(DestinationContract):
    """A whole container."""

    @pytest.fixture
    def opening(self, azurite: Azurite, tmp_path: Path) -> Open:
        url = new_container(azurite)
        return lambda: azure_destination(url, tmp_path / "state")


class TestPrefix(DestinationContract):
    """A folder of a container, with a name that must be quoted."""

    @pytest.fixture
    def opening(self, azurite: Azurite, tmp_path: Path) -> Open:
        url = new_container(azurite)
        return lambda: azure_destination(url, tmp_path / "state", prefix="a b+c/ä%41/")


def test_what_others_put_into_one_version_leaves_what_is_known_of_others(azurite: Azurite, tmp_path: Path) -> None:
    """A version that was listed is not asked about again because another one grows."""
    url = new_container(azurite)
    with Road(azurite) as road, azure_destination(url.replace(azurite.url, road.url), tmp_path) as there:
        held = run(put(there, blob("a", b"12"), b"12"))
        there.files.survey(VERSION)
        there.files.touch(replace(VERSION, name="e2"))
        asked = len(road.told)
        assert there.files.unchanged(VERSION, [held]) == [True]
        assert len(road.told) == asked
        there.files.touch(VERSION)
        assert there.files.unchanged(VERSION, [held]) == [True]
        assert len(road.told) == asked + 1
