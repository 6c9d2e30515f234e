"""Pair removed and added files of the same content: these were moved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tilesync.jobs.diff.records import NAME_END, content_in_container, parse_record

_SHA256_START = b',"sha256":"'
_SHA256_HEX_DIGITS = 64

ContentKeys = Callable[[Sequence[bytes]], list[bytes]]
"""Returns a key for the record of each file: equal for files of the same content, and empty if there is none."""


class Moves(NamedTuple):
    """Result of pairing: the records of moved files in A and in B, and of files that have no counterpart."""

    pairs: list[tuple[bytes, bytes]]
    removed: list[bytes]
    added: list[bytes]


def sha256_keys(records: Sequence[bytes]) -> list[bytes]:
    """Return the SHA-256 of each file; empty if it is not known."""
    return [each.partition(_SHA256_START)[2][:_SHA256_HEX_DIGITS] for each in records]


def md5_keys(records: Sequence[bytes]) -> list[bytes]:
    """Return the MD5 and the size of each file's bytes in the container; empty if the MD5 is not known."""
    contents = (content_in_container(parse_record(each.partition(NAME_END)[2])) for each in records)
    return [f"{md5} {size}".encode() if md5 else b"" for md5, size in contents]


def pair_moves(removed: Sequence[bytes], added: Sequence[bytes], find_keys: ContentKeys) -> Moves:
    """Pair removed and added files of the same content.

    If several files have one content, a pair keeps the last part of the name where that is possible; the others are
    paired in the order of their names. So the result does not depend on the order of the input.
    """
    old_keys, new_keys = find_keys(removed), find_keys(added)
    old_by_key, new_by_key = dict(zip(old_keys, removed, strict=True)), dict(zip(new_keys, added, strict=True))
    if len(old_by_key) < len(removed) or len(new_by_key) < len(added):
        return _pair_groups(_group(old_keys, removed), _group(new_keys, added))
    common = [key for key in new_by_key if key and key in old_by_key]
    pairs = [(old_by_key.pop(key), new_by_key.pop(key)) for key in common]
    return Moves(pairs, list(old_by_key.values()), list(new_by_key.values()))


def _group(keys: Sequence[bytes], records: Sequence[bytes]) -> dict[bytes, list[bytes]]:
    groups = dict[bytes, list[bytes]]()
    for key, each in zip(keys, records, strict=True):
        groups.setdefault(key, []).append(each)
    return groups


def _pair_groups(old_by_key: dict[bytes, list[bytes]], new_by_key: dict[bytes, list[bytes]]) -> Moves:
    """Pair files of which several may have the same content."""
    pairs = list[tuple[bytes, bytes]]()
    for key in old_by_key.keys() & new_by_key.keys() - {b""}:
        old, new = old_by_key[key], new_by_key[key]
        pairs += _pair_by_last_part(old, new)
        count = min(len(old), len(new))
        pairs += zip(old[:count], new[:count], strict=True)
        del old[:count], new[:count]
    return Moves(pairs, _flatten(old_by_key), _flatten(new_by_key))


def _pair_by_last_part(old: list[bytes], new: list[bytes]) -> list[tuple[bytes, bytes]]:
    """Take the pairs with the same last part of the name out of two lists, and leave both sorted by name."""
    old.sort(reverse=True)
    new.sort()
    old_by_part = dict[bytes, list[bytes]]()
    for each in old:
        old_by_part.setdefault(_last_part(each), []).append(each)
    pairs = [(found.pop(), each) for each in new if (found := old_by_part.get(_last_part(each)))]
    taken_old, taken_new = {pair[0] for pair in pairs}, {pair[1] for pair in pairs}
    old[:] = [each for each in reversed(old) if each not in taken_old]
    new[:] = [each for each in new if each not in taken_new]
    return pairs


def _last_part(record: bytes) -> bytes:
    return record.partition(NAME_END)[0].rpartition(b"/")[2]


def _flatten(groups: dict[bytes, list[bytes]]) -> list[bytes]:
    return [each for group in groups.values() for each in group]
