"""Test the compact set of names."""

from __future__ import annotations

from tilesync.serving.name_set import NameSet


def test_exactly_the_names_are_in_it() -> None:
    """Each name is in the index, and no other one, also with odd characters; each takes eight bytes."""
    names = [f"tiles/{number}.glb" for number in range(5000)] + ["ä b", "", "\udc80"]
    index = NameSet(iter(names))
    assert all(name in index for name in names)
    assert not any(name in index for name in ("tiles/5000.glb", "Tiles/1.glb", "tiles", "a", "\udc81"))
    assert len(index) == len(names)
    assert index._digests.itemsize == 8


def test_an_empty_index() -> None:
    """Without names nothing is in it."""
    assert "a" not in NameSet([])
