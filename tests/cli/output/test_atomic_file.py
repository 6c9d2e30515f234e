"""Output files: regular files are replaced in one step; other types are written to, never replaced."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.commandline import run_tilesync
from tilesync.cli.output.atomic_file import open_to_append, replace_file
from tilesync.runtime.safe_open import WrongFileType


def create_null_device(folder: Path) -> Path:
    """Make a device like /dev/null in a folder."""
    if os.geteuid() != 0:
        pytest.skip("only root makes devices")
    os.mknod(folder / "null", 0o666 | 0o020000, os.makedev(1, 3))
    return folder / "null"


def start_fifo_reader(fifo: Path, result: list[bytes]) -> threading.Thread:
    """Start a reader of a FIFO, and wait until it has opened it."""
    descriptor = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)

    def read() -> None:
        select.select([descriptor], [], [])  # until somebody writes: before that it would look like an end
        with open(descriptor, "rb") as file:
            result.append(file.read())

    return threading.Thread(target=read)


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """A new or replaced file has the new content and the mode of the umask; no temporary file is left."""
    before = os.umask(0o027)
    try:
        for data in (b"one", b"two"):
            replace_file(tmp_path / "r", data)
            assert (tmp_path / "r").read_bytes() == data
    finally:
        os.umask(before)
    assert os.listdir(tmp_path) == ["r"]
    assert (tmp_path / "r").stat().st_mode & 0o777 == 0o640


def test_files_beside_it_are_not_touched(tmp_path: Path) -> None:
    """A foreign `r.tmp` (file or link) stays, and so does a hard link to the old file."""
    (tmp_path / "r.tmp").write_bytes(b"mine")
    (tmp_path / "r").write_bytes(b"old")
    os.link(tmp_path / "r", tmp_path / "other")
    replace_file(tmp_path / "r", b"new")
    assert (tmp_path / "r.tmp").read_bytes() == b"mine"
    assert (tmp_path / "other").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["other", "r", "r.tmp"]


@pytest.mark.parametrize("there", [True, False])
def test_a_symlink_stays(tmp_path: Path, there: bool) -> None:
    """The target of a symlink is replaced or created."""
    (tmp_path / "far").mkdir()
    (tmp_path / "r").symlink_to("far/target")
    if there:
        (tmp_path / "far/target").write_bytes(b"old")
    replace_file(tmp_path / "r", b"new")
    assert os.readlink(tmp_path / "r") == "far/target"
    assert (tmp_path / "far/target").read_bytes() == b"new"
    assert os.listdir(tmp_path / "far") == ["target"]


def test_a_device_stays(tmp_path: Path) -> None:
    """A device, also behind a symlink, is written to and not replaced."""
    device = create_null_device(tmp_path)
    (tmp_path / "link").symlink_to("null")
    for path in (device, tmp_path / "link"):
        replace_file(path, b"report")
    assert device.is_char_device()
    assert device.stat().st_rdev == os.makedev(1, 3)
    assert sorted(os.listdir(tmp_path)) == ["link", "null"]


def test_a_fifo_is_written_to(tmp_path: Path) -> None:
    """The reader of a FIFO gets everything, also more than a pipe holds; without a reader it is an error at once."""
    fifo, result = tmp_path / "r", list[bytes]()
    os.mkfifo(fifo)
    with pytest.raises(OSError, match="no program reads"):
        replace_file(fifo, b"report")
    reader = start_fifo_reader(fifo, result)
    reader.start()
    replace_file(fifo, b"x" * 200_000)
    reader.join(10)
    assert result == [b"x" * 200_000]
    assert fifo.is_fifo()


def test_a_folder_is_refused(tmp_path: Path) -> None:
    """A folder, a socket or a block device is neither written to nor replaced."""
    (tmp_path / "r").mkdir()
    with pytest.raises(OSError):
        replace_file(tmp_path / "r", b"report")
    assert (tmp_path / "r").is_dir()


def test_a_block_device_is_refused(tmp_path: Path) -> None:
    """A block device is refused, also for root."""
    if os.geteuid() != 0:
        pytest.skip("only root makes devices")
    os.mknod(tmp_path / "disk", 0o600 | 0o060000, os.makedev(240, 250))  # for experiments: no such disk is there
    with pytest.raises(OSError):
        replace_file(tmp_path / "disk", b"x")
    with pytest.raises(OSError):
        open_to_append(tmp_path / "disk")
    assert (tmp_path / "disk").is_block_device()


def test_standard_output_is_not_cut_off(tmp_path: Path) -> None:
    """`--report /dev/stdout > FILE` appends to the file behind standard output."""
    code = "import sys; from tilesync.cli.output.atomic_file import replace_file; print('a', flush=True)\n"
    code += "replace_file('/dev/stdout', b'report\\n'); print('b')"
    with (tmp_path / "out").open("ab") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "a\nreport\nb\n"


@pytest.mark.parametrize("named", ["/dev/stdout", "out"])
@pytest.mark.parametrize("standing", ["", "what was there before, and is longer than all that comes\n"])
def test_truncated_standard_output_is_not_overwritten(tmp_path: Path, named: str, standing: str) -> None:
    """With `> FILE`, output that is printed after a report or a log line comes after it."""
    (tmp_path / "out").write_text(standing)
    code = (
        "import os, sys; from tilesync.cli.output.atomic_file import open_to_append, replace_file; path = sys.argv[1]\n"
        "print('a', flush=True); replace_file(path, b'report\\n'); print('b', flush=True)\n"
        "os.write(open_to_append(path, create=True), b'log\\n'); print('c', flush=True); replace_file(path, b'last\\n')"
    )
    with (tmp_path / "out").open("wb") as out:
        subprocess.run([sys.executable, "-c", code, named], cwd=tmp_path, stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "a\nreport\nb\nlog\nc\nlast\n"


def test_standard_output_that_is_a_socket_is_written_to() -> None:
    """A socket as standard output, as from a service manager, works although it cannot be opened by its path."""
    here, there = socket.socketpair()
    code = "from tilesync.cli.output.atomic_file import replace_file; replace_file('/dev/stdout', b'report')"
    with here, there:
        done = subprocess.run([sys.executable, "-c", code], stdout=there.fileno(), stderr=subprocess.PIPE, check=False)
        there.close()
        assert (here.recv(100), done.stderr) == (b"report", b"")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the rename fails, the old file stays and no temporary file is left."""
    (tmp_path / "r").write_bytes(b"old")

    def refuse(*_: object) -> None:
        raise OSError(5, "broken")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="broken"):
        replace_file(tmp_path / "r", b"new")
    assert (tmp_path / "r").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["r"]


