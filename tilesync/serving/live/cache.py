"""Cache in memory for files of containers: least recently used, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from tilesync.model import Blob
from tilesync.model.storage import ObjectHeaders

ENTRY_OVERHEAD_BYTES = 1024
"""Bytes counted for an entry beside its body: its name, its headers and its place in the cache."""

CacheKey = tuple[str, str]
"""Name of the version, and name of the file."""


@dataclass(slots=True, eq=False)
class CacheEntry:
    """File of a container. `body`: all of its bytes; None for a file that is too large to be kept.

    `etag`: with its quotes, as responses state it.
    """

    key: CacheKey
    blob: Blob
    etag: str
    headers: ObjectHeaders
    body: bytes | None = None
    sha256: bytes | None = None
    pin_count: int = 0

    @property
    def cost_bytes(self) -> int:
        """Bytes that the entry counts for."""
        return ENTRY_OVERHEAD_BYTES + (len(self.body) if self.body is not None else 0)


@dataclass(slots=True)
class CacheCounts:
    """Counts of a cache. `joined`: requests that waited for the download of another request."""

    hits: int = 0
    misses: int = 0
    joined: int = 0
    evicted: int = 0


class MemoryCache:
    """Entries and downloads in progress that together take `max_bytes` at most.

    A pinned entry is being sent, so that its memory cannot be freed: it is not evicted and counts until it is unpinned.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.counts = CacheCounts()
        self.used_bytes = 0
        self._idle: OrderedDict[CacheKey, CacheEntry] = OrderedDict()  # in the order of their last use
        self._pinned: dict[CacheKey, CacheEntry] = {}

    def __len__(self) -> int:
        return len(self._idle) + len(self._pinned)

    def pin(self, key: CacheKey) -> CacheEntry | None:
        """Return an entry, pinned once more; None if there is none."""
        entry = self._pinned.get(key)
        if entry is None:
            if (entry := self._idle.pop(key, None)) is None:
                return None
            self._pinned[key] = entry
        entry.pin_count += 1
        return entry

    def pin_again(self, entry: CacheEntry) -> None:
        """Pin an entry that is pinned already."""
        entry.pin_count += 1

    def unpin(self, entry: CacheEntry) -> None:
        """Undo one `pin`. An entry that was discarded meanwhile is forgotten with its last pin."""
        entry.pin_count -= 1
        if entry.pin_count:
            return
        if self._pinned.get(entry.key) is entry:
            del self._pinned[entry.key]
            self._idle[entry.key] = entry
        else:
            self.used_bytes -= entry.cost_bytes

    def reserve(self, count: int) -> bool:
        """Make room for `count` bytes and count them; return False if what is pinned or reserved leaves no room."""
        while self.used_bytes + count > self.max_bytes and self._idle:
            _, entry = self._idle.popitem(last=False)
            self.used_bytes -= entry.cost_bytes
            self.counts.evicted += 1
        if self.used_bytes + count > self.max_bytes:
            return False
        self.used_bytes += count
        return True

    def reserve_beyond_limit(self, count: int) -> None:
        """Count a few bytes that are needed even if they exceed `max_bytes`."""
        self.used_bytes += count

    def free(self, count: int) -> None:
        """Give back reserved bytes."""
        self.used_bytes -= count

    def add_pinned(self, entry: CacheEntry) -> None:
        """Add an entry, pinned once, whose cost is reserved; one under the same key is replaced."""
        self.discard(entry.key)
        entry.pin_count += 1
        self._pinned[entry.key] = entry

    def discard(self, key: CacheKey) -> None:
        """Remove an entry if there is one. A pinned one counts until it is unpinned."""
        entry = self._idle.pop(key, None)
        if entry is not None:
            self.used_bytes -= entry.cost_bytes
        self._pinned.pop(key, None)

    def discard_version(self, version: str) -> None:
        """Remove all entries of one version."""
        for key in [key for entries in (self._idle, self._pinned) for key in entries if key[0] == version]:
            self.discard(key)
