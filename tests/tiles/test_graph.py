"""Tilesets that ask for each other in a circle."""

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesync.tiles.graph import find_cycles

NAMES = st.sampled_from("abcdef")
EDGES = st.lists(st.tuples(NAMES, NAMES), max_size=14)


def has_cycle(asks: list[tuple[str, str]]) -> bool:
    """Whether some name leads back to itself, found the slow way."""
    reach = {(source, target) for source, target in asks}
    for _ in asks:
        reach |= {(a, d) for a, b in reach for c, d in reach if b == c}
    return any(source == target for source, target in reach)


@given(EDGES)
def test_circles_are_found(asks: list[tuple[str, str]]) -> None:
    """Steps are told exactly where there is a circle; each is one of a circle, and without them there is none."""
    found = list(find_cycles(asks))
    assert bool(found) is has_cycle(asks)
    assert set(found) <= set(asks)
    assert not has_cycle([step for step in asks if step not in found])
    for step in found:
        rest = [other for other in asks if other not in found]
        assert has_cycle([*rest, step])


@given(EDGES, st.randoms())
def test_the_order_makes_no_difference_to_whether(asks: list[tuple[str, str]], dice: random.Random) -> None:
    """Whether there is a circle does not depend on the order in which the steps come."""
    other = list(asks)
    dice.shuffle(other)
    assert bool(list(find_cycles(other))) is bool(list(find_cycles(asks)))


@pytest.mark.parametrize(
    ("asks", "found"),
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
def test_circles(asks: list[tuple[str, str]], found: list[tuple[str, str]]) -> None:
    """A file that asks for itself and a circle of many are told by the step that closes them; diamonds are none."""
    assert sorted(find_cycles(asks)) == found


@pytest.mark.parametrize("closed", [False, True])
def test_long_chains(closed: bool) -> None:
    """A chain of 200,000 files is followed in linear time and without recursion."""
    count = 200_000
    asks = [(f"{number:06}", f"{number + 1:06}") for number in range(count)]
    asks += [(f"{count:06}", "000000")] * closed
    began = time.process_time()
    assert list(find_cycles(asks)) == [(f"{count:06}", "000000")] * closed
    assert time.process_time() - began < 5


def test_many_that_ask_for_one() -> None:
    """A fan of 100,000 files that share one is no circle, and one of them that closes it is told."""
    asks = [("root", f"{number}") for number in range(100_000)] + [(f"{number}", "z") for number in range(100_000)]
    assert list(find_cycles(iter(asks))) == []
    assert list(find_cycles([*asks, ("z", "77")])) in ([("77", "z")], [("z", "77")])
