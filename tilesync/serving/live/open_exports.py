"""Exports that are open: the current one, and those before it for as long as viewers may still use them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tilesync.core.safe_names import make_next_version_name
from tilesync.errors import ExportReplaced
from tilesync.model import Export
from tilesync.serving.live.container_files import ContainerFiles
from tilesync.serving.version_list import resolve_requested_version

RETIRE_AFTER_S: Final = 3600.0
"""Seconds for which an export is still served after a newer one took its place."""

RETIRED_HINT: Final = "load tileset.json again: it names the current export"


class OpenExport:
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

    def is_same(self, export: Export) -> bool:
        """Return whether it is this export, generated at the same time, and still there."""
        own = (self.export.id, self.export.modified)
        return own == (export.id, export.modified) and self.files.replaced is None


class OpenExports:
    """The current export, and the previous ones until RETIRE_AFTER_S after they were replaced."""

    def __init__(self) -> None:
        self._exports: dict[str, OpenExport] = {}  # oldest first
        self._retired: set[str] = set()
        self._current: OpenExport | None = None

    def __iter__(self) -> Iterator[OpenExport]:
        """Yield the current export, then the previous ones, the last replaced first."""
        yield self.current
        yield from (opened for opened in reversed(self._exports.values()) if opened is not self._current)

    @property
    def current(self) -> OpenExport:
        """The current export."""
        assert self._current is not None
        return self._current

    def next_name(self, export: Export) -> str:
        """Return the name for a version of an export that is opened now."""
        return make_next_version_name(export.id, self._exports.keys() | self._retired)

    def find(self, name: str) -> OpenExport | None:
        """Return the export with this name; None if there was none. Raises ExportReplaced for a retired one."""
        if name in self._retired:
            raise ExportReplaced(
                f"export {name} is no longer served, since a newer one took its place", hint=RETIRED_HINT
            )
        return self._exports.get(name)

    def resolve(self, text: str) -> OpenExport:
        """Return the export that `current`, a name or a unique prefix of one means.

        Raises UsageError if there is none or more than one; ExportReplaced for the name of a retired one.
        """
        found = self.find(text)
        return found or self._exports[resolve_requested_version(text, self._exports.keys(), current=self.current.name)]

    def find_export(self, export: Export) -> OpenExport | None:
        """Return the export if it is open, and still there."""
        return next((opened for opened in self._exports.values() if opened.is_same(export)), None)

    def replace_current(self, opened: OpenExport, now_s: float) -> None:
        """Make an export the current one."""
        if self._current is not None:
            self._current.replaced_at_s = now_s
        opened.replaced_at_s = None
        self._exports.pop(opened.name, None)
        self._exports[opened.name] = self._current = opened

    async def retire_old(self, now_s: float) -> None:
        """Close the exports that were replaced long enough ago."""
        for opened in list(self._exports.values()):
            if opened.replaced_at_s is not None and now_s - opened.replaced_at_s >= RETIRE_AFTER_S:
                del self._exports[opened.name]
                self._retired.add(opened.name)
                await opened.files.aclose()

    async def aclose(self) -> None:
        """Close all exports."""
        for opened in self._exports.values():
            await opened.files.aclose()
