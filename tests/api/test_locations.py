"""Ids of iModels and iTwins as users write them, and SOURCE and DEST as reports name them.

tests/cli/test_early_exit.py asserts what SOURCE and DEST refuse.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tilesync.api.locations import parse_imodel_id, parse_itwin_id, redact_dest, redact_source
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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (IMODEL, IMODEL), (None, None), ("-", None), ("", None), ("https://u:p@h/c/tileset.json?sig=x", "https://h/c/tileset.json"),
        ("https://h/c#sig=x", "https://h/c"), ("az://a/c/p", "az://a/c/p"), ("c?sig=x", None), ("c&Signature=x", None),
        ("/srv/a=b", "/srv/a=b"),
    ],
)  # fmt: skip
def test_sources_and_destinations_are_reported_without_secrets(text: str | None, shown: str | None) -> None:
    """A URL is reported without query and user; a text that may contain a signature is not reported."""
    assert redact_source(text) == shown
    assert redact_dest("d") == os.path.abspath("d")
