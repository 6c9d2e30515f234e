"""Test the compact set of names."""

from __future__ import annotations

from tilesync.serving.name_set import NameSet


def test_exactly_the_names_are_in_it() -> None:
    """Each name is in the index, and no other one, also with odd characters; each takes eight bytes."""
    names = [b"tiles/%d.glb" % number for number in range(5000)] + ["ä b".encode(), b"", b"\xff"]
    index = NameSet(iter(names))
    assert all(name in index for name in names)
    assert not any(name in index for name in (b"tiles/5000.glb", b"Tiles/1.glb", b"tiles", b"a", b"\xfe"))
    assert len(index) == len(names)
    assert index._digests.itemsize == 8


def test_an_empty_index() -> None:
    """Without names nothing is in it."""
    assert b"a" not in NameSet([])
