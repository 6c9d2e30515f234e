"""Comparison of two versions, against a naive model with dictionaries."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.fake_destination import FakeDestination
from tilesync.core.manifest import encode_line, make_line
from tilesync.errors import DestinationError, Interrupted, UsageError
from tilesync.jobs.diff import job, reuse, spool, unchanged
from tilesync.jobs.diff.changes import ChangeCounts, FileChange
from tilesync.jobs.diff.job import compare_sides, compare_versions
from tilesync.jobs.diff.records import cut_records, parse_record
from tilesync.jobs.diff.sides import Side
from tilesync.model import Blob, StoredFile
from tilesync.protocols import ReadOnlyPublication
from tilesync.runtime.threads import STOP_EVENT


class Content(NamedTuple):
    """Content of a file in a test: its number, and whether its SHA-256 and its MD5 are known."""

    number: int
    has_sha256: bool = True
    has_md5: bool = True

    @property
    def size(self) -> int:
        """Return a size that belongs to the content."""
        return 10 + self.number

    def stored(self, name: str, etag: str) -> StoredFile:
        """Return the file with this content."""
        data = b"%d" % self.number
        md5 = hashlib.md5(data).digest() if self.has_md5 else None
        return StoredFile(
            Blob(name, self.size, etag, md5), hashlib.sha256(data).digest() if self.has_sha256 else b"", 0
        )


Files = Mapping[str, Content]

NAMES = st.sampled_from(
    ["tileset.json", "a.glb", "b.glb", "t/a.glb", "t/b.glb", "u/a.glb", "ä\u2028.subtree", 'q"\\.bin', "plain", "bin"]
)
STORED_FILES = st.dictionaries(NAMES, st.builds(Content, st.integers(0, 4), st.just(True), st.just(True)))
SOME_WITHOUT_SHA256 = st.dictionaries(NAMES, st.builds(Content, st.integers(0, 4), st.booleans(), st.just(True)))
ALL_WITHOUT_MD5 = st.dictionaries(NAMES, st.builds(Content, st.integers(0, 4), st.just(True), st.just(False)))
PAIRS_OF_SIDES = st.one_of(
    st.tuples(STORED_FILES, STORED_FILES),
    st.tuples(STORED_FILES, SOME_WITHOUT_SHA256),
    st.tuples(ALL_WITHOUT_MD5, ALL_WITHOUT_MD5),
)


def make_side(files: Files, *, order: Sequence[str] = (), batch: int = 2, etag: str = "e") -> Side:
    lines = [encode_line(make_line(files[name].stored(name, etag)))[:-1] for name in order or list(files)]
    pieces = [b"\n".join(lines[start : start + batch]) for start in range(0, len(lines), batch)]
    return Side("v", len(files), lambda: map(cut_records, pieces), lambda: iter(pieces))


@pytest.fixture(autouse=True)
def _small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use partitions, temporary files and several passes for a handful of files."""
    monkeypatch.setattr(job, "FILES_PER_PARTITION", 2)
    monkeypatch.setattr(spool, "MAX_BUFFERED_BYTES", 300)
    monkeypatch.setattr(spool, "MAX_SORTED_BYTES", 300)
    monkeypatch.setattr(unchanged, "MAX_WAITING_RECORDS", 2)
    monkeypatch.setattr(reuse, "MAX_CONTENTS_IN_MEMORY", 3)


