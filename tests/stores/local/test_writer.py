"""Writing files into a folder: times, modes, parts, and paths that are in the way."""

import errno
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.local_destination import open_destination
from tests.support.store_contract import (
    BIG_BYTES,
    SAMPLE_VERSION,
    blob,
    digests_of,
    put_file,
    run_async,
)
from tilesync.errors import BlobDamaged, DestinationError, DiskFull
from tilesync.model import StoredFile, Version, VersionSummary
from tilesync.stores.local import destination as destination_module
from tilesync.stores.local.destination import LocalDestination
from tilesync.stores.local.fs import ensure_real_folder


@pytest.mark.parametrize("data", [b"small", BIG_BYTES], ids=["small", "big"])
def test_file_mtime_and_mode(tmp_path: Path, data: bytes) -> None:
    """A file gets the blob's Last-Modified and the mode from the umask; the state folder is only for its owner."""
    before = os.umask(0o027)
    try:
        with open_destination(tmp_path / "d") as destination:
            stored = run_async(put_file(destination, blob("f/a", data, last_modified=1772353800), data))
    finally:
        os.umask(before)
    result = (tmp_path / "d/versions/e1/f/a").stat()
    assert (result.st_mtime_ns, stored.mtime_ns) == (1772353800 * 10**9, 1772353800 * 10**9)
    assert stat.S_IMODE(result.st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "d/versions/e1/f").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "d/.tilesync").stat().st_mode) == 0o700


@pytest.mark.parametrize("place", ["versions", "versions/e1", "versions/e1/a", "versions/e1/a/b"])
def test_file_where_a_blob_needs_a_folder(tmp_path: Path, place: str) -> None:
    """A file where a blob's name needs a folder is named in the error and kept."""
    path = tmp_path / "d" / place
    path.parent.mkdir(parents=True)
    path.write_text("in the way")
    with open_destination(tmp_path / "d") as destination, pytest.raises(DestinationError, match="folder is needed"):
        run_async(put_file(destination, blob("a/b/c", b"1"), b"1"))
    assert path.read_text() == "in the way"


def test_folder_where_a_blob_needs_a_file(tmp_path: Path) -> None:
    """A folder at the path of a file is an error, and its files are kept."""
    (tmp_path / "d/versions/e1/a").mkdir(parents=True)
    (tmp_path / "d/versions/e1/a/b").write_text("b")
    with open_destination(tmp_path / "d") as destination, pytest.raises(DestinationError):
        run_async(put_file(destination, blob("a", b"1"), b"1"))
    assert (tmp_path / "d/versions/e1/a/b").read_text() == "b"


@pytest.mark.parametrize(
    ("old_boot", "new_boot", "expected_bytes"),
    [("b1", "b1", 1 << 20), ("b1", "b2", 0), ("b1", None, 0), (None, None, 0), (None, "b1", 0)],
)
def test_parts_are_trusted_within_one_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old_boot: str | None, new_boot: str | None, expected_bytes: int
) -> None:
    """Parts are not durable, so they are continued only if the machine is known not to have restarted."""
    monkeypatch.setattr(destination_module, "read_boot_id", lambda: old_boot)
    with open_destination(tmp_path / "d") as destination:
        destination.mark_intact()

        async def work() -> None:
            draft = destination.files.draft(SAMPLE_VERSION, blob("a", BIG_BYTES))
            await draft.append(BIG_BYTES[: 1 << 20])
            await draft.suspend()

        run_async(work())
    monkeypatch.setattr(destination_module, "read_boot_id", lambda: new_boot)
    with open_destination(tmp_path / "d") as destination:
        assert destination.is_intact is (expected_bytes > 0)
        draft = destination.files.draft(SAMPLE_VERSION, blob("a", BIG_BYTES))
        assert draft.received_bytes == expected_bytes
        run_async(draft.append(BIG_BYTES[expected_bytes:]))
        run_async(draft.commit(digests_of(BIG_BYTES)))
        assert destination.files.read(SAMPLE_VERSION, "a") == BIG_BYTES


