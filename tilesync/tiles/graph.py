"""Tilesets that ask for each other: the circles among them, which 3D Tiles forbids ("External tilesets") and viewers
follow, and the order in which each comes behind what it asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tilesync.model import ROOT


def find_cycles(references: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Each step, from one name to another, that leads back: without them there is no circle. Takes linear time.

    Followed from the root first, then from what it does not lead to.
    """
    return ((name, target) for name, target in _walk_depth_first(references) if target is not None)


def sort_dependencies_first(references: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Every name that asks or is asked for, behind all that it asks for itself, as far as there are no circles."""
    return (name for name, target in _walk_depth_first(references) if target is None)


def _walk_depth_first(references: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str | None]]:
    """Each name when all below it has been seen, with None; and each step that leads back, with its target."""
    following: dict[str, list[str]] = {}
    for source, target in references:
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
                yield name, None
