"""Subtree expansion: damaged subtrees, and limits of tiles, contents, memory and time."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cpu_limit import limit_cpu_time
from tests.support.examples import examples
from tests.support.subtrees import (
    ALL,
    EVERYTHING,
    IMPLICIT_MEMBERS,
    ROOT_CELL,
    SUBTREE_NAME,
    WRONG_VALUES,
    BufferLayout,
    as_json,
    expand,
    list_places,
    make_binary_subtree,
    make_tiling,
    members_with_buffers,
    string_column,
)
from tilesync.errors import BlobDamaged
from tilesync.tiles import availability as subtrees
from tilesync.tiles import implicit_tiling as implicit_files
from tilesync.tiles.availability import MAX_TILES_PER_SUBTREE, expand_subtree
from tilesync.tiles.implicit_tiling import (
    Cell,
    ImplicitTiling,
    parse_implicit_tiling,
    parse_subtree,
)


def small() -> tuple[dict[str, Any], bytes]:
    """Build a subtree that uses every feature."""
    layout = BufferLayout()
    members = {
        "tileAvailability": {"bitstream": layout.add(b"\x1f"), "availableCount": 5},
        "contentAvailability": [{"bitstream": layout.add(b"\x03")}, {"constant": 1}],
        "childSubtreeAvailability": {"bufferView": layout.add(b"\x01\x80")},
        "propertyTables": [
            {"class": "k", "count": 5, "properties": {"u": string_column(layout, list("abcde"), "UINT16")}}
        ],
        "tileMetadata": 0,
        "contentMetadata": [0, 0],
        "extensions": {"3DTILES_multiple_contents": {}},
    }
    return layout.as_subtree(members), layout.data


def consume(data: bytes, buffers: dict[str, bytes] | None = None) -> None:
    """Expand a subtree to its end."""
    result = expand(data, make_tiling(2, contents=2), buffers=buffers or {}, content_uri_properties={"k": "u"})
    list(result.contents)
    list(result.subtrees)


def test_the_small_subtree_is_whole() -> None:
    """The subtree that the tests below damage is sound."""
    consume(make_binary_subtree(*small()))


def test_a_subtree_cut_off_anywhere_is_damage() -> None:
    """A subtree cut at any byte, plain or gzipped, is damage, and the message begins with its name."""
    whole = make_binary_subtree(*small())
    for data in (
        whole,
        gzip.compress(whole, mtime=0),
        as_json(small()[0] | {"buffers": [{"uri": "b", "byteLength": 999}]}),
    ):
        for end in range(len(data)):
            with pytest.raises(BlobDamaged, match=f"^{SUBTREE_NAME}: "):
                parse_subtree(data[:end], SUBTREE_NAME)


def test_json_of_any_type_in_any_place_raises_nothing_else() -> None:
    """With any JSON in place of any field, or without it, the subtree is expanded or is damage."""
    members, binary = small()
    for holder, key in list(list_places(members)):
        original = holder[key]
        for wrong in WRONG_VALUES:
            holder[key] = wrong
            survive(make_binary_subtree(members, binary))
        if isinstance(holder, dict):
            del holder[key]
            survive(make_binary_subtree(members, binary))
        holder[key] = original
    for wrong in WRONG_VALUES:
        survive(make_binary_subtree(wrong, binary))
        survive(as_json(wrong))


def damage(data: bytes) -> str | None:
    """Expand a subtree to its end and return the error; None when it is sound."""
    try:
        consume(data)
    except BlobDamaged as error:
        return str(error)
    return None


def survive(data: bytes) -> None:
    assert (damage(data) or f"{SUBTREE_NAME}: ").startswith(f"{SUBTREE_NAME}: ")


@examples(300)
@given(st.binary(max_size=60) | st.builds(bytes.__add__, st.just(b"subt\1\0\0\0"), st.binary(max_size=60)))
def test_random_bytes_raise_nothing_else(data: bytes) -> None:
    """Random bytes are damage."""
    with pytest.raises(BlobDamaged):
        parse_subtree(data, SUBTREE_NAME)


@examples(300)
@given(st.data())
def test_flipped_bytes_raise_nothing_else(data: st.DataObject) -> None:
    """A sound subtree with some changed bytes is expanded or is damage."""
    octets = bytearray(make_binary_subtree(*small()))
    for _ in range(data.draw(st.integers(1, 3))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    survive(bytes(octets))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"not a readable subtree \(it is empty\)"),
        (b"subx", "not a readable subtree"),
        (b"[]", "the subtree is missing, or has the wrong type"),
        (b"[" * 100_000, r"not a readable subtree \(it is nested too deep\)"),
        (b"{}", "tileAvailability"),
        (b"\xff\xfe{}", "not a readable subtree"),
        (make_binary_subtree(EVERYTHING).replace(b"subt\1", b"subt\2"), "version 2 is unknown"),
        (make_binary_subtree(EVERYTHING)[:10], "header is cut off"),
        (make_binary_subtree(EVERYTHING)[:-1], "is cut off: its header says"),
        (struct.pack("<4sIQQ", b"subt", 1, 2**64 - 1, 2**64 - 1) + b"{}", "is cut off"),
        (as_json(EVERYTHING | {"tileAvailability": {"constant": 2}}), "neither 0 nor 1"),
        (as_json(EVERYTHING | {"tileAvailability": {"constant": True}}), "constant of tileAvailability"),
        (as_json(EVERYTHING | {"tileAvailability": {"bitstream": 0}}), "tileAvailability has number 0"),
        (as_json(EVERYTHING | {"tileAvailability": {"bitstream": -1}}), "tileAvailability"),
        (as_json(EVERYTHING | {"buffers": [{"byteLength": 1, "uri": "data:,x"}]}), "names no file"),
        (as_json(EVERYTHING | {"buffers": [{"byteLength": 1, "uri": ""}]}), "names no file"),
        (as_json(EVERYTHING | {"bufferViews": [{"buffer": 0, "byteLength": 1}]}), "buffer of a buffer view"),
        (gzip.compress(b"{", mtime=0), "not a readable subtree"),
        (gzip.compress(b"{}", mtime=0)[:-5] + b"12345", "gzip"),
    ],
)
def test_damage_is_explained(data: bytes, reason: str) -> None:
    """Each kind of damage has its own sentence."""
    with pytest.raises(BlobDamaged, match=f"^{SUBTREE_NAME}: .*{reason}"):
        parse_subtree(data, SUBTREE_NAME)


@pytest.mark.parametrize("view", [(0, 9), (8, 1), (9, 0), (2**62, 2**62)])
def test_views_stay_in_their_buffers(view: tuple[int, int]) -> None:
    """A view beyond the stated size of its buffer, or beyond the binary chunk, is damage."""
    views = [{"buffer": 0, "byteOffset": view[0], "byteLength": view[1]}]
    for stated, binary in ((8, bytes(16)), (2**62, bytes(8))):
        members = EVERYTHING | {"buffers": [{"byteLength": stated}], "bufferViews": views}
        with pytest.raises(BlobDamaged, match="a buffer view ends at byte"):
            parse_subtree(make_binary_subtree(members, binary), SUBTREE_NAME)


def test_numbers_of_any_length_are_damage() -> None:
    """A huge number is damage in any place, and its message can be printed."""
    vast = 10**4299
    members = members_with_buffers()
    members["buffers"][0]["byteLength"] = members["bufferViews"][0]["byteLength"] = vast
    with pytest.raises(BlobDamaged, match="byteLength of a buffer is missing, or not a whole number"):
        parse_subtree(as_json(members), SUBTREE_NAME)
    with pytest.raises(BlobDamaged, match="subtreeLevels"):
        parse_implicit_tiling(IMPLICIT_MEMBERS | {"subtreeLevels": vast}, [])


def refused(spec: ImplicitTiling, at: Cell = ROOT_CELL, contents: int = 1) -> str:
    subtree = parse_subtree(as_json(EVERYTHING | {"contentAvailability": [ALL] * contents}), SUBTREE_NAME)
    with pytest.raises(BlobDamaged) as caught, limit_cpu_time(2):
        expand_subtree(subtree, spec, at, {})
    return str(caught.value)


def test_a_subtree_that_claims_too_much_is_refused() -> None:
    """Too many tiles, up to 2^40, are refused at once, with both numbers; at the limit they are not."""
    assert (
        refused(make_tiling(21)) == f"{SUBTREE_NAME}: it claims 1466015503701 tiles, more than {MAX_TILES_PER_SUBTREE}"
    )
    assert f"{MAX_TILES_PER_SUBTREE}" in refused(make_tiling(63))
    assert refused(make_tiling(9, octree=True)).endswith(f"it claims 19173961 tiles, more than {MAX_TILES_PER_SUBTREE}")
    for spec in (make_tiling(12), make_tiling(8, octree=True)):
        assert 4**12 == 8**8 == MAX_TILES_PER_SUBTREE
        assert expand(as_json(EVERYTHING), spec).problems == ()


def test_child_subtrees_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit holds also for child subtrees, where there are more of them than tiles."""
    monkeypatch.setattr(subtrees, "MAX_TILES_PER_SUBTREE", 21)
    assert refused(make_tiling(3)) == f"{SUBTREE_NAME}: it claims 64 child subtrees, more than 21"


