"""Resolve the text that names a version on the command line: its name, a unique prefix of it, or `current`."""

from __future__ import annotations

from typing import Final

from tilesync.core.safe_names import resolve_version_name
from tilesync.errors import DestinationError
from tilesync.protocols import ReadOnlyPublication

CURRENT: Final = "current"
"""Text for the version that the pointer names. No version has this name: names begin with the id of an export."""


def resolve_version(publication: ReadOnlyPublication, text: str) -> str:
    """Return the name of the finished version that `text` means: a name, a unique prefix of one, or `current`.

    Raises UsageError, which lists the versions to choose from, if there is none or more than one; DestinationError if
    there is no version at all, or no current one.
    """
    names = publication.manifest_names()
    if not names:
        raise DestinationError(
            "the destination has no finished version", hint="give a DEST that `tilesync mirror` has filled"
        )
    return _find_current(publication, names) if text == CURRENT else resolve_version_name(text, names)


def _find_current(publication: ReadOnlyPublication, names: list[str]) -> str:
    """Return the version that `latest.json` names."""
    current = (publication.latest() or {}).get("version")
    if current is None:
        raise DestinationError(
            "no version is published yet, so there is no current one",
            hint=f"name a version instead of `{CURRENT}`: `tilesync versions DEST` shows all versions",
        )
    if current not in names:
        raise DestinationError(
            f"the destination is damaged: its latest.json names version {current}, whose manifest is missing",
            hint="run `tilesync mirror` again, or name another version: `tilesync versions DEST` shows all versions",
        )
    return str(current)
