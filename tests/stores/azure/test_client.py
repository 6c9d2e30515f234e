"""An Azure container as destination, on a real blob service."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.azure_destination import azure_destination, azure_objects
from tests.support.azurite import Azurite, Road, new_container
from tests.support.faults import listing
from tests.support.simulator import EXPORT, Simulator
from tests.support.store_contract import VERSION, DestinationContract, Open, blob, put, run
from tilesync.azure.sas import parse_link
from tilesync.demo.fake_service import Answer
from tilesync.errors import Unavailable


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


@pytest.mark.parametrize("moves", [True, False])
def test_a_listing_that_does_not_end_is_given_up(moves: bool) -> None:
    """Pages that bring nothing new, each with another marker or all with one, are not asked for without end."""
    count = 0

    def page(_: Any, __: Any) -> Answer:
        nonlocal count
        count += 1
        there = "<Blob><Name>a</Name><Properties><Content-Length>1</Content-Length></Properties></Blob>"
        marker = f"m{count if moves else 0}"
        xml = f"<EnumerationResults><Blobs>{there}</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>"
        return Answer(200, xml.encode())

    with Simulator() as sim:
        sim.hold()
        sim.fault(listing, page, times=300)
        link = parse_link(sim.link(EXPORT))
        with azure_objects(link.base, fetch=lambda: link) as objects, pytest.raises(Unavailable, match="the listing"):
            list(objects.pages(""))
    assert count <= 110
