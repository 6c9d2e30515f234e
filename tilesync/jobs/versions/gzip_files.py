"""Files of a version that are stored as gzip: a web server must send `Content-Encoding: gzip` for them."""

from __future__ import annotations

from typing import Final

from tilesync.model import StoredFile, Version
from tilesync.protocols import StoredFiles
from tilesync.runtime.gzip import GZIP_DEFLATE_MAGIC
from tilesync.values import dataclass

MAX_SAMPLED_KINDS: Final = 16
"""Number of suffixes of which samples are read: the most frequent ones."""


@dataclass(slots=True)
class _SuffixSample:
    """Files of one suffix. Two samples are read: the first and the largest.

    `stated_gzip` counts the files for which the container states Content-Encoding gzip.
    """

    first_name: str
    largest: tuple[int, str]
    stated_gzip: int = 0
    count: int = 0


class GzipFileCounter:
    """Counts the files of a version by suffix, then reads two samples of each suffix.

    Rejected: reading every file. That would cost more than publishing the version.
    """

    def __init__(self) -> None:
        self._samples: dict[str, _SuffixSample] = {}

    def add(self, stored: StoredFile) -> None:
        """Count one file."""
        if not stored.size:
            return
        name = stored.blob.name
        suffix = name.rpartition("/")[2].rpartition(".")[2].lower()
        sample = self._samples.get(suffix)
        if sample is None:
            sample = self._samples[suffix] = _SuffixSample(name, (stored.size, name))
        sample.count += 1
        sample.stated_gzip += stored.blob.content_encoding in {"gzip", "x-gzip"}
        if stored.size > sample.largest[0]:
            sample.largest = stored.size, name

    def count_gzip(self, files: StoredFiles, version: Version) -> tuple[int, list[str]]:
        """Return the number of gzip files and their suffixes, sorted.

        A suffix counts only if one of its samples is gzip: then its files that the container states as gzip are
        counted, or all its files if the container states none. Raises DestinationError.
        """
        count, suffixes = 0, list[str]()
        for suffix, sample in sorted(self._samples.items(), key=lambda item: -item[1].count)[:MAX_SAMPLED_KINDS]:
            sample_names = {sample.first_name, sample.largest[1]}
            if any(next(files.chunks(version, name), b"").startswith(GZIP_DEFLATE_MAGIC) for name in sample_names):
                count += sample.stated_gzip or sample.count
                suffixes.append(suffix)
        return count, sorted(suffixes)
