"""The SQLite file behind the catalog."""

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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "db.sqlite3"


def opened(
    path: Path, *, schema: str = SCHEMA, version: int = 3, read_only: bool = False, lasting: bool = True
) -> Database:
    return Database(path, schema, schema_version=version, read_only=read_only, is_persistent=lasting)


def items(database: Database) -> list[str]:
    return [row[0] for row in database.query("SELECT name FROM item ORDER BY name")]


def fail_half_way(database: Database, error: BaseException) -> None:
    with database.transaction() as db:
        db.execute("INSERT INTO item VALUES ('a')")
        raise error


def test_what_is_written_comes_back(path: Path) -> None:
    """A transaction that ends is kept, also after closing; a fact is kept under its key."""
    database = opened(path)
    assert database.is_new
    with database.transaction() as db:
        db.execute("INSERT INTO item VALUES ('a'), ('b')")
    database.set_value("fact", "1")
    database.set_value("fact", "2")
    database.close()
    database = opened(path)
    assert not database.is_new
    assert items(database) == ["a", "b"]
    assert (database.get_value("fact"), database.get_value("other"), database.get_value("schema")) == ("2", None, "3")
    database.close()


@pytest.mark.parametrize("lasting", [True, False])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_a_transaction_that_fails_leaves_nothing(path: Path, error: type[BaseException], lasting: bool) -> None:
    """Whatever ends a transaction early, none of it is kept, the error comes through, and the next one works; also
    where the file need not last.
    """
    database = opened(path, lasting=lasting)
    with pytest.raises(error):
        fail_half_way(database, error())
    assert items(database) == []
    with database.transaction() as db:
        db.execute("INSERT INTO item VALUES ('b')")
    assert items(database) == ["b"]
    database.close()


def test_many_threads_write_at_once(path: Path) -> None:
    """Transactions of many threads do not mix, and questions between them see whole ones only."""
    database = opened(path)
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
    """A file of an earlier version loses every table, also such as are known no more, and is fresh once."""
    old = opened(path, schema=SCHEMA + "CREATE TABLE IF NOT EXISTS gone (x);", version=2)
    with old.transaction() as db:
        db.execute("INSERT INTO item VALUES ('a')")
        db.execute("CREATE INDEX on_gone ON gone (x)")
    old.set_value("fact", "1")
    old.close()
    for fresh in (True, False):
        database = opened(path)
        assert (database.is_new, items(database), database.get_value("fact")) == (fresh, [], None)
        tables = {row[0] for row in database.query("SELECT name FROM sqlite_schema WHERE type='table'")}
        assert tables == {"meta", "item"}
        database.close()


def test_a_newer_file_is_refused_and_left(path: Path) -> None:
    """A file of a later version is refused with the advice to upgrade, by readers too, and nothing in it changes."""
    newer = opened(path, version=4)
    with newer.transaction() as db:
        db.execute("INSERT INTO item VALUES ('a')")
    newer.close()
    for read_only in (False, True):
        with pytest.raises(DestinationError, match="newer tilesync") as error:
            opened(path, read_only=read_only)
        assert error.value.hint == "upgrade tilesync"
    newer = opened(path, version=4)
    assert (newer.is_new, items(newer)) == (False, ["a"])
    newer.close()


def test_reading_only_works_on_a_copy(path: Path) -> None:
    """What a reader writes is gone with it, and the file, its side files and its folder stay as they are."""
    database = opened(path)
    with database.transaction() as db:
        db.execute("INSERT INTO item VALUES ('a')")
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    assert len(before) == 3
    reader = opened(path, read_only=True)
    with reader.transaction() as db:
        db.execute("INSERT INTO item VALUES ('b')")
    assert items(reader) == ["a", "b"]
    reader.close()
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before
    database.close()


def test_reading_only_what_is_not_there(path: Path) -> None:
    """A file that is missing reads as an empty one, and is not made."""
    reader = opened(path, read_only=True)
    assert (reader.is_new, items(reader)) == (True, [])
    reader.close()
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("data", [b"no database" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_damage_is_explained(path: Path, data: bytes) -> None:
    """A file that is no sound database is an error of the destination that says what to do."""
    path.write_bytes(data)
    with pytest.raises(DestinationError, match="damaged") as error:
        opened(path)
    assert "delete" in error.value.hint
    assert path.read_bytes() == data


def test_a_page_that_is_damaged_later(path: Path) -> None:
    """Damage that a question meets is the same error."""
    database = opened(path)
    with database.transaction() as db:
        db.executemany("INSERT INTO item VALUES (?)", ((f"{number:0100}",) for number in range(1000)))
    database.close()
    data = path.read_bytes()
    path.write_bytes(data[:8192] + b"\xff" * (len(data) - 8192))
    database = opened(path)
    with pytest.raises(DestinationError, match="damaged"):
        items(database)
    database.close()


def test_symlinks_are_refused(path: Path, tmp_path: Path) -> None:
    """A symlink is not followed, wherever it leads."""
    (tmp_path / "elsewhere").touch()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DestinationError, match="symlink"):
        opened(path)
    assert (tmp_path / "elsewhere").read_bytes() == b""


def test_a_folder_in_the_way(path: Path) -> None:
    """A folder in the place of the file is an error of the destination."""
    path.mkdir()
    with pytest.raises(DestinationError, match="a folder stands where a file is needed"):
        opened(path)


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE])
def test_a_full_disk_has_its_own_error(path: Path, code: int) -> None:
    """What SQLite says of a disk without room is DiskFull, and the transaction is undone."""
    database = opened(path)
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = code
    with pytest.raises(DiskFull, match="disk is full"):
        fail_half_way(database, full)
    assert items(database) == []
    database.close()


def test_a_real_bound_on_room(path: Path) -> None:
    """Where SQLite itself runs out of room, which ends the transaction, that is told, and what was there stays."""
    database = opened(path)
    with database.transaction() as db:
        db.execute("INSERT INTO item VALUES ('a')")
    database.query("PRAGMA max_page_count = 10")
    with pytest.raises(DiskFull), database.transaction() as db:
        db.executemany("INSERT INTO item VALUES (?)", ((f"{number:01000}",) for number in range(1000)))
    assert items(database) == ["a"]
    database.set_value("fact", "still writes")
    database.close()


KILLED = """
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


def test_a_kill_undoes_what_is_under_way(path: Path) -> None:
    """Killed within a transaction, a process leaves what it had ended before and nothing of that one."""
    subprocess.run([sys.executable, "-c", KILLED, path, SCHEMA], check=False)
    database = opened(path)
    assert (database.is_new, items(database)) == (False, ["whole"])
    database.close()


EMPTYING = """
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
    """Killed at any step of emptying an older file, the next one finds it fresh and empty all the same."""
    old = opened(path, version=2)
    with old.transaction() as db:
        db.execute("INSERT INTO item VALUES ('a')")
    old.close()
    killed = subprocess.run([sys.executable, "-c", EMPTYING, path, SCHEMA, step], check=False, capture_output=True)
    assert killed.returncode == -9, killed.stderr
    database = opened(path)
    assert (database.is_new, items(database), database.get_value("schema")) == (True, [], "3")
    database.close()
