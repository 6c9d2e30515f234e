"""Versions of a destination, read anew at most once a second: other processes publish and retire them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic
from typing import Any, Final

from tilesync.core.manifest import read_header, read_latest
from tilesync.core.retention import sort_newest_first
from tilesync.errors import DestinationError
from tilesync.model import Version
from tilesync.protocols import ReadOnlyPublication
from tilesync.serving.tilesets import VersionRow

REFRESH_S: Final = 1.0
"""Seconds for which the list and the current version are not read again."""

RunBlocking = Callable[[Callable[[], Any]], Awaitable[Any]]


class VersionList:
    """The finished versions of a destination, and the one that its pointer names.

    `read_document` returns the bytes of a public `latest.json`; None if the publication must be asked instead.
    `find_url` returns the URL of the root tileset of a version, relative to the tileset.
    """

    def __init__(
        self,
        publication: ReadOnlyPublication,
        read_document: Callable[[], Awaitable[bytes | None]],
        run_blocking: RunBlocking,
        find_url: Callable[[str], str],
    ) -> None:
        self._publication = publication
        self._read_document = read_document
        self._run = run_blocking
        self._find_url = find_url
        self._lock = asyncio.Lock()
        self._headers: dict[str, Version] = {}
        self._latest: Mapping[str, Any] | None = None
        self._latest_read_at = self._list_read_at = -REFRESH_S
        self._rows: Sequence[VersionRow] = ()
        self.revision = 0
        """Number of changes of `latest.json`."""

    async def current(self, *, max_age_s: float = REFRESH_S) -> str | None:
        """Return the name of the current version, read in the last `max_age_s`; None if nothing is published."""
        if monotonic() - self._latest_read_at >= max_age_s:
            async with self._lock:
                await self._refresh_latest(max_age_s)
        return None if self._latest is None else str(self._latest["version"])

    async def read(self) -> tuple[str | None, Sequence[VersionRow]]:
        """Return the name of the current version, and a row for each version, newest first."""
        async with self._lock:
            await self._refresh_latest()
            if monotonic() - self._list_read_at >= REFRESH_S:
                self._rows = await self._run(self._list_rows)
                self._list_read_at = monotonic()
        return None if self._latest is None else str(self._latest["version"]), self._rows

    async def _refresh_latest(self, max_age_s: float = REFRESH_S) -> None:
        if monotonic() - self._latest_read_at < max_age_s:
            return
        data = await self._read_document()
        latest = read_latest(data) if data is not None else await self._run(self._publication.latest)
        if latest != self._latest:
            self._headers.clear()  # a manifest that was written again has other facts
            self._list_read_at = -REFRESH_S
            self.revision += 1
        self._latest, self._latest_read_at = latest, monotonic()

    def _list_rows(self) -> Sequence[VersionRow]:
        """Read the headers of manifests that are not known yet. One that cannot be read is left out."""
        names = set(self._publication.manifest_names())
        for name in self._headers.keys() - names:
            del self._headers[name]
        for name in names - self._headers.keys():
            try:
                self._headers[name] = read_header(next(self._publication.manifest(name)), name=name)
            except (DestinationError, StopIteration, KeyError, TypeError, ValueError):
                continue
        current = (self._latest or {}).get("version")
        return [self._make_row(each, current=current) for each in sort_newest_first(self._headers.values())]

    def _make_row(self, version: Version, *, current: str | None) -> VersionRow:
        facts, summary = version.facts, version.summary
        return VersionRow(
            name=version.name,
            url=self._find_url(version.name),
            export=version.export,
            imodel=facts.imodel,
            display_name=facts.record.get("displayName") or None,
            changeset=facts.changeset,
            modified=facts.exported or None,
            finished=summary.published_at,
            files=summary.files,
            bytes=summary.bytes,
            current=version.name == current,
            missing=summary.completeness.missing,
        )