def check_against_model(
    a: Files, b: Files, changes: Sequence[FileChange], totals: Mapping[str, Any], roles: Mapping[str, ChangeCounts]
) -> None:
    """Assert that changes and totals are those of two dictionaries."""
    by_kind: dict[str, list[FileChange]] = {kind: [] for kind in ("added", "removed", "changed", "moved")}
    for change in changes:
        by_kind[change.kind].append(change)
    moved = by_kind["moved"]
    removed, added = a.keys() - b.keys(), b.keys() - a.keys()
    assert [each.name for each in changes] == sorted(
        (each.name for each in changes), key=lambda name: json.dumps(name, ensure_ascii=False)[1:].encode()
    )
    assert sorted([*(each.name for each in by_kind["added"]), *(each.name for each in moved)]) == sorted(added)
    assert sorted([*(each.name for each in by_kind["removed"]), *(each.old_name or "" for each in moved)]) == sorted(
        removed
    )
    both = a.keys() & b.keys()
    assert {each.name for each in by_kind["changed"]} == {name for name in both if a[name].number != b[name].number}
    assert all(a[each.old_name or ""].number == b[each.name].number for each in moved)
    gone, new = (Counter(files[name].number for name in names) for files, names in ((a, removed), (b, added)))
    assert Counter(b[each.name].number for each in moved) == gone & new
    same = [name for name in both if a[name].number == b[name].number]
    expected = {kind: len(found) for kind, found in by_kind.items()} | {"same": len(same)}
    assert {kind: totals[kind] for kind in expected} == expected
    contents_a, contents_b = ({(each.number, each.size) for each in files.values()} for files in (a, b))
    assert totals["bytes_to_fetch"] == sum(size for _, size in contents_b - contents_a)
    assert totals["bytes_to_drop"] == sum(size for _, size in contents_a - contents_b)
    assert totals["bytes_same"] == sum(b[name].size for name in same)
    assert totals["bytes_added"] == sum(b[each.name].size for each in by_kind["added"])
    assert totals["bytes_removed"] == sum(a[each.name].size for each in by_kind["removed"])
    assert totals["bytes_moved"] == sum(b[each.name].size for each in moved)
    assert totals["bytes_changed"] == sum(b[each.name].size for each in by_kind["changed"])
    assert totals["bytes_changed_old"] == sum(a[each.name].size for each in by_kind["changed"])
    assert sum(sum(asdict(counts).values()) for counts in roles.values()) == sum(expected.values())


@given(PAIRS_OF_SIDES, st.data())
@examples(300)
def test_the_comparison_is_that_of_dictionaries(sides: tuple[Files, Files], data: st.DataObject) -> None:
    """Changes and totals are those of a naive model, whatever the order of the lines, also without SHA-256."""
    a, b = sides
    diff = compare_sides(make_side(a), make_side(b, etag="f"))
    changes = list(diff.changes)
    check_against_model(a, b, changes, diff.totals.to_dict(), diff.totals.roles)
    assert list(diff.changes) == changes
    orders = [data.draw(st.permutations(sorted(files))) for files in (a, b)]
    again = compare_sides(make_side(a, order=orders[0], batch=3), make_side(b, order=orders[1], batch=1))
    assert (list(again.changes), again.totals) == (changes, diff.totals)
    lines = b"".join(diff.changes.json_pieces()).splitlines()
    assert [json.loads(line) for line in lines] == [change.to_dict() for change in changes]


def test_a_file_without_any_digest_counts_as_changed() -> None:
    """Nothing proves that it is the same, so that a mirror would have to fetch it."""
    unknown = {"a.glb": Content(1, has_sha256=False, has_md5=False)}
    diff = compare_sides(make_side({"a.glb": Content(1)}), make_side(unknown))
    (change,) = diff.changes
    assert (change.kind, diff.totals.bytes_to_fetch, diff.totals.is_same) == ("changed", 11, False)
    assert change.new == parse_record(b'11,"sha256":null,"md5":null')


def publication_of(**versions: dict[str, bytes]) -> ReadOnlyPublication:
    destination = FakeDestination(chunk_bytes=50)
    for name, files in versions.items():
        destination.add_version(name, files)
    destination.set_latest(next(reversed(versions)))
    return cast(ReadOnlyPublication, destination)


