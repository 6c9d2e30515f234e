"""How wide the terminal behind a stream is, now."""

from __future__ import annotations

import os
from typing import Final, TextIO

DEFAULT_COLUMNS: Final = 80
"""Columns of a terminal that does not say how many it has."""


def terminal_columns(stream: TextIO | None) -> int | None:
    """The columns of the terminal that a stream leads to; None where it leads to none, such as a file or a pipe."""
    try:
        if stream is None or not stream.isatty():
            return None
        return os.get_terminal_size(stream.fileno()).columns or DEFAULT_COLUMNS
    except (OSError, ValueError):
        return None