def test_appending_creates_or_extends_a_file(tmp_path: Path) -> None:
    """A log file is created if missing, and appended to otherwise; a link is followed."""
    (tmp_path / "link").symlink_to("log")
    for _ in range(2):
        with open(open_to_append(tmp_path / "link", create=True), "a", encoding="utf-8") as log:
            log.write("x")
    assert (tmp_path / "log").read_text() == "xx"
    with pytest.raises(FileNotFoundError):
        open_to_append(tmp_path / "none")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        open_to_append(tmp_path / "folder", create=True)


@pytest.mark.parametrize("option", ["--report", "--log-file"])
def test_a_device_that_is_named_stays_a_device(tmp_path: Path, option: str) -> None:
    """A report to /dev/null does not replace the device, even as root."""
    device = create_null_device(tmp_path)
    done = run_tilesync("verify", tmp_path / "d", option, device)
    assert done.exit_code == 8
    assert device.is_char_device()


def test_a_log_file_that_is_a_fifo_without_a_reader_is_a_usage_error(tmp_path: Path) -> None:
    """A FIFO without a reader does not block a run."""
    os.mkfifo(tmp_path / "log")
    done = run_tilesync("verify", tmp_path / "d", "--log-file", tmp_path / "log")
    assert done.exit_code == 2
    assert "no program reads from this FIFO" in done.stderr


def test_a_report_to_a_fifo_without_a_reader_is_reported(tmp_path: Path) -> None:
    """If the report fails, the run keeps its own exit code and says why there is no report."""
    os.mkfifo(tmp_path / "r")
    done = run_tilesync("verify", tmp_path / "d", "--report", tmp_path / "r")
    assert done.exit_code == 8
    assert "no program reads from this FIFO" in done.stderr
    assert (tmp_path / "r").is_fifo()


def test_wrong_types_are_named(tmp_path: Path) -> None:
    """The error names the type of the file."""
    os.mknod(tmp_path / "s", 0o600 | 0o140000)
    with pytest.raises(WrongFileType, match="a socket where a file is needed"):
        open_to_append(tmp_path / "s")
