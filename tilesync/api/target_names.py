"""Names of SOURCE and DEST for reports: without secrets, and folders by their absolute path."""

from __future__ import annotations

import os
import re

from tilesync.app.requests import Location

_SECRET_PATTERN = re.compile(r"sig=|signature=|policy=", re.IGNORECASE)


def redact_source(text: str | None) -> str | None:
    """Return a SOURCE without possible secrets; None if there is none, or it comes from standard input."""
    if text is None or text == "-" or not text.strip():
        return None
    scheme, colon, rest = text.partition("://")
    if colon:
        rest = re.split(r"[?#]", rest, maxsplit=1)[0]
        host, slash, path = rest.partition("/")
        return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
    return None if _SECRET_PATTERN.search(text) else text


def redact_dest(text: Location | str | None) -> str | None:
    """Return a DEST without possible secrets; a folder by its absolute path."""
    plain = redact_source(str(text)) if text is not None else None
    if plain is None or "://" in plain:
        return plain
    try:
        return os.path.abspath(plain)
    except OSError:  # the working directory is gone
        return plain
