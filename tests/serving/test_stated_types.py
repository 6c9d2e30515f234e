"""Test what a manifest states about types and encodings."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tilesync.core.manifest import encode_line, make_line
from tilesync.model import Blob, StoredFile
from tilesync.serving.stated_types import StatedType, StatedTypes

PLAIN, GZIP = StatedType("a/b"), StatedType("a/b", "gzip")


def line(name: str, stated: StatedType = StatedType()) -> bytes:  # noqa: B008 - immutable
    blob = Blob(name, 1, '"0x8D"', bytes(16), stated.content_type, stated.content_encoding, 1_700_000_000)
    return encode_line(make_line(StoredFile(blob, bytes(32), 0)))[:-1]


def foreign_line(**members: Any) -> bytes:
    return json.dumps(members).encode()


def test_an_ending_and_its_exceptions() -> None:
    """Each file has its own stated type, also if others with its ending have another one."""
    lines = [line(f"{number}.bin", GZIP) for number in range(1000)]
    rest = [line("x/odd.BIN", StatedType("c/d")), line("x.y/none"), line('q".bin', PLAIN), line("last.bin", GZIP)]
    types = StatedTypes([b"\n".join(lines), b"\n".join(rest)])
    assert types.find("7.bin") == types.find("last.bin") == GZIP
    assert types.find("x/odd.BIN") == StatedType("c/d")
    assert types.find('q".bin') == PLAIN
    assert types.find("x.y/none") == StatedType()
    assert types.find("unknown.end") == StatedType()


def test_the_first_file_may_be_the_exception() -> None:
    """The type of most files of an ending is its rule, so that only the few others take memory."""
    types = StatedTypes([b"\n".join([line("first.bin", PLAIN), *(line(f"{number}.bin", GZIP) for number in range(9))])])
    assert (types.find("first.bin"), types.find("0.bin"), types.find("8.bin")) == (PLAIN, GZIP, GZIP)
    (rule,) = types._by_ending.values()
    assert [len(names) for names in rule.exceptions.values()] == [1]


def test_lines_of_other_programs() -> None:
    """A value that could end a header counts as none, and the order of the members makes no difference."""
    bad = foreign_line(name="a.x", content_type="a/b\r\nSet-Cookie: x")
    lines = [bad, foreign_line(name="b.y", content_type=7, content_encoding="ä"), b"{}"]
    good = foreign_line(content_encoding="gzip", content_type="a/b", name="c.z")
    types = StatedTypes([b"\n".join([*lines, good, line("d.u", PLAIN)])])
    assert types.find("a.x") == types.find("b.y") == StatedType()
    assert (types.find("c.z"), types.find("d.u")) == (GZIP, PLAIN)
    with pytest.raises(ValueError, match="Expecting"):
        StatedTypes([b"{"])


def test_hidden_names() -> None:
    """Names with a segment that begins with a dot are known, since only these may be served."""
    found = StatedTypes([line(".hidden/x"), line("a/.b"), line("a.b/c.d")])
    assert found.hidden_names == {".hidden/x", "a/.b"}
    assert found.find("c.d") == StatedType()


def test_all_names() -> None:
    """The index of all names is built if it is wanted."""
    lines = [line("a", PLAIN), line("ä.x", GZIP)]
    assert len(StatedTypes(lines).names) == 0
    found = StatedTypes(iter(lines), with_names=True)
    assert (b"a" in found.names, "ä.x".encode() in found.names, b"c" in found.names) == (True, True, False)
    assert found.find("ä.x") == GZIP
