"""An Azure container as destination, on a real blob service."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.azure_destination import azure_destination, azure_objects
from tests.support.azurite import AzureProxy, Azurite, new_container
from tests.support.faults import is_listing
from tests.support.simulator import EXPORT, Simulator
from tests.support.store_contract import SAMPLE_VERSION, DestinationContract, OpenDestination, blob, put_file, run_async
from tilesync.azure.sas import parse_sas_link
from tilesync.demo.loopback_server import FakeResponse
from tilesync.errors import Unavailable


class TestContainer(DestinationContract):
    """A whole container."""

    @pytest.fixture
    def opening(self, azurite: Azurite, tmp_path: Path) -> OpenDestination:
        url = new_container(azurite)
        return lambda: azure_destination(url, tmp_path / "state")


@pytest.mark.scale
class TestPrefix(DestinationContract):
    """A folder of a container, with a name that needs quoting."""

    @pytest.fixture
    def opening(self, azurite: Azurite, tmp_path: Path) -> OpenDestination:
        url = new_container(azurite)
        return lambda: azure_destination(url, tmp_path / "state", prefix="a b+c/ä%41/")


def test_a_change_in_one_version_keeps_the_listing_of_others(azurite: Azurite, tmp_path: Path) -> None:
    """A listed version is not listed again because another one changed."""
    url = new_container(azurite)
    with AzureProxy(azurite) as proxy, azure_destination(url.replace(azurite.url, proxy.url), tmp_path) as destination:
        stored = run_async(put_file(destination, blob("a", b"12"), b"12"))
        destination.files.prepare_listing(SAMPLE_VERSION)
        destination.files.mark_changed(replace(SAMPLE_VERSION, name="e2"))
        request_count = len(proxy.requests)
        assert destination.files.unchanged(SAMPLE_VERSION, [stored]) == [True]
        assert len(proxy.requests) == request_count
        destination.files.mark_changed(SAMPLE_VERSION)
        assert destination.files.unchanged(SAMPLE_VERSION, [stored]) == [True]
        assert len(proxy.requests) == request_count + 1


@pytest.mark.parametrize("moves", [True, False])
def test_an_endless_listing_is_given_up(moves: bool) -> None:
    """Pages that bring nothing new, with different markers or one marker, are not requested for ever."""
    count = 0

    def page(_: Any, __: Any) -> FakeResponse:
        nonlocal count
        count += 1
        entry = "<Blob><Name>a</Name><Properties><Content-Length>1</Content-Length></Properties></Blob>"
        marker = f"m{count if moves else 0}"
        xml = f"<EnumerationResults><Blobs>{entry}</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>"
        return FakeResponse(200, xml.encode())

    with Simulator() as sim:
        sim.offer_export()
        sim.add_fault(is_listing, page, times=300)
        link = parse_sas_link(sim.create_link(EXPORT))
        with azure_objects(link.base, fetch=lambda: link) as objects, pytest.raises(Unavailable, match="the listing"):
            list(objects.list_pages(""))
    assert count <= 110
