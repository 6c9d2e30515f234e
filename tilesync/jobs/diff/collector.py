"""Collection of the differences between two versions, as JSON lines in a temporary file, and their counts.

The lines are made from the records of manifests without parsing these. The name comes first in a line, so that the
order of the lines is that of the names. The line of a file that is stored unpacked ends with a tab and its sizes in the
container, which are not printed: JSON escapes the tab in names.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any, Final

from tilesync.jobs.diff.changes import ChangeCounts, ChangeKind, DiffTotals, FileChange
from tilesync.jobs.diff.records import NAME_END, FileRecord, parse_name, parse_record
from tilesync.jobs.diff.roles import ROLES, cut_ending, find_role
from tilesync.jobs.diff.spool import SortedSpool

_ENDING_AND_SIZE: Final = re.compile(rb'(\.[^./"\n]*+)","size":([0-9]++),"sha256"')
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_SAME: Final = "same"
_UNPRINTED: Final = b'"proof"', b'"packed"'
"""Members of records that are not in the lines. Few manifests have them."""

_ROLE_PARTS: Final = {role: b'"role":"%b","size":' % role.encode() for role in ROLES}


def encode_lines(lines: Iterable[Mapping[str, Any]]) -> bytes:
    """Return JSON lines in one piece."""
    return "".join(f"{_ENCODER.encode(line)}\n" for line in lines).encode()


class ChangeCollector:
    """Collects differences and counts them. Iterating yields them by name, as often as wanted."""

    def __init__(self) -> None:
        self._lines = SortedSpool()
        self._files: Counter[tuple[str, str]] = Counter()
        self._new_bytes: Counter[str] = Counter()
        self._old_bytes: Counter[str] = Counter()

    def add_same(self, records: Sequence[bytes]) -> None:
        """Count files that are the same on both sides."""
        rows = _cut_endings_and_sizes(records)
        self._count_roles(_SAME, rows)
        self._new_bytes[_SAME] += _sum_sizes(rows)

    def add_added(self, records: Sequence[bytes]) -> None:
        """Add files that only B has."""
        self._new_bytes[ChangeKind.ADDED] += self._add(ChangeKind.ADDED, (), records)

    def add_removed(self, records: Sequence[bytes]) -> None:
        """Add files that only A has."""
        self._old_bytes[ChangeKind.REMOVED] += self._add(ChangeKind.REMOVED, records, ())

    def add_changed(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """Add files with other content: their records in A and in B."""
        old, new = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        self._new_bytes[ChangeKind.CHANGED] += self._add(ChangeKind.CHANGED, old, new)
        self._old_bytes[ChangeKind.CHANGED] += _sum_sizes(_cut_endings_and_sizes(old))

    def add_moved(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """Add files with another name: their records in A and in B."""
        old, new = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        self._new_bytes[ChangeKind.MOVED] += self._add(ChangeKind.MOVED, old, new)

    def _add(self, kind: ChangeKind, old: Sequence[bytes], new: Sequence[bytes]) -> int:
        """Add the lines of files, count them by their roles, and return their bytes."""
        rows = _cut_endings_and_sizes(new or old)
        roles = self._count_roles(kind, rows)
        self._lines.add(_make_lines(kind, old, new, [roles[ending] for ending, _ in rows]))
        return _sum_sizes(rows)

    def _count_roles(self, kind: str, rows: Sequence[tuple[bytes, bytes]]) -> dict[bytes, str]:
        """Count files by their roles; return the role of each ending."""
        counts = Counter(map(itemgetter(0), rows))
        roles = {ending: find_role(ending) for ending in counts}
        for ending, count in counts.items():
            self._files[kind, roles[ending]] += count
        return roles

    @property
    def has_common_contents(self) -> bool:
        """Return whether a file is the same, or was moved."""
        return any(kind in {_SAME, ChangeKind.MOVED} for kind, _ in self._files)

    def __iter__(self) -> Iterator[FileChange]:
        return map(_parse_line, self._lines)

    def json_pieces(self) -> Iterator[bytes]:
        """Yield the JSON of `FileChange.to_dict` for each difference, in pieces of whole lines, without parsing."""
        for lines in self._lines.batches():
            piece = b"\n".join(lines) + b"\n"
            yield piece if b"\t" not in piece else re.sub(rb"\t[^\n]*+", b"", piece)

    def close(self) -> None:
        """Remove the temporary file. Nothing can be read after it."""
        self._lines.close()

    def totals(self, *, bytes_to_fetch: int, bytes_to_drop: int, keeps_urls: bool) -> DiffTotals:
        """Return the totals. `keeps_urls`: a file of the same name has the same URL in A and in B."""
        kinds = (*(kind.value for kind in ChangeKind), _SAME)
        counts = {role: ChangeCounts(**{kind: self._files[kind, role] for kind in kinds}) for role in ROLES}
        return DiffTotals(
            files=ChangeCounts(**{kind: sum(getattr(each, kind) for each in counts.values()) for kind in kinds}),
            bytes_added=self._new_bytes[ChangeKind.ADDED],
            bytes_removed=self._old_bytes[ChangeKind.REMOVED],
            bytes_changed=self._new_bytes[ChangeKind.CHANGED],
            bytes_changed_old=self._old_bytes[ChangeKind.CHANGED],
            bytes_moved=self._new_bytes[ChangeKind.MOVED],
            bytes_same=self._new_bytes[_SAME],
            bytes_to_fetch=bytes_to_fetch,
            bytes_to_drop=bytes_to_drop,
            cached=sum(each.same for each in counts.values()) if keeps_urls else 0,
            bytes_cached=self._new_bytes[_SAME] if keeps_urls else 0,
            roles={role: each for role, each in counts.items() if each != ChangeCounts()},
        )


def _cut_endings_and_sizes(records: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """Return the ending of the name of each file, and its size."""
    rows: list[tuple[bytes, bytes]] = _ENDING_AND_SIZE.findall(b"\n".join(records))
    if len(rows) == len(records):
        return rows
    parts = (each.partition(NAME_END) for each in records)  # a name has no ending
    return [(cut_ending(name), rest.partition(b",")[0]) for name, _, rest in parts]


def _sum_sizes(rows: Sequence[tuple[bytes, bytes]]) -> int:
    return sum(map(int, map(itemgetter(1), rows)))


def _make_lines(kind: ChangeKind, old: Sequence[bytes], new: Sequence[bytes], roles: Sequence[str]) -> list[bytes]:
    """Return the line of each file. `old`, `new`: its record in A and in B; empty if the files are not there."""
    joined_old, joined_new = b"\n".join(old), b"\n".join(new)
    if any(member in joined_old or member in joined_new for member in _UNPRINTED):
        pairs = zip(old or repeat(None), new or repeat(None), roles, strict=False)
        return [_encode_change(_make_change(kind, *each)) for each in pairs]
    news = [each.partition(NAME_END) for each in new]
    olds = [each.rsplit(b',"', 3) for each in old]  # NAME", size":SIZE, sha256":…, md5":…
    join = b"".join
    names = [each[0] for each in news] if new else [each[0][:-1] for each in olds]
    rests = [each[2] for each in news] if new else repeat(b'null,"sha256":null,"md5":null')
    old_rests: Iterable[bytes] = (
        [join((b',"old_', size, b',"old_', sha256, b',"old_', md5, b"}")) for _, size, sha256, md5 in olds]
        if old
        else repeat(b',"old_size":null,"old_sha256":null,"old_md5":null}')
    )
    origins = [b'"from":"' + each[0] + b"," for each in olds] if kind is ChangeKind.MOVED else repeat(b"")
    start, change = b'{"kind":"file","name":"', b'","change":"%b",' % kind.encode()
    parts = map(_ROLE_PARTS.__getitem__, roles)
    rows = zip(repeat(start), names, repeat(change), origins, parts, rests, old_rests, strict=False)
    return list(map(join, rows))


def _make_change(kind: ChangeKind, old: bytes | None, new: bytes | None, role: str) -> FileChange:
    old_name, _, old_rest = (old or b"").partition(NAME_END)
    name, _, rest = (new or b"").partition(NAME_END)
    return FileChange(
        kind,
        parse_name(name or old_name),
        role,
        parse_record(old_rest) if old_rest else None,
        parse_record(rest) if rest else None,
        parse_name(old_name) if kind is ChangeKind.MOVED else None,
    )


def _encode_change(change: FileChange) -> bytes:
    packed_sizes = [each and each.packed_size for each in (change.old, change.new)]
    tail = "" if packed_sizes == [None, None] else f"\t{json.dumps(packed_sizes)}"
    return f"{_ENCODER.encode(change.to_dict())}{tail}".encode()


def _parse_line(line: bytes) -> FileChange:
    text, _, tail = line.partition(b"\t")
    document = json.loads(text)
    old_packed_size, packed_size = json.loads(tail) if tail else (None, None)
    return FileChange(
        ChangeKind(document["change"]),
        document["name"],
        document["role"],
        _read_content(document, "old_", old_packed_size),
        _read_content(document, "", packed_size),
        document.get("from"),
    )


def _read_content(document: Mapping[str, Any], prefix: str, packed_size: int | None) -> FileRecord | None:
    size, sha256, md5 = (document[f"{prefix}{name}"] for name in ("size", "sha256", "md5"))
    return None if size is None else FileRecord(size, sha256 or "", md5 or "", packed_size)
