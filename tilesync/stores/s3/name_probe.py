"""How a server reads the names that it is asked for: as they are, or some characters as others.

S3 itself takes a plus sign in a path for a space, as forms do; viewers ask for it as it stands in the tileset, since
the URL standard leaves it so. Such a file is there, and no viewer finds it.
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
"""Those that are tried. The first is read rightly by everyone: where it is not there is another reason."""

_UNESCAPED_PATH_CHARACTERS: Final = "/!$&'()*+,;=:@~"
"""What a client leaves as it stands in a path. Source: URL Standard, "path percent-encode set"."""

_PROBE_HEADERS: Final = ObjectHeaders("text/plain", None, "no-store")
_SIGNED_URL_LIFETIME: Final = timedelta(minutes=5)


def find_misread_characters(
    object_client: ObjectClient,
    folder: str,
    open_anonymous_client: Callable[[], AbstractContextManager[SyncBlobClient]],
) -> list[str]:
    """The characters that do not come back as they were written, by a listing or when a viewer asks for them; none
    where this server gives nothing to those who ask like one.
    """
    names = {char: f"{folder}{number}a{char}b" for number, char in enumerate(PROBED_CHARACTERS)}
    written = list(names.values())
    try:
        for char, name in names.items():
            object_client.put(name, char.encode(), _PROBE_HEADERS, expected_etag=None)
        listed = {each.name for page in object_client.list_pages(folder.rstrip("/")) for each in page}
        written += listed - set(written)
        with open_anonymous_client() as talk:
            right = {
                char for char, name in names.items() if name in listed and _is_served(talk, object_client, name, char)
            }
    finally:
        object_client.delete(written)
    return [char for char in PROBED_CHARACTERS if char not in right] if PROBED_CHARACTERS[0] in right else []


def _is_served(client: SyncBlobClient, object_client: ObjectClient, name: str, char: str) -> bool:
    """Whether one who asks for the name as viewers do is given this object."""
    parts = urlsplit(object_client.sign_url(name, _SIGNED_URL_LIFETIME))
    path = quote(unquote(parts.path), safe=_UNESCAPED_PATH_CHARACTERS)
    with client.send_once(SyncBlobRequest("GET", f"{parts.scheme}://{parts.netloc}{path}?{parts.query}", {})) as reply:
        if reply.status >= 500:
            raise Transient(f"the destination answered {reply.status}")
        return reply.read() == char.encode() if reply.status == 200 else False
