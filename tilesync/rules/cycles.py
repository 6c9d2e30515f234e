"""Tilesets that ask for each other in a circle: 3D Tiles forbids it ("External tilesets"), and viewers follow it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tilesync.model import ROOT


def cycles(asks: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Each step, from one name to another, that leads back: without them there is no circle. Takes linear time.

    Followed from the root first, then from what it does not lead to.
    """
    following: dict[str, list[str]] = {}
    for source, target in asks:
        following.setdefault(source, []).append(target)
    done: set[str] = set()
    for start in sorted(following, key=lambda name: (name != ROOT, name)):
        if start in done:
            continue
        path, active = [(start, iter(following[start]))], {start}
        while path:
            name, rest = path[-1]
            for target in rest:
                if target in active:
                    yield name, target
                elif target not in done:
                    active.add(target)
                    path.append((target, iter(following.get(target, ()))))
                    break
            else:
                path.pop()
                active.remove(name)
                done.add(name)
