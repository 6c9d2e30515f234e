"""Collection of differences as JSON lines."""

from __future__ import annotations

import json

import pytest

from tilesync.jobs.diff import spool
from tilesync.jobs.diff.changes import ChangeKind, FileChange
from tilesync.jobs.diff.collector import ChangeCollector
from tilesync.jobs.diff.records import FileRecord, make_record

SHA256, MD5 = "ab" * 32, "cd" * 16
PLAIN, OTHER = FileRecord(5, SHA256, MD5), FileRecord(70, "12" * 32, "")
COPIED, PACKED = FileRecord(6, "", MD5), FileRecord(99, SHA256, MD5, 12)


@pytest.mark.parametrize("old", [PLAIN, COPIED, PACKED])
@pytest.mark.parametrize("new", [OTHER, COPIED, PACKED])
def test_changes_are_what_was_added(old: FileRecord, new: FileRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes of each kind come back by name, also from the temporary file; lines are their dictionaries."""
    monkeypatch.setattr(spool, "MAX_SORTED_BYTES", 300)
    changes = ChangeCollector()
    changes.add_moved([(make_record("z.glb", old), make_record('q"\t.glb', new))])
    changes.add_changed([(make_record(name, old), make_record(name, new)) for name in ("ä.json", "plain")])
    changes.add_removed([make_record("b.bin", old)])
    changes.add_added([make_record("a.png", new)])
    changes.add_same([make_record("c.glb", new)])
    changes.add_moved([])
    expected = [
        FileChange(ChangeKind.ADDED, "a.png", "image", None, new),
        FileChange(ChangeKind.REMOVED, "b.bin", "buffer", old, None),
        FileChange(ChangeKind.CHANGED, "plain", "other", old, new),
        FileChange(ChangeKind.MOVED, 'q"\t.glb', "content", old, new, "z.glb"),
        FileChange(ChangeKind.CHANGED, "ä.json", "tileset", old, new),
    ]
    assert list(changes) == expected
    lines = b"".join(changes.json_pieces()).decode().splitlines()
    assert lines == [json.dumps(each.to_dict(), ensure_ascii=False, separators=(",", ":")) for each in expected]
    totals = changes.totals(bytes_to_fetch=0, bytes_to_drop=0, keeps_urls=True)
    assert (totals.bytes_changed, totals.bytes_changed_old, totals.bytes_cached) == (
        2 * new.size,
        2 * old.size,
        new.size,
    )
    changes.close()
