"""SQLite database file: transactions, migrations, kills and errors."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tilesync.catalog.sqlite import Database
from tilesync.errors import DestinationError, DiskFull

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS item (name TEXT PRIMARY KEY);
"""


def open_database(
    path: Path, *, schema: str = SCHEMA, version: int = 3, read_only: bool = False, is_persistent: bool = True
) -> Database:
    return Database(path, schema, schema_version=version, read_only=read_only, is_persistent=is_persistent)


def items(database: Database) -> list[str]:
    return [row[0] for row in database.query("SELECT name FROM item ORDER BY name")]


def fail_half_way(database: Database, error: BaseException) -> None:
    with database.transaction() as db:
        db.execute("INSERT INTO item VALUES ('a')")
        raise error


def test_committed_values_are_read_back(path: Path) -> None:
    """A committed transaction survives closing; a value is kept under its key."""
    database = open_database(path)
    assert database.is_new
    with database.transaction() as db:
        db.execute("INSERT INTO item VALUES ('a'), ('b')")
    database.set_value("fact", "1")
    database.set_value("fact", "2")
    database.close()
    database = open_database(path)
    assert not database.is_new
    assert items(database) == ["a", "b"]
    assert (database.get_value("fact"), database.get_value("other"), database.get_value("schema")) == ("2", None, "3")
    database.close()


@pytest.mark.parametrize("is_persistent", [True, False])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_a_transaction_that_fails_leaves_nothing(path: Path, error: type[BaseException], is_persistent: bool) -> None:
    """Any exception rolls the transaction back and comes through, and the next transaction works; also in a file that
    need not persist.
    """
    database = open_database(path, is_persistent=is_persistent)
    with pytest.raises(error):
        fail_half_way(database, error())
    assert items(database) == []
    with database.transaction() as db:
        db.execute("INSERT INTO item VALUES ('b')")
    assert items(database) == ["b"]
    database.close()


def test_many_threads_write_at_once(path: Path) -> None:
    """Transactions of many threads do not mix, and queries see only whole ones."""
    database = open_database(path)
    counts: list[int] = []

    def write(thread: int) -> None:
        for number in range(50):
            with database.transaction() as db:
                db.execute("INSERT INTO item VALUES (?)", (f"{thread}-{number}-a",))
                db.execute("INSERT INTO item VALUES (?)", (f"{thread}-{number}-b",))
            counts.append(len(items(database)))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(items(database)) == 800
    assert not any(count % 2 for count in counts)
    database.close()


def test_an_older_file_is_emptied(path: Path) -> None:
    """A file of an earlier version loses every table, also unknown ones, and is new once."""
    old = open_database(path, schema=SCHEMA + "CREATE TABLE IF NOT EXISTS gone (x);", version=2)
    with old.transaction() as db:
        db.execute("INSERT INTO item VALUES ('a')")
        db.execute("CREATE INDEX on_gone ON gone (x)")
    old.set_value("fact", "1")
    old.close()
    for fresh in (True, False):
        database = open_database(path)
        assert (database.is_new, items(database), database.get_value("fact")) == (fresh, [], None)
        tables = {row[0] for row in database.query("SELECT name FROM sqlite_schema WHERE type='table'")}
        assert tables == {"meta", "item"}
        database.close()


def test_a_newer_file_is_refused_and_left(path: Path) -> None:
    """A file of a later version is refused with the hint to upgrade, by readers too, and stays unchanged."""
    newer = open_database(path, version=4)
    with newer.transaction() as db:
        db.execute("INSERT INTO item VALUES ('a')")
    newer.close()
    for read_only in (False, True):
        with pytest.raises(DestinationError, match="newer tilesync") as error:
            open_database(path, read_only=read_only)
        assert error.value.hint == "upgrade tilesync"
    newer = open_database(path, version=4)
    assert (newer.is_new, items(newer)) == (False, ["a"])
    newer.close()


def test_reading_only_works_on_a_copy(path: Path) -> None:
    """Writes of a reader go to a copy; the file, its side files and its folder stay unchanged."""
    database = open_database(path)
    with database.transaction() as db:
        db.execute("INSERT INTO item VALUES ('a')")
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    assert len(before) == 3
    reader = open_database(path, read_only=True)
    with reader.transaction() as db:
        db.execute("INSERT INTO item VALUES ('b')")
    assert items(reader) == ["a", "b"]
    reader.close()
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before
    database.close()


