"""The crew, for a run into one destination, or an audit of one. The errands are loaded with the first of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from tilesync.events import Finding
from tilesync.model import Arrival, Blob, Brought, Held, SasUrl, Version
from tilesync.runtime.process_pool import Crew, Lost
from tilesync.sources.mirror_files import HeldWay
from tilesync.stores.azure.direct_put import BlobShelf
from tilesync.stores.local.reader import HeldFiles
from tilesync.stores.local.writer import Shelf

FindShelf = Callable[[Version], Awaitable[Shelf | BlobShelf]]
"""Where small blobs of a version are put now. Raises RunErrors."""


class Helpers:
    """The crew, for a run into one destination."""

    def __init__(self, crew: Crew, files: HeldFiles | None, shelf: FindShelf | None = None) -> None:
        self._crew = crew
        self._files = files
        self._shelf = shelf

    @property
    def called(self) -> bool:
        """Whether they have been called."""
        return self._crew.called

    def call(self) -> None:
        """They will be asked soon."""
        from tilesync.app.worker_tasks import Prepare

        self._crew.call(Prepare(brings=self._shelf is not None))

    async def start(self) -> None:
        """Return when they can be asked."""
        from tilesync.app.worker_tasks import Prepare

        await self._crew.start(Prepare(brings=self._shelf is not None))

    async def bring(self, version: Version, way: object, some: Sequence[tuple[int, Blob]], *, at_once: int) -> Brought:
        """Bring some small blobs in, each with its number."""
        from tilesync.app.worker_tasks import Bring

        assert self._shelf is not None, "a destination that is only read brings nothing in"
        shelf = await self._shelf(version)
        share = max(1, at_once // self._crew.size)
        blobs = tuple(blob for _, blob in some)
        if not isinstance(way, SasUrl | HeldWay):
            return Brought((), tuple(some), 0.0)
        errand = Bring(way, shelf, version.name, version.home, blobs, share)
        try:
            found, seconds, first = await self._crew.do(errand, weight=sum(blob.size for blob in blobs))
        except Lost:
            return Brought((), tuple(some), 0.0)
        arrivals, left = list[Arrival](), list[tuple[int, Blob]]()
        for (number, blob), each in zip(some, found, strict=True):
            if each is None:
                left.append((number, blob))
            else:
                sha256, md5, trace, unpacked, reading = each
                arrivals.append(Arrival(number, Held(blob._replace(md5=md5), sha256, *trace, unpacked), reading))
        return Brought(tuple(arrivals), tuple(left), seconds, first)

    async def inspect(self, version: Version, some: Sequence[Held]) -> Sequence[Finding | Arrival]:
        """What is to be said of held files that fit into memory, in their order; nothing where that cannot be done."""
        from tilesync.app.worker_tasks import Inspect

        if self._files is None:
            return ()
        try:
            errand = Inspect(self._files, replace(version, record={}), tuple(some))
            told = await self._crew.do(errand, weight=sum(held.size for held in some))
        except Lost:
            return ()
        return [
            said if isinstance(said, Finding) else Arrival(0, Held(*held[:2], *said[0], held.unpacked), said[1])
            for held, said in zip(some, told, strict=True)
        ]
