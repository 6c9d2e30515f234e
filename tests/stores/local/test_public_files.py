"""Test files of a folder for a server: cached ones without a thread, slow ones without holding up others."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tilesync.errors import Unreadable
from tilesync.stores.local import public_files
from tilesync.stores.local.cached_open import find_cached_open
from tilesync.stores.local.public_files import CHUNK_BYTES, LocalPublicFiles, OpenedLocalFile, open_public_files

NOBODY = 65534
SMALL, LARGE = b"small", os.urandom(3 * CHUNK_BYTES + 7)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "d" / "a").mkdir(parents=True)
    (tmp_path / "d" / "a" / "small").write_bytes(SMALL)
    (tmp_path / "d" / "a" / "large").write_bytes(LARGE)
    return tmp_path / "d"


async def read(file: OpenedLocalFile | None, start: int = 0, stop: int | None = None) -> bytes:
    assert file is not None
    try:
        return b"".join([chunk async for chunk in file.chunks(start, file.size if stop is None else stop)])
    finally:
        await file.aclose()


@pytest.fixture(params=["cached", "waiting"])
def without_cache(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test as on a system that can tell what is cached, and as on one that cannot."""
    if request.param == "waiting":
        monkeypatch.setattr(public_files, "_HAS_NOWAIT", False)


@pytest.mark.usefixtures("without_cache")
def test_files_and_their_parts(root: Path) -> None:
    """A small file is read at once, a large one in parts; each has size, time and a strong ETag."""

    async def work() -> None:
        with open_public_files(root) as files:
            small = await files.open("a/small")
            assert small is not None
            assert (small.body, small.head, small.size) == (SMALL, SMALL, len(SMALL))
            assert small.etag.startswith('"')
            assert small.last_modified == int((root / "a" / "small").stat().st_mtime)
            assert await read(small, 1, 3) == SMALL[1:3]
            large = await files.open("a/large")
            assert large is not None
            assert (large.body, large.head) == (None, LARGE[:512])
            assert await read(large) == LARGE
            assert await read(await files.open("a/large"), 5, CHUNK_BYTES + 9) == LARGE[5 : CHUNK_BYTES + 9]

    asyncio.run(work())


@pytest.mark.usefixtures("without_cache")
def test_what_is_no_regular_file(root: Path, tmp_path: Path) -> None:
    """Folders, symlinks, FIFOs, missing files and paths that leave the folder are not there."""
    (tmp_path / "outside").write_bytes(b"secret")
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "folder-link").symlink_to(tmp_path)
    os.mkfifo(root / "fifo")

    async def work() -> None:
        with open_public_files(root) as files:
            for path in (
                "a",
                "link",
                "folder-link/outside",
                "fifo",
                "none",
                "a/small/x",
                "../outside",
                "/etc/passwd",
                "",
            ):
                assert await files.open(path) is None, path

    asyncio.run(work())


def test_a_file_that_is_replaced_while_it_is_read(root: Path) -> None:
    """An open file ends as it began; the next one that is opened has another ETag."""

    async def work() -> None:
        with open_public_files(root) as files:
            before = await files.open("a/large")
            assert before is not None
            (root / "new").write_bytes(LARGE[::-1])
            os.utime(root / "new", ns=(0, (root / "a" / "large").stat().st_mtime_ns))
            (root / "new").replace(root / "a" / "large")
            after = await files.open("a/large")
            assert after is not None
            assert after.etag != before.etag
            assert await read(before) == LARGE
            assert await read(after) == LARGE[::-1]

    asyncio.run(work())


def test_a_file_that_becomes_shorter(root: Path) -> None:
    """Reading ends early, so that the caller can break the answer off."""

    async def work() -> None:
        with open_public_files(root) as files:
            file = await files.open("a/large")
            os.truncate(root / "a" / "large", 10)
            assert await read(file) == LARGE[:10]

    asyncio.run(work())


@pytest.mark.usefixtures("without_cache")
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the system does not list open files")
def test_no_descriptor_is_left_open(root: Path) -> None:
    """Every file and folder is closed at the end, also if it is not read, and while a thread still knows the object."""

    async def work() -> LocalPublicFiles:
        with open_public_files(root) as files:
            for path in ("a/small", "a/large", "a", "none"):
                if (file := await files.open(path)) is not None:
                    await file.aclose()
                    await file.aclose()
            assert list_open_paths(root)
        return files

    files = asyncio.run(work())
    assert list_open_paths(root) == []
    del files