def test_contents_are_bounded_too() -> None:
    """Too many contents for too many tiles are refused."""
    assert "contents, more than" in refused(make_tiling(12, contents=99), contents=99)


def test_cells_that_are_too_deep_are_refused() -> None:
    """Cells below level 62 are refused; level 62 works."""
    assert "its tiles reach level 63, below the deepest level, 62" in refused(
        make_tiling(3, available=99), Cell(61, 0, 0)
    )
    far = 2**60 - 1
    result = expand(as_json(EVERYTHING), make_tiling(3, available=99), Cell(60, far, far))
    *_, last = result.contents
    assert last == f"c0/62/{2**62 - 1}/{2**62 - 1}.glb"
    assert list(result.subtrees) == []


def test_a_full_subtree_is_lazy() -> None:
    """The first contents of a full subtree come at once, and constants take no memory."""
    subtree = parse_subtree(as_json(EVERYTHING), SUBTREE_NAME)
    expand_subtree(subtree, make_tiling(2), ROOT_CELL, {})
    tracemalloc.start()
    with limit_cpu_time(2):
        result = expand_subtree(subtree, make_tiling(12), ROOT_CELL, {})
        assert list(islice(result.contents, 2)) == ["c0/0/0/0.glb", "c0/1/0/0.glb"]
        assert next(result.subtrees) == (Cell(12, 0, 0), "s/12/0/0.subtree")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1 << 16