def test_versions_are_compared_by_their_manifests() -> None:
    """The lines name each file that differs, sorted by name, and the last one has the totals; no file is read."""
    publication = publication_of(
        v1={"tileset.json": b"{}", "a.glb": b"a", "b.glb": b"b", "c.glb": b"c"},
        v2={"tileset.json": b"{}", "a.glb": b"A", "x/b.glb": b"b", "d.glb": b"dd"},
    )
    text = b"".join(compare_versions(publication, "v1", "current").json_pieces())
    *lines, tilesets, contents, last = map(json.loads, text.splitlines())
    assert [(line["change"], line["name"], line.get("from")) for line in lines] == [
        ("changed", "a.glb", None),
        ("removed", "c.glb", None),
        ("added", "d.glb", None),
        ("moved", "x/b.glb", "b.glb"),
    ]
    assert lines[0] == {
        "kind": "file",
        "change": "changed",
        "name": "a.glb",
        "role": "content",
        "size": 1,
        "sha256": hashlib.sha256(b"A").hexdigest(),
        "md5": None,
        "old_size": 1,
        "old_sha256": hashlib.sha256(b"a").hexdigest(),
        "old_md5": None,
    }
    counts = {name: last[name] for name in ("kind", "exit", "a", "b", "added", "removed", "changed", "moved", "same")}
    assert counts == {
        "kind": "finished",
        "exit": 0,
        "a": "v1",
        "b": "v2",
        "added": 1,
        "removed": 1,
        "changed": 1,
        "moved": 1,
        "same": 1,
    }
    assert (last["bytes_to_fetch"], last["bytes_to_drop"], last["cached"]) == (3, 2, 0)
    none = {"added": 0, "removed": 0, "changed": 0, "moved": 0, "same": 0}
    assert tilesets == {"kind": "role", "role": "tileset", **none, "same": 1}
    assert contents == {"kind": "role", "role": "content", **dict.fromkeys(none, 1), "same": 0}


def test_a_version_is_the_same_as_itself() -> None:
    """A version compared with itself has no changes; in the flat layout a viewer's cache keeps all of it."""
    publication = publication_of(v1={"tileset.json": b"{}", "a.glb": b"a"})
    diff = compare_versions(publication, "v1", "v")
    assert (list(diff.changes), diff.totals.is_same, diff.totals.bytes_to_fetch) == ([], True, 0)
    cached = compare_sides(diff.a, diff.b, keeps_urls=True).totals
    assert (cached.cached, cached.bytes_cached, cached.total_bytes) == (2, 3, 3)


def test_an_unknown_version_is_refused() -> None:
    """The error names the version."""
    with pytest.raises(UsageError, match="no version is named 'v9'"):
        compare_versions(publication_of(v1={}), "v1", "v9")


def test_a_name_that_comes_twice_is_damage() -> None:
    """Such a manifest cannot be compared by name."""
    line = encode_line(make_line(Content(1).stored("a.glb", "e")))[:-1]
    other = encode_line(make_line(Content(2).stored("a.glb", "e")))[:-1]
    twice = b"\n".join((line, other))
    side = Side("v7", 2, lambda: iter([cut_records(twice)]), lambda: iter([twice]))
    with pytest.raises(DestinationError, match=r"version v7 is damaged: it lists 'a\.glb' twice"):
        compare_sides(side, make_side({}))


def test_a_comparison_stops_when_it_is_cancelled() -> None:
    """A cancelled caller does not wait for the end of a long comparison."""
    stop = threading.Event()
    read: list[int] = []

    def open_records() -> Iterator[list[bytes]]:
        for number in range(50):
            read.append(number)
            stop.set()
            yield [b'%d","size":1,"sha256":null,"md5":null' % number for number in range(number * 3, number * 3 + 3)]

    token = STOP_EVENT.set(stop)
    try:
        with pytest.raises(Interrupted):
            compare_sides(Side("v", 150, open_records, lambda: iter(())), make_side({}))
    finally:
        STOP_EVENT.reset(token)
    assert len(read) < 50