def test_reading_a_missing_file(path: Path) -> None:
    """A missing file reads as an empty one and is not created."""
    reader = open_database(path, read_only=True)
    assert (reader.is_new, items(reader)) == (True, [])
    reader.close()
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("data", [b"no database" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_damage_is_explained(path: Path, data: bytes) -> None:
    """A file that is not a sound database is a DestinationError with a hint."""
    path.write_bytes(data)
    with pytest.raises(DestinationError, match="damaged") as error:
        open_database(path)
    assert "delete" in error.value.hint
    assert path.read_bytes() == data


def test_a_page_that_is_damaged_later(path: Path) -> None:
    """Damage that only a query meets is the same error."""
    database = open_database(path)
    with database.transaction() as db:
        db.executemany("INSERT INTO item VALUES (?)", ((f"{number:0100}",) for number in range(1000)))
    database.close()
    data = path.read_bytes()
    path.write_bytes(data[:8192] + b"\xff" * (len(data) - 8192))
    database = open_database(path)
    with pytest.raises(DestinationError, match="damaged"):
        items(database)
    database.close()


def test_symlinks_are_refused(path: Path, tmp_path: Path) -> None:
    """A symlink is not followed, wherever it leads."""
    (tmp_path / "elsewhere").touch()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DestinationError, match="symlink"):
        open_database(path)
    assert (tmp_path / "elsewhere").read_bytes() == b""


def test_a_folder_in_the_way(path: Path) -> None:
    """A folder in place of the file is a DestinationError."""
    path.mkdir()
    with pytest.raises(DestinationError, match="found a folder where a file is needed"):
        open_database(path)


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE])
def test_a_full_disk_has_its_own_error(path: Path, code: int) -> None:
    """SQLite errors of a full disk become DiskFull, and the transaction is rolled back."""
    database = open_database(path)
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = code
    with pytest.raises(DiskFull, match="disk is full"):
        fail_half_way(database, full)
    assert items(database) == []
    database.close()


def test_a_real_size_limit(path: Path) -> None:
    """Where SQLite itself runs out of space, the error is DiskFull, and earlier rows stay."""
    database = open_database(path)
    with database.transaction() as db:
        db.execute("INSERT INTO item VALUES ('a')")
    database.query("PRAGMA max_page_count = 10")
    with pytest.raises(DiskFull), database.transaction() as db:
        db.executemany("INSERT INTO item VALUES (?)", ((f"{number:01000}",) for number in range(1000)))
    assert items(database) == ["a"]
    database.set_value("fact", "still writes")
    database.close()


KILLED_IN_TRANSACTION = """
import os, sys
from pathlib import Path
from tilesync.catalog.sqlite import Database
database = Database(Path(sys.argv[1]), sys.argv[2], schema_version=3, read_only=False)
with database.transaction() as db:
    db.execute("INSERT INTO item VALUES ('whole')")
with database.transaction() as db:
    db.execute("INSERT INTO item VALUES ('half')")
    os.kill(os.getpid(), 9)
"""


def test_a_kill_rolls_back_the_transaction(path: Path) -> None:
    """A process killed in a transaction leaves the earlier ones and nothing of that one."""
    subprocess.run([sys.executable, "-c", KILLED_IN_TRANSACTION, path, SCHEMA], check=False)
    database = open_database(path)
    assert (database.is_new, items(database)) == (False, ["whole"])
    database.close()


KILLED_WHILE_EMPTYING = """
import os, sys
from pathlib import Path
from tilesync.catalog import sqlite as module

class Dying(module.sqlite3.Connection):
    def execute(self, sql, *values):
        if sql.startswith(sys.argv[3]):
            os.kill(os.getpid(), 9)
        return super().execute(sql, *values)

    def executescript(self, script):
        super().executescript(script)
        if sys.argv[3] == "made":
            os.kill(os.getpid(), 9)

connect = module.sqlite3.connect
module.sqlite3.connect = lambda *args, **how: connect(*args, factory=Dying, **how)
module.Database(Path(sys.argv[1]), sys.argv[2], schema_version=3, read_only=False)
"""


@pytest.mark.parametrize("step", ['DROP TABLE "meta"', 'DROP TABLE "item"', "made", "INSERT OR REPLACE INTO meta"])
def test_a_kill_while_it_is_emptied(path: Path, step: str) -> None:
    """After a kill at any step of emptying an older file, the next process finds it new and empty."""
    old = open_database(path, version=2)
    with old.transaction() as db:
        db.execute("INSERT INTO item VALUES ('a')")
    old.close()
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_EMPTYING, path, SCHEMA, step], check=False, capture_output=True
    )
    assert killed.returncode == -9, killed.stderr
    database = open_database(path)
    assert (database.is_new, items(database), database.get_value("schema")) == (True, [], "3")
    database.close()


def test_memory_for_many_rows_is_taken_on_request(path: Path) -> None:
    """A file has the small cache of SQLite until many rows are announced: a fleet keeps many files open."""
    database = open_database(path)
    small, small_log = (database.query(f"PRAGMA {name}")[0][0] for name in ("cache_size", "wal_autocheckpoint"))
    assert -2000 <= small < 0
    database.prepare_for_many_rows()
    assert database.query("PRAGMA cache_size")[0][0] == -8192
    assert database.query("PRAGMA wal_autocheckpoint")[0][0] > small_log
    database.close()
    database = open_database(path)
    assert database.query("PRAGMA cache_size")[0][0] == small
    database.close()
