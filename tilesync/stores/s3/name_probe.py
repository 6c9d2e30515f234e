"""Find the characters in names that a server misreads in URLs.

S3 itself reads a plus sign in a path as a space, as HTML forms do. Viewers send it unescaped, as the tileset has it,
since the URL standard allows that. Such a file is stored, and no viewer finds it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from tilesync.errors import Transient
from tilesync.model.storage import ObjectHeaders
from tilesync.stores.s3.objects import ObjectClient
from tilesync.transport.blob_client_sync import SyncBlobClient, SyncBlobRequest

PROBED_CHARACTERS: Final = "x +%&=~'()!$,;:@#?ä"
"""Characters that are probed. All servers read the first one correctly: if one does not, something else is wrong."""

_UNESCAPED_PATH_CHARACTERS: Final = "/!$&'()*+,;=:@~"
"""Characters that clients do not escape in a path. Source: URL Standard, "path percent-encode set"."""

_PROBE_HEADERS: Final = ObjectHeaders("text/plain", None, "no-store")
_SIGNED_URL_LIFETIME: Final = timedelta(minutes=5)


def find_misread_characters(
    object_client: ObjectClient,
    folder: str,
    open_anonymous_client: Callable[[], AbstractContextManager[SyncBlobClient]],
) -> list[str]:
    """Write, list and request one object for each character, and return the characters that are misread.

    The list is empty if the server does not serve such requests at all: then nothing can be concluded.
    """
    names = {char: f"{folder}{number}a{char}b" for number, char in enumerate(PROBED_CHARACTERS)}
    written = list(names.values())
    try:
        for char, name in names.items():
            object_client.put(name, char.encode(), _PROBE_HEADERS, expected_etag=None)
        listed = {each.name for page in object_client.list_pages(folder.rstrip("/")) for each in page}
        written += listed - set(written)
        with open_anonymous_client() as client:
            correct = {
                char for char, name in names.items() if name in listed and _is_served(client, object_client, name, char)
            }
    finally:
        object_client.delete(written)
    return [char for char in PROBED_CHARACTERS if char not in correct] if PROBED_CHARACTERS[0] in correct else []


def _is_served(client: SyncBlobClient, object_client: ObjectClient, name: str, char: str) -> bool:
    """Return whether the server sends this object for the URL that a viewer would send."""
    parts = urlsplit(object_client.sign_url(name, _SIGNED_URL_LIFETIME))
    path = quote(unquote(parts.path), safe=_UNESCAPED_PATH_CHARACTERS)
    with client.send_once(
        SyncBlobRequest("GET", f"{parts.scheme}://{parts.netloc}{path}?{parts.query}", {})
    ) as response:
        if response.status >= 500:
            raise Transient(f"the destination answered {response.status}")
        return response.read() == char.encode() if response.status == 200 else False