def test_bytes_whose_check_fails_are_not_written(tmp_path: Path) -> None:
    """Bytes of a draft that are found to be damaged are not written, and the same bytes may be appended again."""

    def refuse() -> None:
        raise BlobDamaged("not what the container states")

    with open_destination(tmp_path / "d") as destination:

        async def work() -> None:
            draft = destination.files.draft(SAMPLE_VERSION, blob("a", BIG_BYTES))
            await draft.append(BIG_BYTES[:100])
            with pytest.raises(BlobDamaged):
                await draft.append(b"wrong", refuse)
            assert draft.received_bytes == 100
            await draft.append(BIG_BYTES[100:])
            await draft.commit(digests_of(BIG_BYTES))

        run_async(work())
        assert destination.files.read(SAMPLE_VERSION, "a") == BIG_BYTES


def test_folder_created_by_another_thread_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that create the same folder at once both get it."""
    mkdir = os.mkdir

    def late(*arguments: Any, **where: Any) -> None:
        mkdir(*arguments, **where)
        mkdir(*arguments, **where)

    monkeypatch.setattr(os, "mkdir", late)
    assert ensure_real_folder(tmp_path / "new", make=True)
    monkeypatch.setattr(os, "mkdir", lambda *_, **__: (tmp_path / "file").touch())
    with pytest.raises(DestinationError, match="found a file where"):
        ensure_real_folder(tmp_path / "file", make=True)


UNPUBLISHED = replace(SAMPLE_VERSION, summary=VersionSummary())


def put_small(destination: LocalDestination, version: Version, data: bytes) -> StoredFile:
    """Put a small file `a` into a version."""
    target = destination.files.put_target(version)
    return target.put_verified(version.name, blob("a", data, last_modified=1772353800), data, digests_of(data))


def test_a_small_file_is_created_at_its_place(tmp_path: Path) -> None:
    """In a version without readers nothing is renamed: the parts folder stays empty, and the stamp is the file's."""
    with open_destination(tmp_path / "d") as destination:
        parts = os.stat(destination.files.put_target(UNPUBLISHED).parts.path)
        stored = put_small(destination, UNPUBLISHED, b"new")
        assert os.stat(destination.files.put_target(UNPUBLISHED).parts.path).st_mtime_ns == parts.st_mtime_ns
    path = tmp_path / "d/versions/e1/a"
    assert path.read_bytes() == b"new"
    assert (stored.mtime_ns, stored.inode) == (path.stat().st_mtime_ns, path.stat().st_ino)


@pytest.mark.parametrize("version", [SAMPLE_VERSION, UNPUBLISHED], ids=["published", "unpublished"])
def test_an_existing_file_is_replaced_and_never_written_to(tmp_path: Path, version: Version) -> None:
    """The old file may be a hard link of another version, or read by a server: it keeps its bytes."""
    path, link = tmp_path / "d/versions/e1/a", tmp_path / "link"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"old")
    link.hardlink_to(path)
    with open_destination(tmp_path / "d") as destination, path.open("rb") as reader:
        put_small(destination, version, b"new bytes")
        assert reader.read() == b"old"
    assert (path.read_bytes(), link.read_bytes()) == (b"new bytes", b"old")


def test_a_published_version_never_shows_a_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was lost from a published version is renamed into place when it is whole."""
    seen = list[bool]()
    utime = os.utime

    def spy(*args: Any, **kwargs: Any) -> None:
        seen.append((tmp_path / "d/versions/e1/a").exists())
        utime(*args, **kwargs)

    with open_destination(tmp_path / "d") as destination:
        monkeypatch.setattr(os, "utime", spy)
        put_small(destination, SAMPLE_VERSION, b"new")
    assert seen == [False]


def test_a_full_disk_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If not all bytes can be written, the new file is removed again, and the error says that the disk is full."""
    write = os.write

    def fill_up(descriptor: int, data: bytes) -> int:
        if len(data) < 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:1])

    with open_destination(tmp_path / "d") as destination:
        monkeypatch.setattr(os, "write", fill_up)
        with pytest.raises(DiskFull):
            put_small(destination, UNPUBLISHED, b"new")
        monkeypatch.undo()
    assert not (tmp_path / "d/versions/e1/a").exists()
