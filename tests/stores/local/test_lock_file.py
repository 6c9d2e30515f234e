"""Lock of a folder: one process at a time; messages name its id, host and start."""

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
from tilesync.stores.local.lock_file import busy_message, is_held, locked_folder, locked_temporary_folder
from tilesync.stores.status_files import LockHolder, parse_holder

HOLD_PROGRAM = """
import sys
from pathlib import Path
from tilesync.stores.local.destination import open_local
with open_local(Path(sys.argv[1]), state_dir=Path(sys.argv[2]) if len(sys.argv) > 2 else None):
    print("held", flush=True)
    sys.stdin.read()
"""


def ignore_event(event: Event) -> None:
    """Ignore the event."""


@contextmanager
def process_holding(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Start a process that holds a destination."""
    command = [sys.executable, "-c", HOLD_PROGRAM, *map(str, arguments)]
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


@pytest.mark.parametrize("first_state", [None, "first"])
@pytest.mark.parametrize("second_state", [None, "second", "first"])
def test_separate_state_folders_do_not_allow_two_runs(
    tmp_path: Path, first_state: str | None, second_state: str | None
) -> None:
    """With any state folder, a second run into one DEST is refused, and told process, host and time of the first."""
    root = tmp_path / "d"
    with process_holding(root, *([tmp_path / first_state] if first_state else [])) as holder:
        state = tmp_path / second_state if second_state else None
        with pytest.raises(DestinationBusy) as error:
            open_and_close(root, state)
        assert f"another run holds {root}: process {holder.pid} on {socket.gethostname()}, since 20" in str(error.value)
        assert str(error.value).rpartition(" ")[2] >= format_timestamp(datetime.now(UTC) - timedelta(minutes=5))
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        open_and_close(root, state)


def test_state_folder_of_a_running_destination_is_refused(tmp_path: Path) -> None:
    """A state folder belongs to one DEST: a second one is refused, also while the first runs."""
    with (
        process_holding(tmp_path / "one", tmp_path / "state"),
        pytest.raises(DestinationError, match="the state folder"),
    ):
        open_and_close(tmp_path / "two", tmp_path / "state")


def test_temporary_lock_folder_is_removed(tmp_path: Path) -> None:
    """With a separate state, `.tilesync` exists only during a run, or after a kill until the next run ends."""
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


def test_lock_on_a_removed_file_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock on a file that its last holder removes at that moment does not count: the file at the path does."""
    import fcntl

    folder, real_flock, removals = tmp_path / "lock folder", fcntl.flock, [True]

    def flock_after_removal(descriptor: int, operation: int) -> None:
        if removals.pop() if removals else False:
            (folder / "lock").unlink()
        real_flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock_after_removal)
    with locked_folder(folder, "x"), pytest.raises(DestinationBusy), locked_folder(folder, "x"):
        pass


def test_concurrent_runs_hold_the_lock_one_at_a_time(tmp_path: Path) -> None:
    """However often the lock is taken, released and removed, one run at a time holds it."""
    holders, max_holders, acquired = [0], [0], [0]
    guard, finished = threading.Lock(), threading.Event()

    def work() -> None:
        while not finished.is_set():
            try:
                with locked_temporary_folder(tmp_path / ".tilesync", "x", None, ignore_event):
                    with guard:
                        holders[0] += 1
                        acquired[0] += 1
                        max_holders[0] = max(max_holders[0], holders[0])
                    with guard:
                        holders[0] -= 1
            except DestinationBusy:
                continue
            if acquired[0] >= 300:
                finished.set()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert acquired[0] >= 300
    assert max_holders == [1]


def test_stale_holder_record_is_not_shown(tmp_path: Path) -> None:
    """The record of a killed run, or an invalid one, is not shown as the holder."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for record in (LockHolder(ended.pid, socket.gethostname(), "2026-01-01T00:00:00Z").to_record(), ["x"], {"pid": 1}):
        with locked_folder(tmp_path / "f", "D"):
            (tmp_path / "f/holder.json").write_text(json.dumps(record))
            with pytest.raises(DestinationBusy) as error, locked_folder(tmp_path / "f", "D", "imodel-1"):
                pass
            assert str(error.value) == "another run holds D, for the iModel imodel-1"


def test_holder_of_another_host_is_shown(tmp_path: Path) -> None:
    """The record of another host is shown as it is: its process cannot be checked from here."""
    holder = LockHolder(1, "elsewhere", "2026-01-01T00:00:00Z")
    assert busy_message("D", holder, None) == "another run holds D: process 1 on elsewhere, since 2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    "record",
    [
        None,
        {"pid": True, "host": "", "since": "x"},
        {"pid": 0, "host": "h", "since": "s"},
        {"pid": 1, "host": "h\x1b[31m", "since": "s"},
        {"pid": 1, "host": "h" * 300, "since": "s"},
        {"pid": "1", "host": "h", "since": "s"},
    ],
)
def test_invalid_holder_record_is_none(record: object) -> None:
    """An invalid record is never shown: other programs can write to that file."""
    assert parse_holder(record) is None


def failing_flock(number: int) -> Callable[[int, int], None]:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    return flock


def test_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A DEST on a file system without locks only causes a warning; a state folder without locks is an error."""
    import errno
    import fcntl

    monkeypatch.setattr(fcntl, "flock", failing_flock(errno.ENOTSUP))
    events: list[Event] = []
    with locked_temporary_folder(tmp_path / ".tilesync", "D", None, events.append):
        pass
    assert [type(event) for event in events] == [Warned]
    with pytest.raises(DestinationError, match="cannot lock"), locked_folder(tmp_path / "s", "D"):
        pass


def test_file_at_the_path_of_the_lock_folder(tmp_path: Path) -> None:
    """A file at the path of the lock folder ends the run before anything is written."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/.tilesync").write_text("a file")
    with pytest.raises(DestinationError):
        open_and_close(tmp_path / "d", tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("kind", ["symlink", "FIFO", "folder"])
def test_wrong_file_type_of_a_lock_is_named(tmp_path: Path, kind: str) -> None:
    """The error names the lock path and the type of what is there, which is not changed."""
    lock = tmp_path / "f/lock"
    lock.parent.mkdir()
    if kind == "symlink":
        lock.symlink_to("x")
    elif kind == "FIFO":
        os.mkfifo(lock)
    else:
        lock.mkdir()
    wrong = pytest.raises(DestinationError, match=f"a {kind} where a file is needed: {lock}")
    with wrong, locked_folder(tmp_path / "f", "D"):
        pass
    assert list(lock.parent.iterdir()) == [lock]


def test_a_held_lock_is_seen_without_touching_it(tmp_path: Path) -> None:
    """A lock counts as held while its process runs, not after kill -9; a folder without a lock is not held."""
    state = tmp_path / "state"
    assert not is_held(state)
    with process_holding(tmp_path / "dest", state) as holder:
        before = sorted(os.listdir(state))
        assert is_held(state)
        assert sorted(os.listdir(state)) == before
        holder.kill()
        holder.wait()
        assert not is_held(state)
    (state / "holder.json").write_text("half")
    assert not is_held(state)
