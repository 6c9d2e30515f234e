"""Secrets in environment variables, or in the files that variables NAME_FILE name, as service managers do it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from tilesync.errors import UsageError
from tilesync.runtime.safe_open import MAX_SMALL_FILE_BYTES, open_regular

SECRETS_WITH_FILE: Final = ("ITP_SERVICE_CLIENT_SECRET", "AZURE_STORAGE_KEY")
"""Variables that may be replaced by NAME_FILE. AWS_SHARED_CREDENTIALS_FILE is the way of AWS's own libraries."""


def read_secret(name: str, environ: Mapping[str, str]) -> str:
    """Return the secret of the variable `name`, else the text of the file in NAME_FILE; "" if neither is set.

    White space around the text is dropped. Only regular files are read, so that a second reader gets the same text.
    Raises UsageError if both are set, and for a file that is empty or cannot be read.
    """
    variable, value = f"{name}_FILE", environ.get(name, "")
    path = environ.get(variable)
    if not path:
        return value
    if value:
        raise UsageError(f"both {name} and {variable} are set", hint=f"unset {name} if the file holds the secret")
    try:
        text = _read_text(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UsageError(
            f"the file of {variable} cannot be read ({path}: {reason})",
            hint="it must be a text file that the user of this process may read",
        ) from None
    if not text:
        raise UsageError(f"the file of {variable} is empty ({path})", hint="write the secret into it, and nothing else")
    return text


def _read_text(path: str) -> str:
    with os.fdopen(open_regular(path, follow_symlinks=True), "rb") as file:
        data = file.read(MAX_SMALL_FILE_BYTES + 1)
    if len(data) > MAX_SMALL_FILE_BYTES:
        raise ValueError(f"it is longer than {MAX_SMALL_FILE_BYTES:,} bytes")
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise ValueError("it is no UTF-8 text") from None
