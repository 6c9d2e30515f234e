"""The lock of a folder: one process at a time, told by its id, host and time."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tilesync.core.manifest import format_timestamp
from tilesync.errors import DestinationBusy, DestinationError
from tilesync.events import Event, Warned
from tilesync.stores.local.lock_file import busy_message, locked_folder, locked_temporary_folder
from tilesync.stores.lock_holder import LockHolder, parse_holder

HOLD = """
import sys
from pathlib import Path
from tilesync.stores.local.destination import open_local
with open_local(Path(sys.argv[1]), state_dir=Path(sys.argv[2]) if len(sys.argv) > 2 else None):
    print("held", flush=True)
    sys.stdin.read()
"""


def ignore_event(event: Event) -> None:
    """Nobody listens."""


@contextmanager
def process_holding(*words: object) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a destination."""
    command = [sys.executable, "-c", HOLD, *map(str, words)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            yield holder
        finally:
            holder.kill()


def open_and_close(root: Path, state: Path | None) -> None:
    from tilesync.stores.local.destination import open_local

    with open_local(root, state_dir=state):
        pass


@pytest.mark.parametrize("theirs", [None, "theirs"])
@pytest.mark.parametrize("ours", [None, "ours", "theirs"])
def test_state_folders_of_their_own_do_not_part_two_runs(tmp_path: Path, theirs: str | None, ours: str | None) -> None:
    """Wherever its state is, a second run into one folder is kept out, and is told by whom, where, and since when."""
    root = tmp_path / "d"
    with process_holding(root, *([tmp_path / theirs] if theirs else [])) as holder:
        state = tmp_path / ours if ours else None
        with pytest.raises(DestinationBusy) as error:
            open_and_close(root, state)
        assert f"another run holds {root}: process {holder.pid} on {socket.gethostname()}, since 20" in str(error.value)
        assert str(error.value).rpartition(" ")[2] >= format_timestamp(datetime.now(UTC) - timedelta(minutes=5))
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        open_and_close(root, state)


def test_a_state_folder_serves_one_run_at_a_time(tmp_path: Path) -> None:
    """One state folder for two destinations is still one state: the second is refused, also while the first runs."""
    with (
        process_holding(tmp_path / "one", tmp_path / "state"),
        pytest.raises(DestinationError, match="the state folder"),
    ):
        open_and_close(tmp_path / "two", tmp_path / "state")


def test_a_lock_that_was_lent_leaves_nothing(tmp_path: Path) -> None:
    """With its state elsewhere a destination has a `.tilesync` while a run lasts, and after one that was killed until
    the next has ended.
    """
    root, state = tmp_path / "d", tmp_path / "s"
    open_and_close(root, state)
    assert os.listdir(root) == []
    with process_holding(root, state) as holder:
        assert sorted(os.listdir(root / ".tilesync")) == ["holder.json", "lock"]
        holder.kill()
        holder.wait()
    (root / ".tilesync/holder.json.123").write_text("half")
    open_and_close(root, state)
    assert os.listdir(root) == []


def test_a_lock_that_was_taken_away_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever locks a file that its last holder removes at that moment has nothing: what stands there counts."""
    import fcntl

    folder, taken, left = tmp_path / "lock folder", fcntl.flock, [True]

    def late(descriptor: int, how: int) -> None:
        if left.pop() if left else False:
            (folder / "lock").unlink()
        taken(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked_folder(folder, "x"), pytest.raises(DestinationBusy), locked_folder(folder, "x"):
        pass


def test_many_runs_never_hold_it_together(tmp_path: Path) -> None:
    """However often it is taken, given back and removed, one has it at a time."""
    inside, most, came = [0], [0], [0]
    guard, over = threading.Lock(), threading.Event()

    def work() -> None:
        while not over.is_set():
            try:
                with locked_temporary_folder(tmp_path / ".tilesync", "x", None, ignore_event):
                    with guard:
                        inside[0] += 1
                        came[0] += 1
                        most[0] = max(most[0], inside[0])
                    with guard:
                        inside[0] -= 1
            except DestinationBusy:
                continue
            if came[0] >= 300:
                over.set()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert came[0] >= 300
    assert most == [1]


def test_a_stale_record_names_nobody(tmp_path: Path) -> None:
    """What a killed run wrote of itself is no holder's; nor is what makes no sense."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for said in (LockHolder(gone.pid, socket.gethostname(), "2026-01-01T00:00:00Z").to_record(), ["x"], {"pid": 1}):
        with locked_folder(tmp_path / "f", "D"):
            (tmp_path / "f/holder.json").write_text(json.dumps(said))
            with pytest.raises(DestinationBusy) as error, locked_folder(tmp_path / "f", "D", "imodel-1"):
                pass
            assert str(error.value) == "another run holds D, for the iModel imodel-1"


def test_of_another_host_it_is_told_as_it_says(tmp_path: Path) -> None:
    """Whether a process of another machine still runs nobody here can see."""
    there = LockHolder(1, "elsewhere", "2026-01-01T00:00:00Z")
    assert busy_message("D", there, None) == "another run holds D: process 1 on elsewhere, since 2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    "said",
    [
        None,
        {"pid": True, "host": "", "since": "x"},
        {"pid": 0, "host": "h", "since": "s"},
        {"pid": 1, "host": "h\x1b[31m", "since": "s"},
        {"pid": 1, "host": "h" * 300, "since": "s"},
        {"pid": "1", "host": "h", "since": "s"},
    ],
)
def test_a_record_that_makes_no_sense_is_none(said: object) -> None:
    """Whatever others wrote there is not repeated to a person."""
    assert parse_holder(said) is None


def failing_flock(number: int) -> Callable[[int, int], None]:
    def flock(descriptor: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    return flock


def test_a_folder_without_locks_is_used_when_the_state_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that knows no locks under DEST is told, and borne with, as long as the state's knows them."""
    import errno
    import fcntl

    monkeypatch.setattr(fcntl, "flock", failing_flock(errno.ENOTSUP))
    events: list[Event] = []
    with locked_temporary_folder(tmp_path / ".tilesync", "D", None, events.append):
        pass
    assert [type(event) for event in events] == [Warned]
    with pytest.raises(DestinationError, match="cannot lock"), locked_folder(tmp_path / "s", "D"):
        pass


def test_a_lock_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """Where something stands in the place of the lock's folder the run ends before it has written anything."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/.tilesync").write_text("a file")
    with pytest.raises(DestinationError):
        open_and_close(tmp_path / "d", tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("kind", ["symlink", "FIFO", "folder"])
def test_what_stands_in_the_place_of_a_lock_is_named(tmp_path: Path, kind: str) -> None:
    """The file itself is named, with what stands there, and that is left as it is."""
    lock = tmp_path / "f/lock"
    lock.parent.mkdir()
    if kind == "symlink":
        lock.symlink_to("x")
    elif kind == "FIFO":
        os.mkfifo(lock)
    else:
        lock.mkdir()
    wrong = pytest.raises(DestinationError, match=f"a {kind} stands where a file is needed: {lock}")
    with wrong, locked_folder(tmp_path / "f", "D"):
        pass
    assert list(lock.parent.iterdir()) == [lock]
