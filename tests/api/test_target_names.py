"""Names of SOURCE and DEST in reports, without secrets."""

from __future__ import annotations

import os

import pytest

from tests.support.builders import IMODEL
from tilesync.api.target_names import redact_dest, redact_source


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
