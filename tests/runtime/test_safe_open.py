"""Opening what a path names: regular files only, and never a hang."""

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
    """Something of a kind at a path."""
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
    """Everything else is refused at once, with its type and its path."""
    path = tmp_path / "x"
    create_entry(path, kind)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(WrongFileType, match=f"{kind} stands where a file is needed: {path}"):
        open_regular(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_link_that_its_user_named_is_followed(tmp_path: Path) -> None:
    """With `follow` a symlink leads to the file, not to a FIFO."""
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "link").symlink_to("file")
    descriptor = open_regular(tmp_path / "link", follow_symlinks=True)
    assert os.read(descriptor, 9) == b"1"
    os.close(descriptor)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "other").symlink_to("fifo")
    with pytest.raises(WrongFileType, match="a FIFO"):
        open_regular(tmp_path / "other", follow_symlinks=True)


def test_what_is_not_there_is_missing(tmp_path: Path) -> None:
    """A missing file is FileNotFoundError, as always."""
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "x")


# --- files and pipes that a user names ---


def test_a_named_file_is_read_through_links(tmp_path: Path) -> None:
    """As Kubernetes mounts secrets: the name is a symlink."""
    (tmp_path / "data").write_bytes(b"token")
    (tmp_path / "token").symlink_to("data")
    assert read_small_file(tmp_path / "token") == b"token"


def test_a_pipe_is_read_to_its_end() -> None:
    """As a shell gives `<(command)`: also what is written bit by bit, and by one who opens it late."""
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


def test_a_pipe_that_nobody_writes_to_is_waited_for_no_longer_than_said(tmp_path: Path) -> None:
    """It ends with an error, or at once when the run stops."""
    os.mkfifo(tmp_path / "x")
    with pytest.raises(TimeoutError):
        read_small_file(tmp_path / "x", timeout_s=0.2)
    stop = threading.Event()
    stop.set()
    with pytest.raises(TimeoutError):
        read_small_file(tmp_path / "x", stop=stop, timeout_s=3600)


def test_what_is_too_long_is_refused(tmp_path: Path) -> None:
    """A file or device without end is not read whole."""
    (tmp_path / "x").write_bytes(bytes(MAX_SMALL_FILE_BYTES + 1))
    with pytest.raises(OSError, match="longer than"):
        read_small_file(tmp_path / "x")
    create_entry(tmp_path / "zero", "a device")
    with pytest.raises(OSError, match="longer than"):
        read_small_file(tmp_path / "zero")


@pytest.mark.parametrize("kind", ["a folder", "a socket"])
def test_what_cannot_be_read_is_named(tmp_path: Path, kind: str) -> None:
    """A folder or socket is no file to be read."""
    create_entry(tmp_path / "x", kind)
    with pytest.raises(OSError):
        read_small_file(tmp_path / "x")
