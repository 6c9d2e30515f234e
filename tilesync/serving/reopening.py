"""Tileset of a local path that is opened again when the path leads to another folder or file."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final

from tilesync.errors import DamagedPackage, TilesyncError, Unavailable
from tilesync.events import Notice, Warned
from tilesync.protocols import Observer
from tilesync.runtime.threads import run_abandonable
from tilesync.serving.comparisons import DiffLines
from tilesync.serving.tilesets import FileRow, ServedFile, ServedTileset, TilesetEntry, TilesetKind

CHECK_INTERVAL_S: Final = 1.0
"""Seconds between two checks of the path. Only a request causes one."""

CHECK_WAIT_S: Final = 2.0
"""Longest time that a request waits for a check: a disk that hangs holds up no file that is in memory."""

OpenTileset = Callable[[], AbstractAsyncContextManager[ServedTileset]]
"""Opens what is at the path. Raises a TilesyncError."""


def identify(path: Path) -> Hashable | None:
    """Return what differs when a path leads elsewhere, or a file was replaced; None if nothing is there. Blocks.

    A folder that is open keeps its inode number, so one that was deleted and made again differs.
    """
    try:
        found = os.stat(path)
    except OSError:
        return None
    content = (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else ()
    return found.st_dev, found.st_ino, *content


class _Opened:
    """A tileset that was opened, and the number of requests that use it."""

    def __init__(self, tileset: ServedTileset, exits: AsyncExitStack) -> None:
        self.tileset = tileset
        self.exits = exits
        self.users = 0
        self.is_retired = False


class _HeldFile:
    """A file of a tileset, which stays open until the file is closed."""

    __slots__ = ("_file", "_release", "body", "cache", "facts")

    def __init__(self, file: ServedFile, release: Callable[[], None]) -> None:
        self._file = file
        self._release: Callable[[], None] | None = release
        self.facts = file.facts
        self.body = file.body
        self.cache = file.cache

    def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the stored bytes from `start` to before `stop`."""
        return self._file.chunks(start, stop)

    async def aclose(self) -> None:
        """Release the file and its tileset. May be called twice."""
        release, self._release = self._release, None
        try:
            await self._file.aclose()
        finally:
            if release is not None:
                release()


