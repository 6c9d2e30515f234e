"""Versions of a destination, read anew at most once a second: other processes publish and retire them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Final

from tilesync.core.manifest import read_header, read_latest
from tilesync.core.retention import sort_newest_first
from tilesync.core.safe_names import resolve_version_name
from tilesync.errors import DestinationError, UsageError
from tilesync.model import Version
from tilesync.protocols import ReadOnlyPublication
from tilesync.serving.tilesets import VersionRow

REFRESH_S: Final = 1.0
"""Seconds for which the list and the current version are not read again."""

RunBlocking = Callable[[Callable[[], Any]], Awaitable[Any]]


def resolve_requested_version(text: str, names: Collection[str], *, current: str | None) -> str:
    """Return the version that a request means: `current`, a name, or a unique prefix. Raises UsageError for pages."""
    try:
        return resolve_version_name(text, names, current=current)
    except (UsageError, DestinationError) as error:
        raise UsageError(str(error), hint="site.json lists the versions") from None


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
        self._headers: Mapping[str, Version] = {}
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
                self._headers = await self._run(partial(_read_headers, self._publication, self._headers))
                self._rows, self._list_read_at = self._make_rows(), monotonic()
        return None if self._latest is None else str(self._latest["version"]), self._rows

    async def _refresh_latest(self, max_age_s: float = REFRESH_S) -> None:
        if monotonic() - self._latest_read_at < max_age_s:
            return
        data = await self._read_document()
        latest = read_latest(data) if data is not None else await self._run(self._publication.latest)
        if latest != self._latest:
            self._headers = {}  # a manifest that was written again has other facts
            self._list_read_at = -REFRESH_S
            self.revision += 1
        self._latest, self._latest_read_at = latest, monotonic()

    def _make_rows(self) -> Sequence[VersionRow]:
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


def _read_headers(publication: ReadOnlyPublication, known: Mapping[str, Version]) -> Mapping[str, Version]:
    """Return the first line of each manifest; those that are not `known` are read, or left out if that fails.

    Blocks. It changes nothing: a client that leaves abandons it in its thread, while another one reads the list.
    """
    names = publication.manifest_names()
    found = {name: known[name] for name in names if name in known}
    for name in names:
        if name not in found:
            with suppress(DestinationError, StopIteration, KeyError, TypeError, ValueError):
                found[name] = read_header(next(publication.manifest(name)), name=name)
    return found
