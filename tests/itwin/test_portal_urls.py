"""Ids of iModels and iTwins in the URLs that people copy from portals and viewers."""

import pytest

from tilesync.errors import UsageError
from tilesync.itwin.portal_urls import find_imodel_id, find_itwin_id, parse_guid

TWIN, MODEL = "0a1b2c3d-0000-4111-8222-333344445555", "5c6b3f0e-0d3e-4b5a-9a51-6f2d3c1e7a40"


@pytest.mark.parametrize(
    "url",
    [
        f"https://api.bentley.com/imodels/{MODEL}",
        f"https://imodelhub.bentley.com/context/{TWIN}/imodel/{MODEL}/versions",
        f"https://connect.bentley.com/itwins/{TWIN}/imodels/{MODEL}?tab=exports",
        f"https://developer.bentley.com/my-itwins/{TWIN}/{MODEL}/view",
        f"https://viewer.example.com/?iTwinId={TWIN}&iModelId={MODEL}",
        f"https://viewer.example.com/?imodelid={MODEL.upper()}",
        f"http://localhost:3000/#/itwin/{TWIN}/imodel/{MODEL}",
        f"https://x.bentley.com/app#/view?contextId={TWIN}&iModelId={MODEL}",
    ],
)
def test_imodel_id_in_a_url(url: str) -> None:
    """The id after a key for iModels, or the only one beside that of the iTwin."""
    assert find_imodel_id(url) == MODEL


@pytest.mark.parametrize(
    "url",
    [
        f"https://developer.bentley.com/{TWIN}/{MODEL}",
        f"https://developer.bentley.com/my-itwins/{TWIN}",
        f"https://api.bentley.com/mesh-export/{MODEL}",
        f"https://api.bentley.com/imodels/{MODEL}/compare/imodels/{TWIN}",
    ],
)
def test_ambiguous_url(url: str) -> None:
    """A URL of Bentley without a clear iModel id, or with several, is refused with a hint."""
    with pytest.raises(UsageError, match="cannot tell which iModel") as raised:
        find_imodel_id(url)
    assert "give only the id" in raised.value.hint


@pytest.mark.parametrize(
    "url",
    [
        f"https://account.blob.core.windows.net/imodels/{MODEL}?sv=1&sig=x",
        f"https://cdn.example.com/imodels/{MODEL}?Policy=x&Signature=y",
        f"https://account.blob.core.windows.net/{MODEL}",
        "https://developer.bentley.com/my-itwins",
        "https://[bad",
    ],
)
def test_other_urls(url: str) -> None:
    """A signed URL is a container link, whatever its path; so is one without an iModel id."""
    assert find_imodel_id(url) is None


@pytest.mark.parametrize(("text", "result"), [(MODEL, MODEL), (f" {{{MODEL}}}\n", MODEL), ("nosuch", None), ("", None)])
def test_parse_guid(text: str, result: str | None) -> None:
    """An id is a GUID, with or without braces."""
    assert parse_guid(text) == result


@pytest.mark.parametrize(
    ("url", "result"),
    [
        (f"https://connect.bentley.com/itwins/{TWIN}/imodels/{MODEL}?tab=exports", TWIN),
        (f"https://developer.bentley.com/my-itwins/{TWIN.upper()}", TWIN),
        (f"https://x.bentley.com/app#/view?contextId={TWIN}&iModelId={MODEL}", TWIN),
        (f"https://api.bentley.com/imodels/{MODEL}", None),
        (f"https://api.bentley.com/itwins/{TWIN}/compare/itwins/{MODEL}", None),
        (f"https://account.blob.core.windows.net/itwins/{TWIN}?sv=1&sig=x", None),
        ("https://[bad", None),
    ],
)
def test_itwin_id_in_a_url(url: str, result: str | None) -> None:
    """The id after a key for iTwins; none if there are several, and none in a signed URL."""
    assert find_itwin_id(url) == result
