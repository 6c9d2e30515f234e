"""Cycles of tilesets that reference each other."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cpu_limit import limit_cpu_time
from tilesync.tiles.graph import find_cycles

NAMES = st.sampled_from("abcdef")
EDGES = st.lists(st.tuples(NAMES, NAMES), max_size=14)


def has_cycle(references: list[tuple[str, str]]) -> bool:
    """Search for a cycle the slow way."""
    reach = {(source, target) for source, target in references}
    for _ in references:
        reach |= {(a, d) for a, b in reach for c, d in reach if b == c}
    return any(source == target for source, target in reach)


@given(EDGES)
def test_cycles_are_found(references: list[tuple[str, str]]) -> None:
    """References are returned exactly where there is a cycle; each is part of one, and without them there is none."""
    result = list(find_cycles(references))
    assert bool(result) is has_cycle(references)
    assert set(result) <= set(references)
    assert not has_cycle([step for step in references if step not in result])
    for step in result:
        rest = [other for other in references if other not in result]
        assert has_cycle([*rest, step])


@given(EDGES, st.randoms())
def test_the_order_makes_no_difference(references: list[tuple[str, str]], dice: random.Random) -> None:
    """The order of the references does not change whether a cycle is found."""
    other = list(references)
    dice.shuffle(other)
    assert bool(list(find_cycles(other))) is bool(list(find_cycles(references)))


@pytest.mark.parametrize(
    ("references", "result"),
    [
        ([], []),
        ([("a", "a")], [("a", "a")]),
        ([("a", "b"), ("b", "a")], [("b", "a")]),
        ([("b", "a"), ("a", "b")], [("b", "a")]),
        ([("A", "B"), ("B", "C"), ("C", "A")], [("C", "A")]),
        ([("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")], []),
        ([("a", "b"), ("b", "c"), ("c", "b"), ("b", "b")], [("b", "b"), ("c", "b")]),
        ([("x", "a"), ("a", "b"), ("b", "a"), ("x", "b")], [("b", "a")]),
        ([("a", "b"), ("b", "a"), ("c", "d"), ("d", "c")], [("b", "a"), ("d", "c")]),
    ],
)
def test_examples(references: list[tuple[str, str]], result: list[tuple[str, str]]) -> None:
    """A file that references itself and a long cycle give the closing reference; diamonds give none."""
    assert sorted(find_cycles(references)) == result


@pytest.mark.scale
@pytest.mark.parametrize("closed", [False, True])
def test_long_chains(closed: bool) -> None:
    """A chain of 200,000 files takes linear time and no recursion."""
    count = 200_000
    references = [(f"{number:06}", f"{number + 1:06}") for number in range(count)]
    references += [(f"{count:06}", "000000")] * closed
    with limit_cpu_time():
        assert list(find_cycles(references)) == [(f"{count:06}", "000000")] * closed


def test_a_wide_fan() -> None:
    """A fan of 100,000 files with one target is no cycle; a reference that closes one is returned."""
    references = [("root", f"{number}") for number in range(100_000)] + [
        (f"{number}", "z") for number in range(100_000)
    ]
    assert list(find_cycles(iter(references))) == []
    assert list(find_cycles([*references, ("z", "77")])) in ([("77", "z")], [("z", "77")])