def test_a_sparse_bitstream_is_quick() -> None:
    """The one content of five million tiles is found without a step for each tile."""
    layout = BufferLayout()
    bits = {"bitstream": layout.add(bytes(600_000) + b"\x80" + bytes(4**12 // 8 - 600_001))}
    members = {"tileAvailability": ALL, "contentAvailability": [bits], "childSubtreeAvailability": bits}
    subtree = parse_subtree(make_binary_subtree(layout.as_subtree(members), layout.data), SUBTREE_NAME)
    with limit_cpu_time(0.5):
        result = expand_subtree(subtree, make_tiling(12), ROOT_CELL, {})
        assert (len(list(result.contents)), len(list(result.subtrees))) == (1, 1)


def test_unpacking_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gzip file beyond the unpacked limit is damage; at the limit it is not, in one member or several."""
    whole = as_json(EVERYTHING)
    monkeypatch.setattr(implicit_files, "MAX_UNPACKED_BYTES", len(whole))
    parse_subtree(gzip.compress(whole[:9], mtime=0) + gzip.compress(whole[9:], mtime=0), SUBTREE_NAME)
    with pytest.raises(BlobDamaged, match="unpacks to more than"):
        parse_subtree(gzip.compress(whole + b" ", mtime=0), SUBTREE_NAME)


def test_many_contents_of_one_large_table_are_quick() -> None:
    """Many contents may use one large column: it is never copied, and read only on demand."""
    layout = BufferLayout()
    table = {"class": "k", "count": 1, "properties": {"u": string_column(layout, ["x" * 10_000_000], None)}}
    members = EVERYTHING | {
        "contentAvailability": [ALL] * 5000,
        "propertyTables": [table],
        "contentMetadata": [0] * 5000,
    }
    subtree = parse_subtree(make_binary_subtree(layout.as_subtree(members), layout.data), SUBTREE_NAME)
    with limit_cpu_time(2):
        result = expand_subtree(
            subtree, make_tiling(1, contents=5000), ROOT_CELL, {}, content_uri_properties={"k": "u"}
        )
        assert next(result.contents) == "x" * 10_000_000
