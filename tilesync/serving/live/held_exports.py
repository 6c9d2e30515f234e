"""Exports that are open: the current one, and those before it for as long as viewers may still use them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tilesync.core.safe_names import make_next_version_name
from tilesync.errors import ExportReplaced
from tilesync.model import Export
from tilesync.serving.live.container_files import ContainerFiles

HELD_FOR_S: Final = 3600.0
"""Seconds for which an export is still served after a newer one took its place."""

RETIRED_HINT: Final = "load tileset.json again: it names the current export"


class HeldExport:
    """Export whose container is open, under the name of its version.

    `container_url`: the bare URL of the container. `replaced_at_s`: when another one became the current one. `pointer`:
    its root tileset with re-based URIs, and the ETag of that.
    """

    def __init__(self, name: str, export: Export, files: ContainerFiles, *, container_url: str) -> None:
        self.name = name
        self.export = export
        self.files = files
        self.container_url = container_url
        self.replaced_at_s: float | None = None
        self.pointer: tuple[bytes, str] | None = None

    def is_of(self, export: Export) -> bool:
        """Return whether it is this export, generated at the same time, and still there."""
        held = (self.export.id, self.export.modified)
        return held == (export.id, export.modified) and self.files.replaced is None


class HeldExports:
    """The current export, and the previous ones until HELD_FOR_S after they were replaced."""

    def __init__(self) -> None:
        self._held: dict[str, HeldExport] = {}  # oldest first
        self._retired: set[str] = set()
        self._current: HeldExport | None = None

    def __iter__(self) -> Iterator[HeldExport]:
        """Yield the current export, then the previous ones, the last replaced first."""
        yield self.current
        yield from (held for held in reversed(self._held.values()) if held is not self._current)

    @property
    def current(self) -> HeldExport:
        """The current export."""
        assert self._current is not None
        return self._current

    def next_name(self, export: Export) -> str:
        """Return the name for a version of an export that is opened now."""
        return make_next_version_name(export.id, self._held.keys() | self._retired)

    def find(self, name: str) -> HeldExport | None:
        """Return the export with this name; None if there was none. Raises ExportReplaced for a retired one."""
        if name in self._retired:
            raise ExportReplaced(
                f"export {name} is no longer served, since a newer one took its place", hint=RETIRED_HINT
            )
        return self._held.get(name)

    def find_export(self, export: Export) -> HeldExport | None:
        """Return the export if it is open, and still there."""
        return next((held for held in self._held.values() if held.is_of(export)), None)

    def switch_to(self, held: HeldExport, now_s: float) -> None:
        """Make an export the current one."""
        if self._current is not None:
            self._current.replaced_at_s = now_s
        held.replaced_at_s = None
        self._held.pop(held.name, None)
        self._held[held.name] = self._current = held

    async def retire_old(self, now_s: float) -> None:
        """Close the exports that were replaced long enough ago."""
        for held in list(self._held.values()):
            if held.replaced_at_s is not None and now_s - held.replaced_at_s >= HELD_FOR_S:
                del self._held[held.name]
                self._retired.add(held.name)
                await held.files.aclose()

    async def aclose(self) -> None:
        """Close all exports."""
        for held in self._held.values():
            await held.files.aclose()
