"""What tilesync holds already as the place where tiles come from: restored, published elsewhere, carried on a disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from tilesync.core.manifest import read_defects, read_header
from tilesync.core.retention import sort_newest_first
from tilesync.core.safe_names import resolve_version_name
from tilesync.errors import ExportReplaced, Incomplete, NoExport, UsageError
from tilesync.events import Warned
from tilesync.model import Export, Resolution, Selector, Status, Version
from tilesync.protocols import Observer, ReadOnlyPublication, StoredFiles
from tilesync.runtime.threads import run_in_thread
from tilesync.sources.mirror_files import MANIFEST_ERRORS, MirrorSource, Throttle, manifest_error


class MirrorResolver:
    """What a folder or a store holds: the version that its pointer names, another one that is asked for, or all.

    `shown` is how a person names the place, which is only read; `pace`, how fast bytes may come. `only`: the name of
    the one version that is meant, while the `newest` is of that export.
    """

    def __init__(
        self,
        published: ReadOnlyPublication,
        files: StoredFiles,
        selector: Selector,
        display_name: str,
        observe: Observer,
        *,
        throttle: Throttle | None = None,
        version_name: str | None = None,
        newest_export: str | None = None,
    ) -> None:
        self._published = published
        self._files = files
        self._selector = selector
        self._display_name = display_name
        self._observe = observe
        self._throttle = throttle
        self._version_name = version_name
        self._newest_export = newest_export

    async def resolve(self, *, is_replacement: bool = False) -> Resolution:
        """The version to mirror. Raises NoExport; `again`: ExportReplaced when nothing took the lost one's place."""
        try:
            return await run_in_thread(self._resolve)
        except NoExport as error:
            if is_replacement:
                raise ExportReplaced(f"the version is gone, and no other has taken its place: {error}") from error
            raise

    async def open_source(self, resolution: Resolution) -> MirrorSource:
        """The files of the version."""
        assert resolution.export.stored_version is not None
        return MirrorSource(
            resolution.export.stored_version, self._published, self._files, self._display_name, throttle=self._throttle
        )

    async def list_finished(self) -> list[Export]:
        """Every held version that is meant, oldest first. Raises NoExport."""
        meant = await run_in_thread(self._find_versions)
        self._newest_export = meant[0].export
        return [_export_from_version(version) for version in reversed(meant)]

    def resolver_for(self, export: Export) -> MirrorResolver:
        """One of them by itself."""
        assert export.stored_version is not None
        of = (self._published, self._files, Selector(), self._display_name, self._observe)
        return MirrorResolver(
            *of, throttle=self._throttle, version_name=export.stored_version.name, newest_export=self._newest_export
        )

    def _resolve(self) -> Resolution:
        """The version, and how it stands among the others. Where the pointer follows the newest, only that is read."""
        if self._version_name is not None:
            return self._make_resolution(self._version_name, newest_export=self._newest_export)
        latest, wishes = self._published.latest() or {}, self._selector
        pointed = None if wishes.export_id or wishes.changeset else latest.get("version")
        there = self._published.manifest_names() if pointed is not None else []
        if there and pointed not in there:
            raise Incomplete(
                f"{self._display_name} is damaged: its latest.json names version {pointed}, whose manifest is not there",
                hint="choose another version with --export-id, or mirror into SOURCE again first",
            )
        if there and not latest.get("pinned"):
            return self._make_resolution(str(pointed))
        meant = self._find_versions()
        names = [version.name for version in meant]
        newest = self._find_versions(any_id=True)[0].export
        return self._make_resolution(pointed if pointed in names else names[0], newest_export=newest)

    def _make_resolution(self, name: str, *, newest_export: str | None = None) -> Resolution:
        try:
            said = self._read_manifest_header(name)
            version = read_header(said, name=name)
        except MANIFEST_ERRORS as error:
            raise manifest_error(name, self._published, self._display_name, error) from error
        return Resolution(_export_from_version(version), newest_export or version.export, defects=read_defects(said))

    def _read_manifest_header(self, name: str) -> Mapping[str, Any]:
        """Raises one of NOT_A_MANIFEST."""
        said = next(self._published.manifest(name), None)
        if said is None:
            raise ValueError("it is empty")
        return said

    def _find_versions(self, *, any_id: bool = False) -> list[Version]:
        """The held versions that are meant, newest first; `any_id`: those of other exports too. Raises NoExport."""
        held, wishes = list(self._read_versions()), self._selector
        latest = self._published.latest() or {}
        pointed = None if latest.get("pinned") else latest.get("version")
        held.sort(key=lambda version: version.name != pointed)  # of those of one second it is the newest
        if not held:
            raise NoExport(
                f"no version is held in {self._display_name}",
                hint="give the place that `tilesync mirror` filled: a folder with latest.json and manifests/ in it",
            )
        found = [v for v in sort_newest_first(held) if wishes.changeset in {None, v.changeset}]
        if wishes.export_id is not None and not any_id:
            found = [v for v in found if v.export == wishes.export_id] or _match_name(found, wishes.export_id)
        if not found:
            what = wishes.export_id or f"of changeset {wishes.changeset}"
            hint = f"`tilesync versions {self._display_name}` shows what is held"
            raise NoExport(f"no version {what} is held in {self._display_name}", hint=hint)
        return found

    def _read_versions(self) -> Iterator[Version]:
        for name in self._published.manifest_names():
            try:
                yield read_header(self._read_manifest_header(name), name=name)
            except MANIFEST_ERRORS as error:
                self._observe(Warned(f"the manifest of version {name} in {self._display_name} cannot be read: {error}"))


def _export_from_version(version: Version) -> Export:
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
        stored_version=version,
    )


def _match_name(versions: list[Version], text: str) -> list[Version]:
    """The one version whose name is, or begins with, a text; none where there is none, or more than one."""
    with suppress(UsageError):
        name = resolve_version_name(text, [version.name for version in versions])
        return [version for version in versions if version.name == name]
    return []
