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
from tilesync.model.storage import Label
from tilesync.stores.s3.objects import Whole
from tilesync.transport.blob_client_sync import Blocking, Send

CHARACTERS: Final = "x +%&=~'()!$,;:@#?ä"
"""Those that are tried. The first is read rightly by everyone: where it is not there is another reason."""

_AS_IT_STANDS: Final = "/!$&'()*+,;=:@~"
"""What a client leaves as it stands in a path. Source: URL Standard, "path percent-encode set"."""

_LABEL: Final = Label("text/plain", None, "no-store")
_LIFE: Final = timedelta(minutes=5)


def misread(whole: Whole, folder: str, asking: Callable[[], AbstractContextManager[Blocking]]) -> list[str]:
    """The characters that do not come back as they were written, by a listing or when a viewer asks for them; none
    where this server gives nothing to those who ask like one.
    """
    names = {char: f"{folder}{number}a{char}b" for number, char in enumerate(CHARACTERS)}
    written = list(names.values())
    try:
        for char, name in names.items():
            whole.put(name, char.encode(), _LABEL, instead_of=None)
        listed = {each.name for page in whole.pages(folder.rstrip("/")) for each in page}
        written += listed - set(written)
        with asking() as talk:
            right = {char for char, name in names.items() if name in listed and _served(talk, whole, name, char)}
    finally:
        whole.delete(written)
    return [char for char in CHARACTERS if char not in right] if CHARACTERS[0] in right else []


def _served(talk: Blocking, whole: Whole, name: str, char: str) -> bool:
    """Whether one who asks for the name as viewers do is given this object."""
    parts = urlsplit(whole.signed(name, _LIFE))
    path = quote(unquote(parts.path), safe=_AS_IT_STANDS)
    with talk.send(Send("GET", f"{parts.scheme}://{parts.netloc}{path}?{parts.query}", {})) as reply:
        if reply.status >= 500:
            raise Transient(f"the destination answered {reply.status}")
        return reply.read() == char.encode() if reply.status == 200 else False
