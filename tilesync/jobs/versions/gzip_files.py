"""Files of a version that are stored as gzip: a web server must send `Content-Encoding: gzip` for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tilesync.core.gzip import GZIP_DEFLATE_MAGIC
from tilesync.model import StoredFile, Version
from tilesync.protocols import StoredFiles

MAX_SAMPLED_KINDS: Final = 16
"""Kinds of files that are looked at, the most frequent ones."""


@dataclass(slots=True)
class _SuffixSample:
    """`first` and `largest` are looked at; `stated`: files that their container calls gzip."""

    first_name: str
    largest: tuple[int, str]
    stated_gzip: int = 0
    count: int = 0


class GzipFileCounter:
    """Counts the files of a version by the ends of their names, as they pass, and then looks at two of each kind: to
    open them all would cost more than to publish them.
    """

    def __init__(self) -> None:
        self._samples: dict[str, _SuffixSample] = {}

    def add(self, stored: StoredFile) -> None:
        """Take in one file."""
        if not stored.size:
            return
        name = stored.blob.name
        ending = name.rpartition("/")[2].rpartition(".")[2].lower()
        kind = self._samples.get(ending)
        if kind is None:
            kind = self._samples[ending] = _SuffixSample(name, (stored.size, name))
        kind.count += 1
        kind.stated_gzip += stored.blob.content_encoding in {"gzip", "x-gzip"}
        if stored.size > kind.largest[0]:
            kind.largest = stored.size, name

    def count_gzip(self, files: StoredFiles, version: Version) -> tuple[int, list[str]]:
        """How many files are gzip, and the ends of their names: of a kind of which one begins so those that their
        container calls so, and all where it calls none so. Raises DestinationError.
        """
        count, endings = 0, list[str]()
        for ending, kind in sorted(self._samples.items(), key=lambda item: -item[1].count)[:MAX_SAMPLED_KINDS]:
            samples = {kind.first_name, kind.largest[1]}
            if any(next(files.chunks(version, name), b"").startswith(GZIP_DEFLATE_MAGIC) for name in samples):
                count += kind.stated_gzip or kind.count
                endings.append(ending)
        return count, sorted(endings)
