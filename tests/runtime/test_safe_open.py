"""Safe opening of files: regular files only, never blocking."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from tilesync.runtime.safe_open import MAX_SMALL_FILE_BYTES, WrongFileType, open_regular, read_small_file


def create_entry(path: Path, kind: str) -> None:
    """Create a file system entry of a kind at a path."""
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a symlink":
        path.with_name("real").write_bytes(b"real")
        path.symlink_to("real")
    elif kind == "a device":
        if os.geteuid() != 0:
            pytest.skip("only root makes devices")
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # a copy of /dev/zero
    else:
        with socket.socket(socket.AF_UNIX) as server, tempfile.TemporaryDirectory() as short:
            server.bind(f"{short}/s")
            os.rename(f"{short}/s", path)


@pytest.mark.parametrize("kind", ["a FIFO", "a folder", "a symlink", "a device", "a socket"])
def test_only_regular_files_are_opened(tmp_path: Path, kind: str) -> None:
    """Every other file type is refused at once, with its type and its path."""
    path = tmp_path / "x"
    create_entry(path, kind)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(WrongFileType, match=f"{kind} where a file is needed: {path}"):
        open_regular(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_symlink_is_followed_on_request(tmp_path: Path) -> None:
    """With `follow_symlinks` a symlink to a file is opened, but not one to a FIFO."""
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "link").symlink_to("file")
    descriptor = open_regular(tmp_path / "link", follow_symlinks=True)
    assert os.read(descriptor, 9) == b"1"
    os.close(descriptor)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "other").symlink_to("fifo")
    with pytest.raises(WrongFileType, match="a FIFO"):
        open_regular(tmp_path / "other", follow_symlinks=True)


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    """A missing file raises FileNotFoundError."""
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "x")


# --- files and pipes that a user names ---


def test_a_named_file_is_read_through_links(tmp_path: Path) -> None:
    """A symlink is followed, as Kubernetes mounts secrets through symlinks."""
    (tmp_path / "data").write_bytes(b"token")
    (tmp_path / "token").symlink_to("data")
    assert read_small_file(tmp_path / "token") == b"token"


def test_a_pipe_is_read_to_its_end() -> None:
    """A pipe from `<(command)` is read whole, even if its writer opens it late and writes in pieces."""
    script = "import sys; from tilesync.runtime.safe_open import read_small_file; print(read_small_file(sys.argv[1]))"
    with tempfile.TemporaryDirectory() as folder:
        os.mkfifo(f"{folder}/pipe")
        with subprocess.Popen([sys.executable, "-c", script, f"{folder}/pipe"], stdout=subprocess.PIPE) as reader:
            writer = os.open(f"{folder}/pipe", os.O_WRONLY)  # returns when the reader has opened it
            for piece in (b"tok", b"en"):
                os.write(writer, piece)
            os.close(writer)
            assert reader.stdout is not None
            assert reader.stdout.read().strip() == b"b'token'"


def test_waiting_for_a_pipe_writer_times_out(tmp_path: Path) -> None:
    """A pipe without a writer raises TimeoutError, or ends at once when the run stops."""
    os.mkfifo(tmp_path / "x")
    with pytest.raises(TimeoutError):
        read_small_file(tmp_path / "x", timeout_s=0.2)
    stop = threading.Event()
    stop.set()
    with pytest.raises(TimeoutError):
        read_small_file(tmp_path / "x", stop=stop, timeout_s=3600)


def test_a_file_that_is_too_long_is_refused(tmp_path: Path) -> None:
    """An endless file or device is not read whole."""
    (tmp_path / "x").write_bytes(bytes(MAX_SMALL_FILE_BYTES + 1))
    with pytest.raises(OSError, match="longer than"):
        read_small_file(tmp_path / "x")
    create_entry(tmp_path / "zero", "a device")
    with pytest.raises(OSError, match="longer than"):
        read_small_file(tmp_path / "zero")


@pytest.mark.parametrize("kind", ["a folder", "a socket"])
def test_unreadable_file_types_are_refused(tmp_path: Path, kind: str) -> None:
    """A folder or socket cannot be read as a file."""
    create_entry(tmp_path / "x", kind)
    with pytest.raises(OSError):
        read_small_file(tmp_path / "x")
