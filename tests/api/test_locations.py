"""Ids of iModels and iTwins as users write them, and SOURCE and DEST as reports name them.

tests/cli/test_early_exit.py asserts what SOURCE and DEST refuse.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tilesync.api.locations import (
    find_viewer_location,
    parse_imodel_id,
    parse_itwin_id,
    parse_mirror_source,
    redact_dest,
    redact_source,
)
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


@pytest.mark.parametrize("text", ["ab=c", "./ab=c", "a?b/c&d", "design=3"])
def test_a_path_with_signs_of_a_query(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the whole text exists as a path, it is one, whatever signs are in it, alone or below other folders."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / text / "manifests").mkdir(parents=True)
    assert parse_mirror_source(text) == Path(text)
    assert parse_mirror_source(str(tmp_path / text)) == tmp_path / text
    assert find_viewer_location(text) == Path(text)


@pytest.mark.parametrize("text", ["new/a=b", "/nowhere/a=b?c&d", "./a=b"])
def test_a_missing_path_with_signs_of_a_query(text: str) -> None:
    """A text with a slash before the first question mark is a path, so the error says that it does not exist."""
    with pytest.raises(UsageError, match="does not exist"):
        parse_mirror_source(text)


@pytest.mark.parametrize("text", ["a=b", "c?d/e", "host/c?sv=1&sig=SECRET", "host/sig=SECRET", "h/c?SIG=SECRET"])
def test_a_text_that_may_be_a_link_is_no_path(text: str) -> None:
    """A text that may be the rest of a link is left to the parser of links, and never shown."""
    assert parse_mirror_source(text) is None
    assert find_viewer_location(text) is None


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("nothere", "there is no folder nothere, and it is not", "path of a folder"),
        ("x.gz", "x.gz is not a folder", ".3tz"),
    ],
)
def test_a_name_that_is_no_folder(
    text: str, message: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is neither a folder nor an id says which of them is missing, and what may be given."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.gz").touch()
    with pytest.raises(UsageError, match=message) as caught:
        parse_mirror_source(text)
    assert hint in caught.value.hint
