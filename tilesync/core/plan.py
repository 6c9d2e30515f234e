"""What happens with each blob or version, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from tilesync.core.filters import narrowed
from tilesync.model import Blob, Content, Export, Globs, Held, Version


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


def decide(blob: Blob, held: Held | None) -> Decision:
    """Keep what is held when the listing proves it the same content: by the SHA-256 that a manifest tells, which also
    proves it another one; by ETag, else by MD5. Fetch the rest.
    """
    if held is None:
        return Decision(Action.FETCH, "not held")
    if lies_so(blob, held):
        return Decision(Action.KEEP, "held, same SHA-256 as it lies")
    if held.blob.size != blob.size:
        return Decision(Action.FETCH, f"size was {held.blob.size}, is {blob.size}")
    if blob.sha256 is not None:
        same = held.stored_sha256 == blob.sha256
        return Decision(Action.KEEP, "held, same SHA-256") if same else Decision(Action.FETCH, "SHA-256 changed")
    if blob.etag and held.blob.etag == blob.etag:
        return Decision(Action.KEEP, "held, same ETag")
    if blob.md5 is not None and held.blob.md5 == blob.md5:
        return Decision(Action.KEEP, "held, same MD5")
    return Decision(Action.FETCH, "ETag changed" if blob.etag else "nothing proves it unchanged")


def lies_so(blob: Blob, held: Held) -> bool:
    """Whether a file that lies unpacked is the listed one, which is that of a copy whose files lie unpacked too."""
    return held.unpacked is not None and blob.sha256 == held.sha256 and blob.size == held.size


@dataclass(frozen=True, slots=True)
class Choice:
    """Which version a run works on, which files of it are wanted, and how they lie. `begun`: one on its way in, to go
    on with; `held`: the last published one of the same export; `unchanged`: that one is the export, as far as the
    service's word goes. `alike`: the published ones to compare its files with, `held` the first.
    """

    begun: Version | None
    held: Version | None
    unchanged: bool
    globs: Globs
    alike: tuple[Version, ...]
    content: Content = Content.STORED


def choose(versions: Sequence[Version], export: Export, globs: Globs, content: Content = Content.STORED) -> Choice:
    """Choose among the versions of one export, given in the order in which they were begun.

    A version that was published with other globs is another one; one on its way in changes to these. One with other
    content is always another one. Of an export that is read from a held version there may be several: the one of the
    same time and name comes first; where its files lie unpacked, nobody can pack them again as they were.
    """
    if export.held is not None:
        globs = narrowed(export.held.globs, globs)
        content = export.held.content if export.held.content is Content.DECODED else content
    versions = [v for v in versions if v.content is content]
    begun = next((v for v in versions if v.published is None), None)
    alike = [v for v in reversed(versions) if v.published is not None and v.globs == globs]
    if export.held is not None:
        name = export.held.name
        alike.sort(key=lambda v: (_is_of(export, v), v.name == name), reverse=True)
    else:
        alike = alike[:1]
    held = alike[0] if alike else None
    same = held is not None and _is_of(export, held)
    unchanged = same and (begun is None or begun.globs != globs)
    return Choice(begun, held, unchanged, globs, tuple(alike), content)


def _is_of(export: Export, version: Version) -> bool:
    return bool(export.modified) and version.modified == export.modified
