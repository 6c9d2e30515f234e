"""History of a mirror as JSON: what is written is read back, and damage costs the history alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilesync.catalog.history import decode_history, encode_history, read_history, write_history
from tilesync.catalog.sqlite import Database
from tilesync.model.history import HeldVersion, MirrorHistory, RunRecord

SCHEMA = "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;"

FULL = MirrorHistory(
    (
        RunRecord(
            "2026-11-01T02:00:00Z",
            *("2026-11-01T02:05:00Z", 6, "Unavailable", "the storage kept failing", "run again", 300.5),
            *("e1", "e1-2", "e2", "2026-10-31T09:00:00Z", True, True),
            *(1, 2, 3, 4, 5, 6, 7, 8, 9),
        ),
        RunRecord("2026-11-02T02:00:00Z"),
    ),
    HeldVersion("e1-2", "e1", "2026-10-30T09:00:00Z", "2026-10-31T02:00:00Z", 440, 8_000_000),
    "2026-10-31T02:05:00Z",
    "2026-11-01T02:00:00Z",
    "e2",
    "2026-10-31T09:00:00Z",
)


def test_a_history_is_stored_and_read(tmp_path: Path) -> None:
    """Every field of a history survives the database, under its own key."""
    database = Database(tmp_path / "state.sqlite3", SCHEMA, schema_version=1, read_only=False)
    assert read_history(database) == MirrorHistory()
    write_history(database, FULL)
    write_history(database, MirrorHistory(), "other")
    assert read_history(database) == FULL
    assert read_history(database, "other") == MirrorHistory()
    database.close()


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"runs": 3, "held": []}', '{"runs": [3, {}, {"exit": 0}]}'])
def test_damage_counts_as_missing(text: str) -> None:
    """A history that cannot be read is an empty one."""
    assert decode_history(text) == MirrorHistory()


def test_fields_of_another_type_count_as_missing() -> None:
    """A run with wrong or unknown fields keeps the others."""
    text = '{"runs": [{"started": "a", "exit": "0", "bytes": true, "files": 1.5, "seconds": 2, "new": 1}], "newest": 3}'
    assert decode_history(text) == MirrorHistory((RunRecord("a", seconds=2),))


def test_a_full_history_is_small() -> None:
    """Thirty runs of a quiet mirror need a few kilobytes."""
    history = MirrorHistory()
    for number in range(40):
        history = history.with_run(RunRecord(f"2026-11-01T02:00:{number:02d}Z", exit=0, export="e" * 36, kept=20_000))
    assert len(encode_history(history)) < 5_000


def test_half_a_surrogate_pair_does_not_lose_the_history() -> None:
    """A message with the name of a file that is not UTF-8 can be stored, and read again."""
    history = MirrorHistory((RunRecord("t1", exit=3, message="bad\udc80.glb"),))
    (run,) = decode_history(encode_history(history)).runs
    assert run.message == "bad?.glb"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_number_that_is_none_is_left_out(number: str) -> None:
    """A damaged number of seconds cannot reach charts and tables."""
    assert decode_history(f'{{"runs":[{{"started":"a","seconds":{number}}}]}}') == MirrorHistory((RunRecord("a"),))


def test_a_document_that_is_nested_too_deep_counts_as_missing() -> None:
    """A damaged value costs the history, not the run."""
    assert decode_history('{"runs":' + "[" * 200_000 + "]" * 200_000 + "}") == MirrorHistory()
