"""The iModel that a URL of a portal or a viewer names."""

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


def parse_guid(text: str) -> str | None:
    """The id that a text is, without braces around it; None when it is no GUID."""
    plain = text.strip().removeprefix("{").removesuffix("}")
    return plain if _GUID.fullmatch(plain) else None


def find_imodel_id(url: str) -> str | None:
    """The iModel that a URL names: behind /imodels/ or in iModelId=, or as the one id beside that of its iTwin.

    None where the URL is signed, so the link of a container, or holds no id. Raises UsageError for one of Bentley whose
    ids could mean anything.
    """
    if _SIGNATURE_PATTERN.search(url):
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    found = list(_find_ids(parts.path, parts.query)) + list(_find_ids(*_split_fragment(parts.fragment)))
    named = {guid.lower() for mark, guid in found if mark in _IMODEL_KEYS}
    others = {guid.lower() for mark, guid in found if mark not in _IMODEL_KEYS | _ITWIN_KEYS}
    if not named and any(mark in _ITWIN_KEYS for mark, _ in found):
        named = others
    if len(named) == 1:
        return named.pop()
    if found and (parts.hostname or "").endswith("bentley.com"):
        raise UsageError(
            "which iModel that URL means is not plain",
            hint="copy the id alone: in such URLs it stands behind /imodels/, or in iModelId=",
        )
    return None


def _split_fragment(fragment: str) -> tuple[str, str]:
    path, _, query = fragment.partition("?")
    return path, query


def _find_ids(path: str, query: str) -> Iterator[tuple[str, str]]:
    """Each id, with the word in small letters that stands before it."""
    before = ""
    for word in path.split("/"):
        if _GUID.fullmatch(word):
            yield before, word
        before = word.lower()
    yield from ((key.lower(), value) for key, value in parse_qsl(query) if _GUID.fullmatch(value))
