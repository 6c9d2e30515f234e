"""Width of the terminal behind a stream."""

from __future__ import annotations

import os
from typing import Final, TextIO

DEFAULT_COLUMNS: Final = 80
"""Columns of a terminal that does not report its width."""


def terminal_columns(stream: TextIO | None) -> int | None:
    """Return the current columns of the terminal behind a stream; None for a file or a pipe."""
    try:
        if stream is None or not stream.isatty():
            return None
        return os.get_terminal_size(stream.fileno()).columns or DEFAULT_COLUMNS
    except (OSError, ValueError):
        return None
