"""Pairing of removed and added files of the same content."""

from __future__ import annotations

from itertools import permutations

from tilesync.jobs.diff.moves import md5_keys, pair_moves, sha256_keys
from tilesync.jobs.diff.records import FileRecord, make_record


def record(name: str, digit: str = "a") -> bytes:
    return make_record(name, FileRecord(5, digit * 64, digit * 32))


def test_files_of_unknown_content_are_never_paired() -> None:
    """Without a digest nothing shows that a file was moved."""
    unknown = make_record("a.glb", FileRecord(5, "", ""))
    assert pair_moves([unknown], [unknown], sha256_keys) == ([], [unknown], [unknown])
    assert pair_moves([unknown], [unknown], md5_keys) == ([], [unknown], [unknown])


def test_the_last_part_of_the_name_decides_among_copies() -> None:
    """Copies are paired by the last part of their names, then by the order of names, whatever the order of input."""
    old, new = (
        [record("a/1.glb"), record("a/2.glb"), record("a/3.glb")],
        [record("b/3.glb"), record("b/1.glb"), record("b/9")],
    )
    for removed in permutations(old):
        for added in permutations(new):
            moves = pair_moves(removed, added, sha256_keys)
            assert sorted(moves.pairs) == [(old[0], new[1]), (old[1], new[2]), (old[2], new[0])]
            assert (moves.removed, moves.added) == ([], [])


def test_what_has_no_counterpart_is_left() -> None:
    """Of three removed and one added file of the same content, the first by name is moved."""
    old = [record("a/3"), record("a/2"), record("a/1"), record("x", "b")]
    moves = pair_moves(old, [record("z"), record("y", "c")], md5_keys)
    assert moves.pairs == [(record("a/1"), record("z"))]
    assert sorted(moves.removed) == sorted([record("a/2"), record("a/3"), record("x", "b")])
    assert moves.added == [record("y", "c")]
