"""What happens with each blob or version, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from tilesync.core.filters import narrow_globs
from tilesync.model import Blob, Content, Export, Globs, StoredFile, Version


class Action(StrEnum):
    """What a plan does with one blob; `RETIRE` is about a whole version."""

    KEEP = "keep"
    FETCH = "fetch"
    EXCLUDE = "exclude"
    REUSE = "reuse"
    DELETE = "delete"
    RETIRE = "retire"


class Decision(NamedTuple):
    """An action and the reason for it, fit for a person to read."""

    action: Action
    reason: str


def decide(blob: Blob, stored: StoredFile | None) -> Decision:
    """Keep what is held when the listing proves it the same content: by the SHA-256 that a manifest tells, which also
    proves it another one; by ETag, else by MD5. Fetch the rest.
    """
    if stored is None:
        return Decision(Action.FETCH, "not held")
    if is_same_unpacked(blob, stored):
        return Decision(Action.KEEP, "held, same SHA-256 as it lies")
    if stored.blob.size != blob.size:
        return Decision(Action.FETCH, f"size was {stored.blob.size}, is {blob.size}")
    if blob.sha256 is not None:
        same = stored.stored_sha256 == blob.sha256
        return Decision(Action.KEEP, "held, same SHA-256") if same else Decision(Action.FETCH, "SHA-256 changed")
    if blob.etag and stored.blob.etag == blob.etag:
        return Decision(Action.KEEP, "held, same ETag")
    if blob.md5 is not None and stored.blob.md5 == blob.md5:
        return Decision(Action.KEEP, "held, same MD5")
    return Decision(Action.FETCH, "ETag changed" if blob.etag else "nothing proves it unchanged")


def is_same_unpacked(blob: Blob, stored: StoredFile) -> bool:
    """Whether a file that lies unpacked is the listed one, which is that of a copy whose files lie unpacked too."""
    return stored.unpacked is not None and blob.sha256 == stored.sha256 and blob.size == stored.size


@dataclass(frozen=True, slots=True)
class VersionChoice:
    """Which version a run works on, which files of it are wanted, and how they lie. `begun`: one on its way in, to go
    on with; `held`: the last published one of the same export; `unchanged`: that one is the export, as far as the
    service's word goes. `alike`: the published ones to compare its files with, `held` the first.
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

    A version that was published with other globs is another one; one on its way in changes to these. One with other
    content is always another one. Of an export that is read from a held version there may be several: the one of the
    same time and name comes first; where its files lie unpacked, nobody can pack them again as they were.
    """
    if export.stored_version is not None:
        globs = narrow_globs(export.stored_version.globs, globs)
        content = export.stored_version.content if export.stored_version.content is Content.DECODED else content
    versions = [v for v in versions if v.content is content]
    begun = next((v for v in versions if v.published_at is None), None)
    alike = [v for v in reversed(versions) if v.published_at is not None and v.globs == globs]
    if export.stored_version is not None:
        name = export.stored_version.name
        alike.sort(key=lambda v: (_has_same_time(export, v), v.name == name), reverse=True)
    else:
        alike = alike[:1]
    held = alike[0] if alike else None
    same = held is not None and _has_same_time(export, held)
    unchanged = same and (begun is None or begun.globs != globs)
    return VersionChoice(begun, held, unchanged, globs, tuple(alike), content)


def _has_same_time(export: Export, version: Version) -> bool:
    return bool(export.modified) and version.modified == export.modified
