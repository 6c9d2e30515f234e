"""SOURCE and DEST as a report may name them: never with a signature, and a folder by its whole path."""

from __future__ import annotations

import os
import re

from tilesync.app.requests import Location

_SECRET_PATTERN = re.compile(r"sig=|signature=|policy=", re.IGNORECASE)


def redact_source(text: str | None) -> str | None:
    """A SOURCE as it was typed, without what may be a secret; None for none, and for standard input."""
    if text is None or text == "-" or not text.strip():
        return None
    scheme, colon, rest = text.partition("://")
    if colon:
        rest = re.split(r"[?#]", rest, maxsplit=1)[0]
        host, slash, path = rest.partition("/")
        return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
    return None if _SECRET_PATTERN.search(text) else text


def redact_dest(text: Location | str | None) -> str | None:
    """A DEST, likewise; a folder by its whole path."""
    plain = redact_source(str(text)) if text is not None else None
    if plain is None or "://" in plain:
        return plain
    try:
        return os.path.abspath(plain)
    except OSError:  # the working directory is gone
        return plain
