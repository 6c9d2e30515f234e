"""Graph of tilesets that reference each other: find cycles and sort dependencies.

3D Tiles forbids cycles ("External tilesets"), but viewers follow them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tilesync.model import ROOT


def find_cycles(references: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Find the references that close a cycle, as pairs of names: without them there is no cycle.

    The search starts at the root, then at names that the root does not reach. It takes linear time.
    """
    return ((name, target) for name, target in _walk_depth_first(references) if target is not None)


def sort_dependencies_first(references: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Sort the names so that each comes after everything it references, as far as there are no cycles."""
    return (name for name, target in _walk_depth_first(references) if target is None)


def _walk_depth_first(references: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str | None]]:
    """Walk depth first: yield `(name, None)` for each finished name, and each reference that closes a cycle."""
    targets_by_source: dict[str, list[str]] = {}
    for source, target in references:
        targets_by_source.setdefault(source, []).append(target)
    done: set[str] = set()
    for start in sorted(targets_by_source, key=lambda name: (name != ROOT, name)):
        if start in done:
            continue
        path, active = [(start, iter(targets_by_source[start]))], {start}
        while path:
            name, rest = path[-1]
            for target in rest:
                if target in active:
                    yield name, target
                elif target not in done:
                    active.add(target)
                    path.append((target, iter(targets_by_source.get(target, ()))))
                    break
            else:
                path.pop()
                active.remove(name)
                done.add(name)
                yield name, None
