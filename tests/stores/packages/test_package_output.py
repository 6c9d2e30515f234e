"""File of a package: atomic, locked, and never a partial file under the final name."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from tests.support.small_disk import mounted_small_disk
from tilesync.errors import DestinationBusy, DestinationError, DiskFull, UsageError
from tilesync.stores.packages.package_output import open_package_output, refuse_inside


def write(out: Path, data: bytes, *, overwrite: bool = False) -> int:
    with open_package_output(out, overwrite=overwrite) as output:
        output.file.write(data)
        return output.commit()


def write_and_fail(out: Path) -> None:
    with open_package_output(out, overwrite=True) as output:
        output.file.write(b"data")
        raise ZeroDivisionError


def test_package_appears_at_commit(tmp_path: Path) -> None:
    """Until `commit` there is no file of the final name; afterwards there is nothing else."""
    out = tmp_path / "a.zip"
    with open_package_output(out, overwrite=False) as output:
        output.file.write(b"data")
        assert not out.exists()
        assert output.commit() == 4
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
    assert out.read_bytes() == b"data"


def test_failure_leaves_nothing(tmp_path: Path) -> None:
    """An error in the block, or a block that does not commit, leaves neither package nor temporary file."""
    with pytest.raises(ZeroDivisionError):
        write_and_fail(tmp_path / "a.zip")
    with open_package_output(tmp_path / "a.zip", overwrite=False) as output:
        output.file.write(b"data")
    assert list(tmp_path.iterdir()) == []


def test_existing_file_is_replaced_only_on_request(tmp_path: Path) -> None:
    """An existing package is refused with a hint; with `overwrite` it stays until the new one is whole."""
    out = tmp_path / "a.zip"
    write(out, b"old")
    with pytest.raises(UsageError, match="exists") as error:
        write(out, b"new")
    assert "--overwrite" in error.value.hint
    with pytest.raises(ZeroDivisionError):
        write_and_fail(out)
    assert out.read_bytes() == b"old"
    write(out, b"new", overwrite=True)
    assert out.read_bytes() == b"new"


def test_symlink_stays(tmp_path: Path) -> None:
    """With `overwrite`, the target of a symlink is replaced, and the symlink stays."""
    (tmp_path / "real.zip").write_bytes(b"old")
    (tmp_path / "link.zip").symlink_to("real.zip")
    write(tmp_path / "link.zip", b"new", overwrite=True)
    assert (tmp_path / "link.zip").is_symlink()
    assert (tmp_path / "real.zip").read_bytes() == b"new"


def test_unusable_targets_are_usage_errors(tmp_path: Path) -> None:
    """A folder, a device, and a folder that does not exist, are refused; nothing is written."""
    (tmp_path / "folder.zip").mkdir()
    os.mkfifo(tmp_path / "fifo.zip")
    for name, message in (("folder.zip", "a folder, not a file"), ("fifo.zip", "a FIFO"), ("no/a.zip", "no folder")):
        with pytest.raises(UsageError, match=message):
            write(tmp_path / name, b"", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fifo.zip", "folder.zip"]


def hold(out: Path, ready: Event) -> None:
    with open_package_output(out, overwrite=False) as output:
        output.file.write(b"partial" * 1000)
        output.file.flush()
        ready.set()
        signal.pause()


def start_holder(out: Path) -> multiprocessing.process.BaseProcess:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=hold, args=(out, ready))
    process.start()
    assert ready.wait(30)
    return process


def test_live_run_is_refused_and_killed_run_replaced(tmp_path: Path) -> None:
    """While another process writes the package, a second one is refused; after its SIGKILL its file is replaced."""
    out = tmp_path / "a.zip"
    holder = start_holder(out)
    try:
        with pytest.raises(DestinationBusy):
            write(out, b"mine")
    finally:
        assert holder.pid is not None
        os.kill(holder.pid, signal.SIGKILL)
        holder.join(30)
    assert [path.name for path in tmp_path.iterdir()] == [".a.zip.part"]
    write(out, b"mine")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.zip": b"mine"}


def test_symlink_at_the_temporary_name_is_not_followed(tmp_path: Path) -> None:
    """A symlink where the temporary file belongs leads nowhere: its target keeps its bytes."""
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / ".a.zip.part").symlink_to("victim")
    with pytest.raises(DestinationError):
        write(tmp_path / "a.zip", b"data")
    assert (tmp_path / "victim").read_bytes() == b"precious"


def test_full_disk_before_and_while_writing(tmp_path: Path) -> None:
    """A package that does not fit is refused before; a disk that fills up is DiskFull, and leaves nothing."""
    with mounted_small_disk(tmp_path / "disk") as disk:
        with open_package_output(disk / "a", overwrite=False) as output:
            output.check_space(10)
            with pytest.raises(DiskFull, match=r"needs 1\.0 GB"):
                output.check_space(10**9)
        with pytest.raises(DiskFull) as error:
            write(disk / "a", bytes(4 << 20))
        assert "free some space" in error.value.hint
        assert "continues" not in error.value.hint
        assert list(disk.iterdir()) == []


def test_package_inside_a_destination_is_refused(tmp_path: Path) -> None:
    """A web server would give it to everybody, wherever in DEST it is; the hint names a path beside DEST."""
    for path in ("versions/a/b.zip", "b.zip", "new/folder/b.zip"):
        with pytest.raises(UsageError, match="is inside DEST") as caught:
            refuse_inside(tmp_path / path, tmp_path)
        assert caught.value.hint.endswith(f": {tmp_path.parent / 'b.zip'}")
    with pytest.raises(UsageError, match="is DEST itself"):
        refuse_inside(tmp_path / "a/..", tmp_path)
    refuse_inside(tmp_path.parent / "b.zip", tmp_path)
