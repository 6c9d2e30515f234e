"""Limit of open files of this process."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Final

MAX_OPEN_FILES: Final = 65_536
"""Open files that are enough for any server; some systems have no hard limit, and slow down with a large soft one."""


def raise_open_file_limit() -> None:
    """Raise the soft limit of open files to the hard one: a server needs two for each slow client.

    Many systems have a soft limit of 1024, for old programs that use select(2). Windows has no such limit.
    """
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # macOS has another limit below the one that it names
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
