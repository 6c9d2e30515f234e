"""Held files against their lines of the manifest."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tilesync.errors import BlobDamaged, DestinationError
from tilesync.events import Finding
from tilesync.jobs.versions.file_check import examine_held
from tilesync.model import Arrival, Held, Version
from tilesync.protocols import HeldFiles, Helpers, References
from tilesync.runtime.task_groups import gathered
from tilesync.runtime.threads import in_thread


def look(files: HeldFiles, version: Version, held: Held) -> Finding | None:
    """Name and size only; None when both are right."""
    name = held.blob.name
    try:
        size = files.size(version, name)
    except DestinationError as error:
        return Finding(name, "unreadable", str(error))
    if size is None:
        return Finding(name, "missing", "is not there, or is no regular file")
    if size != held.size:
        return Finding(name, "size", f"is {size} bytes, the manifest says {held.size}")
    return None


def inspect(files: HeldFiles, references: References | None, version: Version, held: Held) -> Finding | Arrival:
    """Every byte: the digest, and what the file asks for. With `references` a large document puts its own there."""
    name = held.blob.name
    try:
        found = examine_held(files, references, version, held, md5=not held.sha256)
    except DestinationError as error:
        return Finding(name, "unreadable", str(error))
    except BlobDamaged as error:
        return look(files, version, held) or Finding(name, "content", f"is damaged: {error}")
    if found is not None and held.sha256 in {found.held.sha256, b""}:
        return Arrival(0, found.held, found.reading, partly=found.partly)
    return look(files, version, held) or Finding(name, "content", "its SHA-256 is not that of the manifest")


SMALL = 1 << 22
"""Up to so many bytes helpers read a file: everything that it asks for is in memory then."""


class Inspector:
    """Inspects files in this process, and with helpers in others from when these are ready."""

    def __init__(self, files: HeldFiles, references: References, helpers: Helpers | None) -> None:
        self._files = files
        self._references = references
        self._helpers = helpers
        self._starting: asyncio.Task[None] | None = None

    def call(self) -> None:
        """There is so much to do that helpers are worth their start."""
        if self._helpers is not None and self._starting is None:
            self._starting = asyncio.create_task(self._helpers.start())

    async def inspect(self, version: Version, some: Sequence[Held]) -> dict[str, Finding | Arrival]:
        """What is to be said of each file, by its name."""
        small: list[Held] = []
        found: dict[str, Finding | Arrival] = {}
        if self._helpers is not None and self._starting is not None and self._starting.done():
            small = [held for held in some if held.size <= SMALL]
            told = await self._helpers.inspect(version, small) if small else ()
            found.update((held.blob.name, said) for held, said in zip(small, told, strict=False))
        rest = [held for held in some if held.blob.name not in found]
        wide = self._files.wide
        for part in await gathered(in_thread(self._read, version, rest[n::wide]) for n in range(min(wide, len(rest)))):
            found.update(part)
        return found

    def _read(self, version: Version, some: Sequence[Held]) -> dict[str, Finding | Arrival]:
        return {held.blob.name: inspect(self._files, self._references, version, held) for held in some}

    async def aclose(self) -> None:
        """Wait for no helpers any more: all files are read."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
