"""Sides of a comparison."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from tests.support.fake_destination import FakeDestination
from tilesync.errors import DestinationError
from tilesync.jobs.diff.sides import Side, make_version_side
from tilesync.protocols import ReadOnlyPublication

FILES = {"tileset.json": b"{}", "a.glb": b"a", "b.glb": b"b"}


def side_of(damage: Callable[[list[Any]], object] = lambda lines: None) -> Side:
    destination = FakeDestination(chunk_bytes=70)
    destination.add_version("v1", FILES)
    damage(destination.manifests["v1"])
    return make_version_side(cast(ReadOnlyPublication, destination), "v1")


def test_a_version_is_read_from_its_manifest() -> None:
    """Its files are read in batches, as often as wanted."""
    side = side_of()
    assert (side.name, side.files) == ("v1", 3)
    for _ in range(2):
        names = [each.split(b'"')[0] for batch in side.open_records() for each in batch]
        assert names == [name.encode() for name in FILES]
        assert b"\n".join(side.open_pieces()).count(b'"sha256"') == 3


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: lines.pop(), "it lists 2 files, not 3"),
        (lambda lines: lines.append(lines[1]), "it lists 4 files, not 3"),
        (lambda lines: lines[2].pop("sha256"), "sha256"),
        (lambda lines: lines[0].update(version="v2"), "it describes version 'v2'"),
        (lambda lines: lines.clear(), "v1 is damaged"),
    ],
)
def test_a_damaged_manifest_is_an_error(damage: Callable[[list[Any]], object], message: str) -> None:
    """A manifest that is cut off, changed or empty is named, with what is wrong and what to do."""
    with pytest.raises(DestinationError, match=message) as error:
        list(side_of(damage).open_records())
    assert str(error.value).startswith("the manifest of version v1 is damaged: ")
    assert "tilesync verify" in error.value.hint