class ReopenedTileset:
    """Tileset of a folder or a package, whatever is at its path at the time.

    The first request of each second checks the first of `paths`, and the state folder if that is another one. If one
    leads elsewhere, that is opened; requests under way end on what was there before. While there is nothing that can be
    served, each request raises DamagedPackage for a damaged package, and Unavailable otherwise.
    """

    def __init__(
        self,
        name: str,
        paths: Sequence[Path],
        open_tileset: OpenTileset,
        observe: Observer,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._name = name
        self._paths = paths
        self._open_tileset = open_tileset
        self._observe = observe
        self._clock = clock
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="tilesync-check")
        self._identity: Hashable | None = None
        self._current: _Opened | None = None
        self._damage: str | None = None
        self._checked_at = 0.0
        self._check: asyncio.Task[None] | None = None
        self._retired = set[_Opened]()
        self._closing = set[asyncio.Task[None]]()
        self.kind = TilesetKind.MIRROR

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open the tileset, and close all at the end. Raises the TilesyncErrors of the opening."""
        self._identity = await self._identify()
        self._use(await self._open())
        self._checked_at = self._clock()
        try:
            yield
        finally:
            await self._aclose()

    async def _aclose(self) -> None:
        if self._check is not None:
            self._check.cancel()
            await asyncio.wait({self._check})
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._retire()
        for each in list(self._retired):
            self._start_closing(each)
        if self._closing:
            await asyncio.gather(*self._closing)

    async def open(self, path: str) -> ServedFile | None:
        """Open a file; None if there is none. Raises Unavailable, or DamagedPackage, while nothing can be served."""
        held = await self._acquire()
        file: ServedFile | None = None
        try:
            file = await held.tileset.open(path)
        finally:
            if file is None:
                self._release(held)
        return None if file is None else _HeldFile(file, partial(self._release, held))

    async def describe(self) -> TilesetEntry:
        """Return its entry in `site.json`."""
        held = await self._acquire()
        try:
            return await held.tileset.describe()
        finally:
            self._release(held)

    async def find_file(self, version: str, name: str) -> FileRow | None:
        """Return what is known of a file; None if there is none."""
        held = await self._acquire()
        try:
            return await held.tileset.find_file(version, name)
        finally:
            self._release(held)

    async def diff_lines(self, a: str, b: str) -> DiffLines:
        """Compare two versions. The lines do not need the tileset any more."""
        held = await self._acquire()
        try:
            return await held.tileset.diff_lines(a, b)
        finally:
            self._release(held)

    async def _acquire(self) -> _Opened:
        if self._clock() - self._checked_at >= CHECK_INTERVAL_S:
            await self._wait_for_check()
        if self._current is None:
            raise self._make_refusal()
        self._current.users += 1
        return self._current

    def _make_refusal(self) -> TilesyncError:
        if self._damage is not None:
            return DamagedPackage(self._damage, hint="tilesync serves it again as soon as a whole package is there")
        return Unavailable(
            f"{self._name} is not there at the moment", hint="tilesync serves it again as soon as it is back"
        )

    def _release(self, held: _Opened) -> None:
        held.users -= 1
        if held.is_retired and not held.users:
            self._start_closing(held)

    async def _wait_for_check(self) -> None:
        """Check the path; go on without the result if the disk takes long. Other requests do not wait."""
        self._checked_at = self._clock()
        if self._check is None or self._check.done():
            self._check = asyncio.create_task(self._check_for_newer())
        done, _ = await asyncio.wait({self._check}, timeout=CHECK_WAIT_S)
        for check in done:
            check.result()

    async def _check_for_newer(self) -> None:
        identity = await self._identify()
        if identity == self._identity and self._current is not None:
            return
        try:
            opened = await self._open() if identity is not None else None
        except TilesyncError as error:
            self._report_gone(str(error), damage=self._describe_damage(error))
            return
        if opened is None:
            self._report_gone(f"{self._paths[0]} is gone")
            return
        self._retire()
        self._use(opened)
        self._identity = identity
        self._observe(Notice(f"{self._paths[0]} was replaced: what is there now is served"))

    def _describe_damage(self, error: TilesyncError) -> str | None:
        """Return the sentence for a damaged package, without the folders of this machine; None for other errors."""
        path = self._paths[0]
        return str(error).replace(str(path), path.name) if isinstance(error, DamagedPackage) else None

    def _report_gone(self, reason: str, *, damage: str | None = None) -> None:
        """Serve nothing until the path leads to a tileset again; say so once, and if a damaged package comes later."""
        is_damage_new = damage is not None and self._damage is None
        self._damage = damage
        if self._current is not None or is_damage_new:
            self._observe(Warned(f"{reason}: requests for {self._name} are refused until a tileset is there again"))
        self._retire()

    async def _identify(self) -> Hashable | None:
        found = await run_abandonable(self._pool, lambda: tuple(map(identify, self._paths)))
        return found if found[0] is not None else None

    async def _open(self) -> _Opened:
        async with AsyncExitStack() as exits:
            tileset = await exits.enter_async_context(self._open_tileset())
            return _Opened(tileset, exits.pop_all())

    def _use(self, opened: _Opened) -> None:
        self._current, self.kind, self._damage = opened, opened.tileset.kind, None

    def _retire(self) -> None:
        """Close the current tileset as soon as no request uses it."""
        retired, self._current = self._current, None
        if retired is None:
            return
        retired.is_retired = True
        self._retired.add(retired)
        if not retired.users:
            self._start_closing(retired)

    def _start_closing(self, retired: _Opened) -> None:
        if retired not in self._retired:
            return
        self._retired.discard(retired)
        closing = asyncio.create_task(retired.exits.aclose())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
