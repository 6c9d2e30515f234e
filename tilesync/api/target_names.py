"""Redact SOURCE and DEST for reports: without secrets, folders as absolute paths."""

from __future__ import annotations

import os
import re

from tilesync.app.locations import Location

_SECRET_PATTERN = re.compile(r"sig=|signature=|policy=", re.IGNORECASE)


def redact_source(text: str | None) -> str | None:
    """Return a SOURCE without possible secrets; None if it is not given, or comes from standard input."""
    if text is None or text == "-" or not text.strip():
        return None
    scheme, colon, rest = text.partition("://")
    if colon:
        rest = re.split(r"[?#]", rest, maxsplit=1)[0]
        host, slash, path = rest.partition("/")
        return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
    return None if _SECRET_PATTERN.search(text) else text


def redact_dest(text: Location | str | None) -> str | None:
    """Return a DEST without possible secrets; a folder as an absolute path."""
    redacted = redact_source(str(text)) if text is not None else None
    if redacted is None or "://" in redacted:
        return redacted
    try:
        return os.path.abspath(redacted)
    except OSError:  # the working directory is gone
        return redacted
