"""Ids of iModels and iTwins in a URL of a portal or a viewer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from tilesync.errors import UsageError

_GUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_IMODEL_KEYS: Final = {"imodel", "imodels", "imodelid"}
_ITWIN_KEYS: Final = {
    "itwin",
    "itwins",
    "itwinid",
    "my-itwins",
    "context",
    "contextid",
    "project",
    "projects",
    "projectid",
}
_SIGNATURE_PATTERN: Final = re.compile(r"(?:^|[?&])(?:sig|Signature|Policy)=")

IMODEL_ID_HINT: Final = (
    "`tilesync exports` without an id lists what this identity can see, and the portal shows the id: My iTwins, the"
    " iTwin, the iModel"
)

ITWIN_ID_HINT: Final = (
    "the portal shows the id: My iTwins, the iTwin, Settings; and it comes after /my-itwins/ in the URL"
)


def parse_guid(text: str) -> str | None:
    """Parse a GUID, with or without braces; None for any other text."""
    guid = text.strip().removeprefix("{").removesuffix("}")
    return guid if _GUID.fullmatch(guid) else None


def find_imodel_id(url: str) -> str | None:
    """Find the iModel id in a URL: after /imodels/, in iModelId=, or the only id beside that of the iTwin.

    Returns None for a signed URL (the link of a container), and for one without an id. Raises UsageError for a URL of
    Bentley with ids of which none is clearly the iModel's.
    """
    ids = _collect_ids(url)
    imodel_ids = {guid.lower() for key, guid in ids if key in _IMODEL_KEYS}
    other_ids = {guid.lower() for key, guid in ids if key not in _IMODEL_KEYS | _ITWIN_KEYS}
    if not imodel_ids and any(key in _ITWIN_KEYS for key, _ in ids):
        imodel_ids = other_ids
    if len(imodel_ids) == 1:
        return imodel_ids.pop()
    if ids and (urlsplit(url).hostname or "").endswith("bentley.com"):
        raise UsageError(
            "cannot tell which iModel id the URL names",
            hint="give only the id: in such URLs it comes after /imodels/, or in iModelId=",
        )
    return None


def find_itwin_id(url: str) -> str | None:
    """Find the iTwin id in a URL: after /itwins/, /my-itwins/ or the like, or in iTwinId=.

    Returns None for a signed URL (the link of a container), and for one without exactly one such id.
    """
    itwin_ids = {guid.lower() for key, guid in _collect_ids(url) if key in _ITWIN_KEYS}
    return itwin_ids.pop() if len(itwin_ids) == 1 else None


def _collect_ids(url: str) -> list[tuple[str, str]]:
    """Return the ids of a URL with what precedes each; none for a signed URL, and for a text that is no URL."""
    if _SIGNATURE_PATTERN.search(url):
        return []
    try:
        parts = urlsplit(url)
    except ValueError:
        return []
    return [*_find_ids(parts.path, parts.query), *_find_ids(*_split_fragment(parts.fragment))]


def _split_fragment(fragment: str) -> tuple[str, str]:
    path, _, query = fragment.partition("?")
    return path, query


def _find_ids(path: str, query: str) -> Iterator[tuple[str, str]]:
    """Yield each id with the path segment or query key before it, in lower case."""
    previous = ""
    for segment in path.split("/"):
        if _GUID.fullmatch(segment):
            yield previous, segment
        previous = segment.lower()
    yield from ((key.lower(), value) for key, value in parse_qsl(query) if _GUID.fullmatch(value))
