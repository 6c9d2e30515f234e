"""Cache in memory: bounds, order of eviction, and pins."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tilesync.model import Blob
from tilesync.model.storage import ObjectHeaders
from tilesync.serving.live.cache import ENTRY_OVERHEAD_BYTES, CacheEntry, MemoryCache


def add(cache: MemoryCache, name: str, size: int, version: str = "e1") -> CacheEntry | None:
    """Add an entry and leave it pinned; None if there is no room."""
    if not cache.reserve(ENTRY_OVERHEAD_BYTES + size):
        return None
    entry = CacheEntry((version, name), Blob(name, size), '"e"', ObjectHeaders("text/plain"), bytes(size))
    cache.add_pinned(entry)
    return entry


def add_idle(cache: MemoryCache, name: str, size: int, version: str = "e1") -> None:
    entry = add(cache, name, size, version)
    assert entry is not None
    cache.unpin(entry)


def test_least_recently_used_is_evicted() -> None:
    """An entry that was used lately stays; the one whose use is longest ago goes, and is counted."""
    cache = MemoryCache(3 * (ENTRY_OVERHEAD_BYTES + 1000))
    for name in "abc":
        add_idle(cache, name, 1000)
    used = cache.pin(("e1", "a"))
    assert used is not None
    cache.unpin(used)
    add_idle(cache, "d", 1000)
    assert [name for name in "abcd" if cache.pin(("e1", name)) is not None] == ["a", "c", "d"]
    assert cache.counts.evicted == 1


def test_pinned_entries_stay() -> None:
    """An entry that is being sent is not evicted; if nothing else can be, there is no room."""
    cache = MemoryCache(2 * (ENTRY_OVERHEAD_BYTES + 1000))
    assert add(cache, "a", 1000) is not None
    assert add(cache, "b", 1000) is not None
    assert add(cache, "c", 1000) is None
    assert len(cache) == 2
    assert cache.used_bytes == cache.max_bytes


def test_discarded_while_pinned() -> None:
    """An entry that is discarded while it is being sent counts until its last pin."""
    cache = MemoryCache(1 << 20)
    entry = add(cache, "a", 1000)
    assert entry is not None
    cache.pin_again(entry)
    cache.discard(("e1", "a"))
    assert cache.pin(("e1", "a")) is None
    cache.unpin(entry)
    assert cache.used_bytes == ENTRY_OVERHEAD_BYTES + 1000
    cache.unpin(entry)
    assert cache.used_bytes == 0


def test_version_is_discarded() -> None:
    """The entries of one version go, those of another one stay."""
    cache = MemoryCache(1 << 20)
    add_idle(cache, "a", 10, "e1")
    add_idle(cache, "b", 10, "e1")
    add_idle(cache, "a", 10, "e2")
    cache.discard_version("e1")
    assert len(cache) == 1
    assert cache.used_bytes == ENTRY_OVERHEAD_BYTES + 10


@given(
    st.lists(st.tuples(st.sampled_from(["add", "unpin", "pin", "discard"]), st.integers(0, 9), st.integers(0, 4000)))
)
def test_count_is_exact(steps: list[tuple[str, int, int]]) -> None:
    """The counted bytes are those of all entries that are kept or being sent, and never exceed the maximum."""
    cache, pinned = MemoryCache(12_000), list[CacheEntry]()
    for step, number, size in steps:
        name = str(number)
        if step == "add" and (entry := add(cache, name, size)) is not None:
            pinned.append(entry)
        elif step == "pin" and (found := cache.pin(("e1", name))) is not None:
            pinned.append(found)
        elif step == "discard":
            cache.discard(("e1", name))
        elif step == "unpin" and pinned:
            cache.unpin(pinned.pop(number % len(pinned)))
        assert 0 <= cache.used_bytes <= cache.max_bytes
    for entry in pinned:
        cache.unpin(entry)
    kept = [cache.pin(("e1", str(number))) for number in range(10)]
    assert cache.used_bytes == sum(entry.cost_bytes for entry in kept if entry is not None)
