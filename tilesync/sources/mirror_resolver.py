"""Resolver of versions in another mirror: to restore one, publish it elsewhere, or copy it from a disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from tilesync.core.manifest import read_defects, read_header
from tilesync.core.retention import sort_newest_first
from tilesync.core.safe_names import CURRENT_VERSION, resolve_version_name
from tilesync.errors import DestinationError, ExportReplaced, Incomplete, NoExport, UsageError
from tilesync.events import Warned
from tilesync.model import Export, Resolution, Selector, Status, Version
from tilesync.protocols import Observer, ReadOnlyPublication, StoredFiles
from tilesync.runtime.threads import run_in_thread
from tilesync.sources.mirror_files import MANIFEST_ERRORS, MirrorSource, Throttle, manifest_error


class MirrorResolver:
    """Resolver of versions in a folder or store: the one of the pointer, another one that is selected, or all.

    The mirror is only read. `display_name`: its name in messages. `throttle`: bandwidth limit. `version_name`: resolve
    to this version only; `newest` is then the newest version.
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
        newest: Version | None = None,
    ) -> None:
        self._published = published
        self._files = files
        self._selector = selector
        self._display_name = display_name
        self._observe = observe
        self._throttle = throttle
        self._version_name = version_name
        self._newest = newest

    async def resolve(self, *, is_replacement: bool = False) -> Resolution:
        """Resolve the version to mirror. Raises NoExport; with `is_replacement` ExportReplaced if none is left."""
        try:
            return await run_in_thread(self._resolve)
        except NoExport as error:
            if is_replacement:
                raise ExportReplaced(f"the version is gone, and there is no other: {error}") from error
            raise

    async def open_source(self, resolution: Resolution) -> MirrorSource:
        """Open the files of the version."""
        assert resolution.export.stored_version is not None
        return await run_in_thread(
            MirrorSource,
            resolution.export.stored_version,
            self._published,
            self._files,
            self._display_name,
            throttle=self._throttle,
        )

    async def list_finished(self) -> list[Export]:
        """List the selected versions, oldest first. Raises NoExport."""
        versions = await run_in_thread(self._find_versions)
        self._newest = versions[0]
        return [_export_from_version(version) for version in reversed(versions)]

    def resolver_for(self, export: Export) -> MirrorResolver:
        """Return a resolver for one version."""
        assert export.stored_version is not None
        arguments = (self._published, self._files, Selector(), self._display_name, self._observe)
        return MirrorResolver(
            *arguments,
            throttle=self._throttle,
            version_name=export.stored_version.name,
            newest=self._newest,
        )

    def _resolve(self) -> Resolution:
        """Resolve the version and the newest export. If the pointer follows the newest, only one manifest is read."""
        if self._version_name is not None:
            return self._make_resolution(self._version_name, newest=self._newest)
        latest, selector = self._published.latest() or {}, self._selector
        is_current = (selector.export_id or CURRENT_VERSION) == CURRENT_VERSION and not selector.changeset
        current = latest.get("version") if is_current else None
        names = self._published.manifest_names() if current is not None else []
        if names and current not in names:
            raise Incomplete(
                f"{self._display_name} is damaged: its latest.json names version {current}, whose manifest is missing",
                hint="choose another version with --export-id, or mirror into SOURCE again first",
            )
        if names and not latest.get("pinned"):
            return self._make_resolution(str(current))
        selected = [version.name for version in self._find_versions()]
        newest = self._find_versions(any_id=True)[0]
        return self._make_resolution(current if current in selected else selected[0], newest=newest)

    def _make_resolution(self, name: str, *, newest: Version | None = None) -> Resolution:
        try:
            header = self._read_manifest_header(name)
            version = read_header(header, name=name)
        except MANIFEST_ERRORS as error:
            raise manifest_error(name, self._published, self._display_name, error) from error
        newest = newest or version
        return Resolution(
            _export_from_version(version),
            newest.export,
            defects=read_defects(header),
            newest_modified=newest.facts.modified,
        )

    def _read_manifest_header(self, name: str) -> Mapping[str, Any]:
        """Read the first line of a manifest. Raises one of MANIFEST_ERRORS."""
        header = next(self._published.manifest(name), None)
        if header is None:
            raise ValueError("it is empty")
        return header

    def _find_versions(self, *, any_id: bool = False) -> list[Version]:
        """Find the selected versions, newest first; `any_id`: of all exports. Raises NoExport."""
        versions, selector = list(self._read_versions()), self._selector
        latest = self._published.latest() or {}
        current = None if latest.get("pinned") else latest.get("version")
        # among versions of the same second the current one is the newest: the later sort is stable
        versions.sort(key=lambda version: version.name != current)
        if not versions:
            raise NoExport(
                f"there is no version in {self._display_name}",
                hint="give a folder or store that `tilesync mirror` filled: it contains latest.json and manifests/",
            )
        found = [v for v in sort_newest_first(versions) if (selector.changeset or None) in {None, v.facts.changeset}]
        if selector.export_id and not any_id:
            found = [v for v in found if v.export == selector.export_id] or _match_name(
                found, selector.export_id, current=latest.get("version")
            )
        if not found:
            raise NoExport(
                f"{_describe_no_match(versions, selector)} in {self._display_name}",
                hint=f"`tilesync versions {self._display_name}` lists the versions",
            )
        return found

    def _read_versions(self) -> Iterator[Version]:
        for name in self._published.manifest_names():
            try:
                yield read_header(self._read_manifest_header(name), name=name)
            except MANIFEST_ERRORS as error:
                self._observe(Warned(f"the manifest of version {name} in {self._display_name} cannot be read: {error}"))


def _export_from_version(version: Version) -> Export:
    """Build the export of a version from its manifest."""
    return Export(
        id=version.export,
        status=Status.COMPLETE,
        name=str(version.facts.record.get("displayName") or ""),
        imodel=version.facts.imodel,
        changeset=version.facts.changeset,
        modified=version.facts.modified,
        record=version.facts.record,
        size=version.summary.bytes,
        stored_version=version,
    )


def _describe_no_match(versions: list[Version], selector: Selector) -> str:
    if not selector.export_id:
        return f"there is no version of changeset {selector.changeset}"
    if not selector.changeset and sum(version.name.startswith(selector.export_id) for version in versions) > 1:
        return f"there is more than one version that begins with {selector.export_id}"
    return f"there is no version {selector.export_id}"


def _match_name(versions: list[Version], text: str, *, current: str | None) -> list[Version]:
    """Return the one version that a text means; an empty list if there is none or several."""
    with suppress(UsageError, DestinationError):
        name = resolve_version_name(text, [version.name for version in versions], current=current)
        return [version for version in versions if version.name == name]
    return []
