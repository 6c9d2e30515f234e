"""Plan of a run: the action for each blob or version, with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from tilesync.core.filters import narrow_globs
from tilesync.model import Blob, Content, Export, Globs, StoredFile, Version
from tilesync.values import dataclass


class Action(StrEnum):
    """Action for one blob; `RETIRE` applies to a whole version."""

    KEEP = "keep"
    FETCH = "fetch"
    EXCLUDE = "exclude"
    REUSE = "reuse"
    DELETE = "delete"
    RETIRE = "retire"


class Decision(NamedTuple):
    """An action, and its reason as text for a person."""

    action: Action
    reason: str


def decide(blob: Blob, stored: StoredFile | None) -> Decision:
    """Decide whether to keep a stored file or to fetch its blob.

    The file is kept if the listing proves that the content is the same. A SHA-256, which only a listing made from a
    manifest has, decides alone; without one, an equal ETag or an equal MD5 is proof.
    """
    if stored is None:
        return Decision(Action.FETCH, "not stored yet")
    if is_same_unpacked(blob, stored):
        return Decision(Action.KEEP, "unchanged, same SHA-256 of the unpacked file")
    if stored.blob.size != blob.size:
        return Decision(Action.FETCH, f"size was {stored.blob.size}, is {blob.size}")
    if blob.sha256 is not None:
        is_same = stored.stored_sha256 == blob.sha256
        return (
            Decision(Action.KEEP, "unchanged, same SHA-256") if is_same else Decision(Action.FETCH, "SHA-256 changed")
        )
    if blob.etag and stored.blob.etag == blob.etag:
        return Decision(Action.KEEP, "unchanged, same ETag")
    if blob.md5 is not None and stored.blob.md5 == blob.md5:
        return Decision(Action.KEEP, "unchanged, same MD5")
    return Decision(Action.FETCH, "ETag changed" if blob.etag else "nothing proves it unchanged")


def is_same_unpacked(blob: Blob, stored: StoredFile) -> bool:
    """Return whether an unpacked stored file equals the listed one; then SOURCE is a mirror that was unpacked too."""
    return stored.unpacked is not None and blob.sha256 == stored.sha256 and blob.size == stored.size


@dataclass(frozen=True, slots=True)
class VersionChoice:
    """Version that a run works on, with its filters and its content, stored or decoded.

    `unfinished`: an unpublished version to continue. `existing`: the last published version of the same export.
    `is_unchanged`: according to the service, the export has not changed since `existing`. `candidates`: published
    versions to compare files with; `existing` is the first.
    """

    unfinished: Version | None
    existing: Version | None
    is_unchanged: bool
    globs: Globs
    candidates: tuple[Version, ...]
    content: Content = Content.STORED


def choose_version(
    versions: Sequence[Version], export: Export, globs: Globs, content: Content = Content.STORED
) -> VersionChoice:
    """Choose among the versions of one export, given in the order in which they were begun.

    Published versions with other globs are ignored; an unfinished one is continued with the new globs. Versions with
    other content are always ignored. If the export is read from another mirror, there may be several candidates: the
    one with the same time and name comes first. If the files of that mirror are unpacked, those of this version are
    too: packing them again would not restore the same bytes.
    """
    if export.stored_version is not None:
        globs = narrow_globs(export.stored_version.globs, globs)
        content = export.stored_version.content if export.stored_version.content is Content.DECODED else content
    versions = [v for v in versions if v.content is content]
    unfinished = next((v for v in versions if not v.is_published), None)
    candidates = [v for v in reversed(versions) if v.is_published and v.globs == globs]
    if export.stored_version is not None:
        name = export.stored_version.name
        candidates.sort(key=lambda v: (_has_same_time(export, v), v.name == name), reverse=True)
    else:
        candidates = candidates[:1]
    existing = candidates[0] if candidates else None
    has_same_time = existing is not None and _has_same_time(export, existing)
    is_unchanged = has_same_time and (unfinished is None or unfinished.globs != globs)
    return VersionChoice(unfinished, existing, is_unchanged, globs, tuple(candidates), content)


def _has_same_time(export: Export, version: Version) -> bool:
    return bool(export.modified) and version.facts.modified == export.modified
