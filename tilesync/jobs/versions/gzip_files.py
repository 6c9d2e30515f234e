"""Files of a version that are stored as gzip: a web server must send `Content-Encoding: gzip` for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tilesync.core.gzip import PACKED
from tilesync.model import Held, Version
from tilesync.protocols import HeldFiles

KINDS: Final = 16
"""Kinds of files that are looked at, the most frequent ones."""


@dataclass(slots=True)
class _Kind:
    """`first` and `largest` are looked at; `stated`: files that their container calls gzip."""

    first: str
    largest: tuple[int, str]
    stated: int = 0
    count: int = 0


class GzipFiles:
    """Counts the files of a version by the ends of their names, as they pass, and then looks at two of each kind: to
    open them all would cost more than to publish them.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}

    def add(self, held: Held) -> None:
        """Take in one file."""
        if not held.size:
            return
        name = held.blob.name
        ending = name.rpartition("/")[2].rpartition(".")[2].lower()
        kind = self._kinds.get(ending)
        if kind is None:
            kind = self._kinds[ending] = _Kind(name, (held.size, name))
        kind.count += 1
        kind.stated += held.blob.content_encoding in {"gzip", "x-gzip"}
        if held.size > kind.largest[0]:
            kind.largest = held.size, name

    def found(self, files: HeldFiles, version: Version) -> tuple[int, list[str]]:
        """How many files are gzip, and the ends of their names: of a kind of which one begins so those that their
        container calls so, and all where it calls none so. Raises DestinationError.
        """
        count, endings = 0, list[str]()
        for ending, kind in sorted(self._kinds.items(), key=lambda item: -item[1].count)[:KINDS]:
            samples = {kind.first, kind.largest[1]}
            if any(next(files.chunks(version, name), b"").startswith(PACKED) for name in samples):
                count += kind.stated or kind.count
                endings.append(ending)
        return count, sorted(endings)
