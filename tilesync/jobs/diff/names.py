"""Compare files of both sides by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from tilesync.jobs.diff.facts import NAME_END, is_same_content, parse_facts, parse_name


class NameComparison(NamedTuple):
    """Facts of files compared by name; of changed files in A and in B."""

    same: list[bytes]
    changed: list[tuple[bytes, bytes]]
    removed: list[bytes]
    added: list[bytes]


def index_by_name(facts: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the facts of files by their names. Raises ValueError if a name comes twice."""
    names = [each.partition(NAME_END)[0] for each in facts]
    index = dict(zip(names, facts, strict=True))
    if len(index) != len(facts):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise ValueError(f"it lists {parse_name(twice)!r} twice")
    return index


def compare_names(a: dict[bytes, bytes], b: dict[bytes, bytes]) -> NameComparison:
    """Compare two indexes of `index_by_name`, which are emptied."""
    same, changed = list[bytes](), list[tuple[bytes, bytes]]()
    for name in a.keys() & b.keys():
        old, new = a.pop(name), b.pop(name)
        start = len(name) + len(NAME_END)
        if old == new or is_same_content(parse_facts(old[start:]), parse_facts(new[start:])):
            same.append(new)
        else:
            changed.append((old, new))
    return NameComparison(same, changed, list(a.values()), list(b.values()))
