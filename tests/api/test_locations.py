"""Ids of iModels and iTwins as users write them. tests/cli/test_early_exit.py asserts what SOURCE and DEST refuse."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tilesync.api.locations import parse_imodel_id, parse_itwin_id
from tilesync.errors import UsageError

ITWIN, IMODEL = "0a1b2c3d-0000-4111-8222-333344445555", "5c6b3f0e-0d3e-4b5a-9a51-6f2d3c1e7a40"
PORTAL = f"https://connect.bentley.com/itwins/{ITWIN}/imodels/{IMODEL}"


@pytest.mark.parametrize(("parse", "wanted"), [(parse_imodel_id, IMODEL), (parse_itwin_id, ITWIN)])
def test_an_id_or_the_url_of_a_portal(parse: Callable[[str], str], wanted: str) -> None:
    """An id may be written alone, in braces, or in the URL of a portal, which names both ids."""
    assert parse(wanted) == parse(f" {{{wanted}}} ") == parse(PORTAL) == wanted


@pytest.mark.parametrize(
    "text", ["", "  ", "Harbour", "5c6b3f0e", "https://connect.bentley.com/itwins", "a?sig=SECRET"]
)
@pytest.mark.parametrize(("parse", "kind"), [(parse_imodel_id, "an iModel id"), (parse_itwin_id, "an iTwin id")])
def test_any_other_text(parse: Callable[[str], str], kind: str, text: str) -> None:
    """Any other text is refused with an example and where to find the id, and a possible signature is not shown."""
    with pytest.raises(UsageError, match=f"is not {kind}") as caught:
        parse(text)
    assert "SECRET" not in str(caught.value)
    assert "the portal shows the id" in caught.value.hint
    assert f"{kind} looks like {IMODEL}" in caught.value.hint
