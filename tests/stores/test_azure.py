"""An Azure container as destination, on a real blob service."""

from pathlib import Path

import pytest
from away import azure_destination
from azurite import Azurite, new_container
from contract import DestinationContract, Open


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
