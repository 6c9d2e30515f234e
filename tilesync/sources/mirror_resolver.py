"""What tilesync holds already as the place where tiles come from: restored, published elsewhere, carried on a disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from tilesync.core.manifest import lacking, read_header
from tilesync.core.retention import newest_first
from tilesync.core.safe_names import the_one
from tilesync.errors import ExportReplaced, Incomplete, NoExport, UsageError
from tilesync.events import Warned
from tilesync.model import Export, Resolution, Selector, Status, Version
from tilesync.protocols import HeldFiles, Observer, Published
from tilesync.runtime.threads import in_thread
from tilesync.sources.mirror_files import NOT_A_MANIFEST, HeldSource, Pace, unreadable


class HeldOrigin:
    """What a folder or a store holds: the version that its pointer names, another one that is asked for, or all.

    `shown` is how a person names the place, which is only read; `pace`, how fast bytes may come. `only`: the name of
    the one version that is meant, while the `newest` is of that export.
    """

    def __init__(
        self,
        published: Published,
        files: HeldFiles,
        selector: Selector,
        shown: str,
        observe: Observer,
        *,
        pace: Pace | None = None,
        only: str | None = None,
        newest: str | None = None,
    ) -> None:
        self._published = published
        self._files = files
        self._selector = selector
        self._shown = shown
        self._observe = observe
        self._pace = pace
        self._only = only
        self._newest = newest

    async def resolve(self, *, again: bool = False) -> Resolution:
        """The version to mirror. Raises NoExport; `again`: ExportReplaced when nothing took the lost one's place."""
        try:
            return await in_thread(self._resolve)
        except NoExport as error:
            if again:
                raise ExportReplaced(f"the version is gone, and no other has taken its place: {error}") from error
            raise

    async def source(self, resolution: Resolution) -> HeldSource:
        """The files of the version."""
        assert resolution.export.held is not None
        return HeldSource(resolution.export.held, self._published, self._files, self._shown, pace=self._pace)

    async def finished(self) -> list[Export]:
        """Every held version that is meant, oldest first. Raises NoExport."""
        meant = await in_thread(self._meant)
        self._newest = meant[0].export
        return [_export(version) for version in reversed(meant)]

    def origin(self, export: Export) -> HeldOrigin:
        """One of them by itself."""
        assert export.held is not None
        of = (self._published, self._files, Selector(), self._shown, self._observe)
        return HeldOrigin(*of, pace=self._pace, only=export.held.name, newest=self._newest)

    def _resolve(self) -> Resolution:
        """The version, and how it stands among the others. Where the pointer follows the newest, only that is read."""
        if self._only is not None:
            return self._resolution(self._only, newest=self._newest)
        latest, wishes = self._published.latest() or {}, self._selector
        pointed = None if wishes.export_id or wishes.changeset else latest.get("version")
        there = self._published.manifest_names() if pointed is not None else []
        if there and pointed not in there:
            raise Incomplete(
                f"{self._shown} is damaged: its latest.json names version {pointed}, whose manifest is not there",
                hint="choose another version with --export-id, or mirror into SOURCE again first",
            )
        if there and not latest.get("pinned"):
            return self._resolution(str(pointed))
        meant = self._meant()
        names = [version.name for version in meant]
        newest = self._meant(any_id=True)[0].export
        return self._resolution(pointed if pointed in names else names[0], newest=newest)

    def _resolution(self, name: str, *, newest: str | None = None) -> Resolution:
        try:
            said = self._first_line(name)
            version = read_header(said, name=name)
        except NOT_A_MANIFEST as error:
            raise unreadable(name, self._published, self._shown, error) from error
        return Resolution(_export(version), newest or version.export, lacks=lacking(said))

    def _first_line(self, name: str) -> Mapping[str, Any]:
        """Raises one of NOT_A_MANIFEST."""
        said = next(self._published.manifest(name), None)
        if said is None:
            raise ValueError("it is empty")
        return said

    def _meant(self, *, any_id: bool = False) -> list[Version]:
        """The held versions that are meant, newest first; `any_id`: those of other exports too. Raises NoExport."""
        held, wishes = list(self._all()), self._selector
        latest = self._published.latest() or {}
        pointed = None if latest.get("pinned") else latest.get("version")
        held.sort(key=lambda version: version.name != pointed)  # of those of one second it is the newest
        if not held:
            raise NoExport(
                f"no version is held in {self._shown}",
                hint="give the place that `tilesync mirror` filled: a folder with latest.json and manifests/ in it",
            )
        found = [v for v in newest_first(held) if wishes.changeset in {None, v.changeset}]
        if wishes.export_id is not None and not any_id:
            found = [v for v in found if v.export == wishes.export_id] or _named(found, wishes.export_id)
        if not found:
            what = wishes.export_id or f"of changeset {wishes.changeset}"
            hint = f"`tilesync versions {self._shown}` shows what is held"
            raise NoExport(f"no version {what} is held in {self._shown}", hint=hint)
        return found

    def _all(self) -> Iterator[Version]:
        for name in self._published.manifest_names():
            try:
                yield read_header(self._first_line(name), name=name)
            except NOT_A_MANIFEST as error:
                self._observe(Warned(f"the manifest of version {name} in {self._shown} cannot be read: {error}"))


def _export(version: Version) -> Export:
    """The export of a version, as its manifest tells."""
    return Export(
        id=version.export,
        status=Status.COMPLETE,
        name=str(version.record.get("displayName") or ""),
        imodel=version.imodel,
        changeset=version.changeset,
        modified=version.modified,
        record=version.record,
        size=version.bytes,
        held=version,
    )


def _named(versions: list[Version], text: str) -> list[Version]:
    """The one version whose name is, or begins with, a text; none where there is none, or more than one."""
    with suppress(UsageError):
        name = the_one(text, [version.name for version in versions])
        return [version for version in versions if version.name == name]
    return []