def list_open_paths(root: Path) -> list[str]:
    """Return what this process has open in a folder; other tests may open and close other files meanwhile."""
    paths = list[str]()
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # closed meanwhile
            paths.append(os.readlink(f"/proc/self/fd/{number}"))
    return [path for path in paths if Path(path).is_relative_to(root)]


class HangingDisk:
    """Disk whose reads of one file hang until it is told to go on."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.hangs = threading.Event()
        self.goes_on = threading.Event()

    def open(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Return an `open` that hangs for the file."""

        def work(files: LocalPublicFiles, path: str) -> Any:
            if path == self.name:
                self.hangs.set()
                assert self.goes_on.wait(30)
            return original(files, path)

        return work


def test_a_disk_that_hangs_holds_up_no_other_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one file waits for its disk, others are read, on the event loop and in threads."""
    disk = HangingDisk("a/slow")
    (root / "a" / "slow").write_bytes(b"slow")
    monkeypatch.setattr(LocalPublicFiles, "_open_waiting", disk.open(LocalPublicFiles._open_waiting))
    monkeypatch.setattr(public_files, "_HAS_NOWAIT", False)

    async def work() -> None:
        with open_public_files(root) as files:
            slow = asyncio.ensure_future(files.open("a/slow"))
            assert await asyncio.get_running_loop().run_in_executor(None, disk.hangs.wait, 30)
            for _ in range(100):
                assert await read(await files.open("a/small")) == SMALL
            assert not slow.done()
            disk.goes_on.set()
            assert await read(await slow) == b"slow"

    asyncio.run(work())


def test_a_file_that_is_not_cached_is_opened_once_more(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the start of a file must come from the disk, its descriptor is closed once, and a thread opens it again."""
    monkeypatch.setattr(public_files, "_read_cached", lambda *_: None)

    async def work() -> None:
        with open_public_files(root) as files:
            assert await read(await files.open("a/small")) == SMALL
            assert await read(await files.open("a/large")) == LARGE

    asyncio.run(work())


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the system does not list open files")
def test_a_file_that_nobody_waits_for_is_closed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that a thread opens after its client was cancelled does not stay open."""
    disk = HangingDisk("a/large")
    monkeypatch.setattr(LocalPublicFiles, "_open_waiting", disk.open(LocalPublicFiles._open_waiting))
    monkeypatch.setattr(public_files, "_HAS_NOWAIT", False)

    async def work() -> None:
        with open_public_files(root) as files:
            opening = asyncio.ensure_future(files.open("a/large"))
            assert await asyncio.to_thread(disk.hangs.wait, 30)
            opening.cancel()
            await asyncio.wait({opening})
            disk.goes_on.set()
            for thread in threading.enumerate():
                if thread.name.startswith("tilesync-files"):
                    files.close()
                    thread.join(30)

    asyncio.run(work())
    assert list_open_paths(root) == []


def test_a_file_that_may_not_be_read(root: Path) -> None:
    """A file without permission is an error, not a missing file."""
    (root / "a" / "small").chmod(0)
    user = os.geteuid()

    async def work() -> None:
        with open_public_files(root) as files:
            assert await read(await files.open("a/large")) == LARGE
            os.seteuid(user or NOBODY)  # root reads every file, so it becomes another user
            with pytest.raises(Unreadable):
                await files.open("a/small")

    try:
        asyncio.run(work())
    finally:
        os.seteuid(user)


def test_cached_files_need_no_thread(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Linux with a local disk, a file in the page cache is opened and read on the event loop alone."""
    descriptor = os.open(root, os.O_RDONLY)
    try:
        if find_cached_open(descriptor) is None:
            pytest.skip("this system cannot tell what is cached")
    finally:
        os.close(descriptor)
    (root / "a" / "small").read_bytes()
    (root / "a" / "large").read_bytes()

    def refuse(files: LocalPublicFiles, path: str) -> None:
        raise AssertionError(path)

    monkeypatch.setattr(LocalPublicFiles, "_open_waiting", refuse)

    async def work() -> None:
        with open_public_files(root) as files:
            assert await read(await files.open("a/small")) == SMALL
            assert await read(await files.open("a/large")) == LARGE

    asyncio.run(work())
