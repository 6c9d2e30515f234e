"""Test what a manifest states about types and encodings."""

from __future__ import annotations

from typing import Any

from tilesync.serving.stated_types import StatedType, StatedTypes


def line(name: str, content_type: Any = None, encoding: Any = None) -> dict[str, Any]:
    return {"name": name, "content_type": content_type, "content_encoding": encoding}


def test_an_ending_and_its_exceptions() -> None:
    """Each file has its own stated type, also if others with its ending have another one."""
    lines = [line(f"{number}.bin", "a/b", "br") for number in range(1000)]
    types = StatedTypes([*lines, line("x/odd.BIN", "c/d"), line("x.y/none"), line("last.bin", "a/b", "br")])
    assert types.find("7.bin") == StatedType("a/b", "br")
    assert types.find("x/odd.BIN") == StatedType("c/d")
    assert types.find("x.y/none") == StatedType()
    assert len(types._exceptions) == 1


def test_values_that_no_header_can_have() -> None:
    """A value that could end a header counts as none: other programs may write manifests."""
    types = StatedTypes([line("a.x", "a/b\r\nSet-Cookie: x"), line("b.y", 7, "ä"), {}])
    assert types.find("a.x") == types.find("b.y") == StatedType()


def test_hidden_names() -> None:
    """Names with a segment that begins with a dot are known, since only these may be served."""
    found = StatedTypes([line(".hidden/x"), line("a/.b"), line("a.b/c.d")])
    assert found.hidden_names == {".hidden/x", "a/.b"}
    assert found.find("c.d") == StatedType()


def test_all_names() -> None:
    """The index of all names is built if it is wanted."""
    lines = [line("a", "a/b"), line("b.x", "c/d")]
    assert len(StatedTypes(lines).names) == 0
    found = StatedTypes(iter(lines), with_names=True)
    assert ("a" in found.names, "c" in found.names) == (True, False)
    assert found.find("b.x") == StatedType("c/d")
