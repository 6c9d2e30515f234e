"""Resolve the text that names a version on the command line: its name, a unique prefix of it, or `current`."""

from __future__ import annotations

from tilesync.core.safe_names import CURRENT_VERSION, resolve_version_name
from tilesync.errors import DestinationError
from tilesync.protocols import ReadOnlyPublication


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
    latest = (publication.latest() or {}) if text == CURRENT_VERSION else {}
    return resolve_version_name(text, names, current=latest.get("version"))
