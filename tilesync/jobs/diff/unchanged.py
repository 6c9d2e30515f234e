"""Find the files that are the same on both sides, while both manifests are read side by side.

The record of a file that did not change is the same bytes on both sides, whatever the order of the lines. So the sides
are read in turns, and records that the other side has read too are dropped at once. What is left waits for its match,
until so much waits that it is handed over to the comparison by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

MAX_WAITING_RECORDS: Final = 1 << 15
"""Records of one side that wait for the other side. If more are left over, their files changed."""

Rest = Callable[[int, list[bytes]], None]
"""Receives records that no line of the other side equals so far, and the number of their side: 0 or 1."""


def match_unchanged(sides: tuple[Iterator[list[bytes]], Iterator[list[bytes]]], on_rest: Rest) -> Iterator[list[bytes]]:
    """Yield the records that both sides have; pass all others to `on_rest`.

    `on_rest` may receive records that come later on the other side: the comparison by name finds these.
    """
    waiting = dict[bytes, None](), dict[bytes, None]()  # in the order of the lines, so that sorting them is fast
    lines_read, open_sides = [0, 0], [0, 1]
    while open_sides:
        side = min(open_sides, key=lines_read.__getitem__)
        batch = next(sides[side], None)
        if batch is None:
            open_sides.remove(side)
            continue
        lines_read[side] += len(batch)
        mine, others = waiting[side], waiting[1 - side]
        new = dict.fromkeys(batch)
        common = new.keys() & others.keys()
        for each in common:
            del new[each], others[each]
        if common:
            yield list(common)
        mine.update(new)
        if len(mine) > MAX_WAITING_RECORDS:
            on_rest(side, list(mine))
            mine.clear()
    for side in (0, 1):
        on_rest(side, list(waiting[side]))
