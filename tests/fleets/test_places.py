"""Places of mirrors: safe names, templates, and places that two mirrors would share."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tilesync.core.safe_names import find_problem
from tilesync.fleets.places import (
    MAX_NAME_CHARS,
    expand_template,
    find_shared_places,
    list_placeholders,
    make_safe_name,
    normalize_place,
)

IMODEL = "5c6b3f0e-0d3e-4b5a-9a51-6f2d3c1e7a40"


@given(st.text(max_size=300), st.sampled_from([IMODEL, None]))
@example("CON", IMODEL)
@example("com1.txt", None)
@example("\ud800", None)
@example("e\u0301" * 100, None)
@example("\U0001d4b3" * 100, IMODEL)
@example("a." + "-" * 200 + "b", None)
def test_safe_names(name: str, imodel: str | None) -> None:
    """The safe name is one segment of a path for Windows, Azure and S3: not empty, of at most 80 characters, stable."""
    safe = make_safe_name(name, imodel)
    assert 0 < len(safe) <= MAX_NAME_CHARS
    assert find_problem(safe, windows=True) is None
    assert "/" not in safe
    assert all(char.isalnum() or char in "._-" or unicodedata.category(char)[0] == "M" for char in safe)
    assert safe[0] not in ".-"
    assert safe[-1] not in ".-"
    assert unicodedata.is_normalized("NFC", safe)
    assert make_safe_name(safe, imodel) == safe


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("Bridge 12", "Bridge-12"),
        ("a/b", "a-b"),
        ("a \\ b", "a-b"),
        ("Tunnel (new) – 2", "Tunnel-new-2"),
        ("Ä", "Ä"),
        ("A\u0308", "Ä"),
        ("東京駅", "東京駅"),
        ("हिन्दी पुल", "हिन्दी-पुल"),
        ("v1.2_final-3", "v1.2_final-3"),
        ("..hidden..", "hidden"),
        (".", "imodel-5c6b3f0e"),
        ("..", "imodel-5c6b3f0e"),
        ("", "imodel-5c6b3f0e"),
        ("🏗️", "imodel-5c6b3f0e"),
        ("CON", "imodel-5c6b3f0e"),
        ("nul.glb", "imodel-5c6b3f0e"),
        ("a" * 79 + " b", "a" * 79),
        pytest.param("漢" * 100, "漢" * 80, id="long"),
        pytest.param("\U0001d4b3" * 100, "imodel-5c6b3f0e", id="more than 255 bytes"),
    ],
)
def test_the_rule_by_example(name: str, safe: str) -> None:
    """Names of people become what the rule says."""
    assert make_safe_name(name, IMODEL) == safe


def test_templates() -> None:
    """Placeholders are replaced, the name by a safe one; unknown ones and single braces are refused."""
    template = "t/{itwin}/{name}-{imodel}"
    assert list_placeholders(template) == ["itwin", "name", "imodel"]
    assert list_placeholders("t/x") == []
    assert expand_template(template, name="a/{b}", imodel="i", itwin="t") == "t/t/a-b-i"
    for wrong in ("{nam}", "{}", "{name", "name}", "{{name}}", "{Name}"):
        with pytest.raises(ValueError, match="is no placeholder"):
            list_placeholders(wrong)


def shared(*places: str) -> list[tuple[str, str]]:
    """Return the pairs of mirrors that share a place; a mirror is named after the number of its place."""
    return [(name, other) for name, other, _ in find_shared_places((str(n), place) for n, place in enumerate(places))]


def test_shared_places() -> None:
    """The same place and one inside another are found; a place that only begins like another is not."""
    assert shared("/t/a", "/t/b", "/t/a-b", "/t/a.b") == []
    assert shared("/t/a", "/t/a") == [("0", "1")]
    assert shared("/t/a/x/y", "/t/a") == [("1", "0")]
    assert shared("/t/a", "/t/a-b", "/t/a/b") == [("0", "2")]
    assert shared("/t", "/t/a", "/t/a") == [("0", "1"), ("1", "2")]
    assert shared("s3://b/x", "s3://b/y", "s3://b/x/y", "az://b/x") == [("0", "2")]


def test_normalized_places(tmp_path: Path) -> None:
    """Case, slashes, dots, links and the form of Unicode make no difference; another folder does."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    places = ("real/Ä", "real/ä/", "link/A\u0308", "x/../real//ä", "real/./Ä")
    same = {normalize_place(f"{tmp_path}/{place}", is_folder=True) for place in places}
    assert len(same) == 1
    assert normalize_place(f"{tmp_path}/real/b", is_folder=True) not in same
    assert normalize_place("s3://Bucket/x/", is_folder=False) == normalize_place("s3://bucket/X", is_folder=False)
