"""Compare files of both sides by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from tilesync.jobs.diff.moves import sha256_keys
from tilesync.jobs.diff.records import NAME_END, is_same_content, parse_name, parse_record


class NameComparison(NamedTuple):
    """Records of files compared by name; of changed files in A and in B."""

    same: list[bytes]
    changed: list[tuple[bytes, bytes]]
    removed: list[bytes]
    added: list[bytes]


def index_by_name(records: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the records of files by their names. Raises ValueError if a name comes twice."""
    names = [each.partition(NAME_END)[0] for each in records]
    index = dict(zip(names, records, strict=True))
    if len(index) != len(records):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise ValueError(f"it lists {parse_name(twice)!r} twice")
    return index


def compare_names(a: dict[bytes, bytes], b: dict[bytes, bytes], *, needs_md5: bool) -> NameComparison:
    """Compare two indexes of `index_by_name`, which are emptied.

    `needs_md5`: a SHA-256 is missing somewhere, or a file is stored unpacked.
    """
    names = [name for name in a if name in b]
    pairs = list(zip(map(a.pop, names), map(b.pop, names), strict=True))
    if needs_md5:
        proofs = [is_same_content(*(parse_record(each.partition(NAME_END)[2]) for each in pair)) for pair in pairs]
    else:
        keys = zip(sha256_keys([old for old, _ in pairs]), sha256_keys([new for _, new in pairs]), strict=True)
        proofs = [old == new for old, new in keys]
    same = [pair[1] for pair, is_same in zip(pairs, proofs, strict=True) if is_same]
    changed = [pair for pair, is_same in zip(pairs, proofs, strict=True) if not is_same]
    return NameComparison(same, changed, list(a.values()), list(b.values()))
