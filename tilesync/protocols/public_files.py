"""Interface of the files that a server may show: each is opened by its path, and read once or in part."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol


class OpenedFile(Protocol):
    """File that was opened to be read.

    `etag`: strong, with its quotes. `last_modified`: seconds since the epoch, None if unknown. `head`: its first bytes.
    `body`: all of its bytes, if they were at hand when it was opened.
    """

    size: int
    etag: str
    last_modified: int | None
    head: bytes
    body: bytes | None

    def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the stored bytes from `start` to before `stop`."""

    async def aclose(self) -> None:
        """Release the file. May be called twice."""


class PublicFiles(Protocol):
    """Files below the top of a destination, by their paths.

    It opens whatever has a safe path; the caller decides which paths are public. `has_other_files`: among them may be
    files that no version has, as in a folder; a package has none.
    """

    has_other_files: bool

    async def open(self, path: str) -> OpenedFile | None:
        """Open the regular file at a path relative to the top; None if there is none, or a symlink is on the way.

        Raises a RunError if the place does not answer.
        """
