"""Read and write the files of versions in an object store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from threading import RLock
from typing import TYPE_CHECKING

from tilesync.core.http_headers import CachePolicy
from tilesync.core.safe_names import find_universal_problem
from tilesync.errors import DestinationError
from tilesync.model import Blob, Digests, FileStamp, SasUrl, StoredFile, UnchangedFile, Version
from tilesync.model.storage import HEAD_BYTES, CopySource, ObjectInfo
from tilesync.protocols import Objects, PresencePage, Upload
from tilesync.runtime.threads import map_in_threads
from tilesync.stores.local.fs import ThreadBatcher
from tilesync.stores.object_store.draft import ObjectDraft, WaitForBandwidth, to_stored_file
from tilesync.stores.object_store.listing_cache import ListingCache, has_same_md5, hash_etag, is_unchanged
from tilesync.stores.object_store.object_names import check_object_names, object_key
from tilesync.stores.presence_pages import find_changed_pages

if TYPE_CHECKING:
    from tilesync.catalog.catalog import Catalog
    from tilesync.stores.object_store.lock import LeaseRenewer
    from tilesync.stores.worker_target import FindWorkerTarget, MakeWorkerTarget, WorkerTarget

PARALLEL_COPIES = 32
"""Parallel requests for copies within the store."""

MAX_SINGLE_LOOKUPS = 32
"""Files that are looked up one by one; for more the version is listed."""

OBJECTS_PER_DELETE = 1000
"""Objects in one call of `delete`."""

BYTES_PER_TRANSFER_SLOT = 1 << 19
"""Bytes in memory that one transfer slot stands for."""


class ObjectStoredFiles:
    """Files of versions, read only. A lookup of many files lists the version: one request for thousands of files."""

    parallel_reads = 16
    changed_pages = find_changed_pages

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self._listing_cache = ListingCache()
        self._changes: dict[str, object] = {}
        self._listed_changes: dict[str, object] = {}
        self._listing_lock = RLock()

    def _list(self, version: str, *, fresh: bool) -> ListingCache:
        """Return the cache with this version listed. With `fresh`, list again after a change made by this run."""
        with self._listing_lock:
            if version not in self._listed_changes or (fresh and not self._has_current_listing(version)):
                self._listed_changes.pop(version, None)
                change = self._changes.setdefault(version, object())
                self._listing_cache.replace_listing(version, self._pages(version))
                self._listed_changes[version] = change
        return self._listing_cache

    def _has_current_listing(self, version: str) -> bool:
        """Return whether this run changed nothing in the version since its listing began."""
        change = self._listed_changes.get(version)
        return change is not None and change is self._changes[version]

    def _mark_changed(self, version: str) -> None:
        self._changes[version] = object()

    def _pages(self, version: str) -> Iterator[list[ObjectInfo]]:
        """List the objects in the folder of a version, named relative to it."""
        prefix = object_key(version, "")
        for page in self.objects.list_pages(prefix):
            yield [each._replace(name=each.name[len(prefix) :]) for each in page]

    def names(self, version: Version) -> Iterator[str]:
        """List the names in the folder of a version, including files that the catalog does not know."""
        return (each.name for page in self._pages(version.name) for each in page)

    def unchanged(self, version: Version, stored: Sequence[StoredFile]) -> list[bool]:
        """Return for each file whether its ETag, or its size and MD5, are unchanged."""
        if len(stored) <= MAX_SINGLE_LOOKUPS and not self._has_current_listing(version.name):
            return [is_unchanged(each, self._find(version.name, each.blob.name)) for each in stored]
        found = self._list(version.name, fresh=True).find_many(version.name, [each.blob.name for each in stored])
        return [is_unchanged(each, found.get(each.blob.name)) for each in stored]

    def prepare_listing(self, version: Version) -> None:
        """List the version now. Lookups use this listing until this run changes the version."""
        self._list(version.name, fresh=True)

    def presence_pages(self, version: Version, catalog: Catalog, cursor: str) -> Iterator[PresencePage]:
        """Compare the listing with the catalog, page by page, from `cursor` on.

        A file that the store no longer lists is on no page: only the sum of the counts shows that it is missing.
        """
        prefix = object_key(version.name, "")
        for page, next_cursor in self.objects.list_pages_from(prefix, cursor):
            listed = {each.name[len(prefix) :]: each for each in page}
            stored = catalog.find_stored(version, list(listed))
            changed = [each for name, each in stored.items() if not is_unchanged(each, listed[name])]
            yield PresencePage(len(stored), changed, next_cursor)

    def size(self, version: Version, name: str) -> int | None:
        """Return the size of the object in bytes, or None if it is missing."""
        found = self._find(version.name, name)
        return found.size if found is not None else None

    def stamp(self, version: Version, name: str) -> FileStamp | None:
        """Return the stamp of the object, or None if it is missing."""
        found = self._find(version.name, name)
        return FileStamp(hash_etag(found.etag)) if found is not None else None

    def _find(self, version: str, name: str) -> ObjectInfo | None:
        """Return the object from the listing if that is current, else by a request."""
        if find_universal_problem(name):
            return None
        if self._has_current_listing(version):
            return self._listing_cache.find_many(version, [name]).get(name)
        return self.objects.find(object_key(version, name))

    def read_into(self, version: Version, name: str, consume: Callable[[bytes], object]) -> FileStamp | None:
        """Read the object into `consume`, and return its stamp, or None if it is missing."""
        stored = None if find_universal_problem(name) else self.objects.read(object_key(version.name, name))
        if stored is None:
            return None
        for chunk in stored.chunks:
            consume(chunk)
        return FileStamp(hash_etag(stored.info.etag))

    def read_whole(self, version: Version, stored: Sequence[StoredFile]) -> Iterator[None]:
        """Yield None for each: a request for every object is better made in a thread of its own."""
        yield from [None] * len(stored)

    def digest(self, version: Version, name: str) -> bytes | None:
        """Read the object and return its SHA-256, or None if it is missing."""
        sha256 = hashlib.sha256()
        return None if self.read_into(version, name, sha256.update) is None else sha256.digest()

    def chunks(self, version: Version, name: str, *, offset: int = 0) -> Iterator[bytes]:
        """Yield the bytes of one object from `offset` on, chunk by chunk."""
        stored = (
            None if find_universal_problem(name) else self.objects.read(object_key(version.name, name), offset=offset)
        )
        if stored is None:
            raise DestinationError(
                f"cannot read {name} of version {version.name}: it is not in {self.objects.display_name}"
            )
        yield from stored.chunks

    def read(self, version: Version, name: str) -> bytes:
        """Return the bytes of one object."""
        return b"".join(self.chunks(version, name))

    def worker_reader(self) -> None:
        """Return None: the listings and the links of a store belong to one process."""

    def close(self) -> None:
        """Delete the cached listings."""
        self._listing_cache.close()


NameWarner = Callable[[Iterable[str]], object]
"""Inspect the names of files before they are stored, and warn."""


class ObjectFiles(ObjectStoredFiles):
    """Files of versions, read and written. `guard` checks the lock before each write."""

    has_hard_links = keeps_parts = False
    requires_md5 = states_encoding = True

    def __init__(
        self,
        objects: Objects,
        cache_policy: CachePolicy,
        guard: LeaseRenewer,
        *,
        warn_names: NameWarner = lambda names: None,
        wait_for_bandwidth: WaitForBandwidth | None = None,
        make_worker_target: MakeWorkerTarget | None = None,
    ) -> None:
        super().__init__(objects)
        self._make_worker_target = make_worker_target
        self._warn_names = warn_names
        self._wait_for_bandwidth = wait_for_bandwidth
        self._cache_policy = cache_policy
        self._guard = guard
        self._batcher = ThreadBatcher()

    def worker_target_finder(self) -> FindWorkerTarget | None:
        """Return the function that finds the target for workers; None if they cannot write here."""
        make_target = self._make_worker_target
        if make_target is None:
            return None

        async def find(version: Version) -> WorkerTarget:
            self.mark_changed(version)
            return await make_target(self._cache_policy)

        return find

    def mark_changed(self, version: Version) -> None:
        """Invalidate the listing before workers write files. Raises DestinationBusy if the lock is not held."""
        self._guard.require_held()
        self._mark_changed(version.name)

    def free_bytes(self) -> None:
        """Return None: a store has no limit."""

    def check_names(self, names: Iterable[str]) -> None:
        """Raise UnsafeName for names that the store cannot hold; warn about names that it misreads."""
        names = list(names)
        check_object_names(names, self.objects)
        self._warn_names(names)

    def has_part(self, version: Version, blob: Blob) -> bool:
        """Return False: a file that an earlier run did not finish is read again."""
        return False

    def transfer_slots(self, blob: Blob) -> int:
        """Return the number of transfer slots that a file takes: an upload in parts needs more memory."""
        return max(1, self.objects.part_bytes // BYTES_PER_TRANSFER_SLOT) if blob.size > self.objects.part_bytes else 1

    async def put(self, version: Version, blob: Blob, data: bytes, verify: Callable[[bytes], Digests]) -> StoredFile:
        """Upload a small file. Its digests are checked in a thread, in a batch with other files."""
        digests = await self._batcher.run(partial(verify, data))
        if self._wait_for_bandwidth is not None:
            await self._wait_for_bandwidth(len(data))
        self._guard.require_held()
        self._mark_changed(version.name)
        object_headers = self._cache_policy.file_headers(blob, data[:HEAD_BYTES])
        found = await self.objects.put(object_key(version.name, blob.name), data, digests.md5, object_headers)
        return to_stored_file(blob, digests, found)

    async def copy_from_source(
        self, version: Version, blob: Blob, url: SasUrl, head: bytes
    ) -> tuple[StoredFile | None, str]:
        """Let the store copy a blob from its source. Return the file; if that failed, None and the reason.

        The copy counts as verified if it has the MD5 that the source container states.
        """
        self.mark_changed(version)
        object_headers = self._cache_policy.file_headers(blob, head[:HEAD_BYTES])
        source = CopySource(url.blob_url(blob.name), blob.size, blob.etag, blob.md5)
        found = await self.objects.copy_from_url(source, object_key(version.name, blob.name), object_headers)
        if isinstance(found, str):
            return None, found
        return to_stored_file(blob, Digests(blob.size, b"", found.md5), found), ""

    def draft(self, version: Version, blob: Blob) -> ObjectDraft:
        """Return an empty draft of a blob."""

        def begin(head: bytes) -> Upload:
            self._guard.require_held()
            self._mark_changed(version.name)
            object_headers = self._cache_policy.file_headers(blob, head[:HEAD_BYTES])
            return self.objects.begin_upload(object_key(version.name, blob.name), blob.size, object_headers)

        return ObjectDraft(blob, begin, self._guard, self._wait_for_bandwidth)

    def find_present(self, version: Version, blobs: Sequence[Blob]) -> set[str]:
        """Return the names of blobs that are in the version with the same size and MD5."""
        found = self._list(version.name, fresh=False).find_many(version.name, [blob.name for blob in blobs])
        return {blob.name for blob in blobs if has_same_md5(blob, found.get(blob.name))}

    def link_unchanged(self, version: Version, earlier: Version, files: Sequence[UnchangedFile]) -> list[UnchangedFile]:
        """Return no file: an object store has no links."""
        return []

    def share(self, version: Version, requests: Sequence[tuple[Blob, Version, StoredFile]]) -> list[StoredFile | None]:
        """Copy files of other versions into this one, within the store; None if a file cannot be copied."""
        if not requests:
            return []
        self._guard.ensure_renewed()
        self._mark_changed(version.name)
        copies = dict[int, tuple[ObjectInfo, str]]()
        for number, source in enumerate(self._find_sources(requests)):
            if source is not None:
                copies[number] = (source, object_key(version.name, requests[number][0].name))
        found = dict(zip(copies, self.objects.copy_batch(list(copies.values())), strict=True))
        remaining = [number for number, copied in found.items() if copied is None]
        if remaining and len(remaining) == len(found):  # the first one finds out whether the store can copy at all
            first = remaining.pop(0)
            found[first] = self._copy(*copies[first])
        one_by_one = map_in_threads(lambda number: self._copy(*copies[number]), remaining, max_threads=PARALLEL_COPIES)
        found.update(zip(remaining, one_by_one, strict=True))
        return [
            to_stored_file(blob, Digests(stored.blob.size, stored.sha256, stored.blob.md5), copied)
            if (copied := found.get(number)) is not None
            else None
            for number, (blob, _, stored) in enumerate(requests)
        ]

    def _find_sources(self, requests: Sequence[tuple[Blob, Version, StoredFile]]) -> list[ObjectInfo | None]:
        """Return the object of each stored file, or None if it is missing or changed."""
        if len(requests) <= MAX_SINGLE_LOOKUPS:
            return map_in_threads(
                lambda each: self._find_source(each[1].name, each[2]), requests, max_threads=PARALLEL_COPIES
            )
        sources: list[ObjectInfo | None] = [None] * len(requests)
        by_version = dict[str, list[int]]()
        for number, (_, other, _) in enumerate(requests):
            by_version.setdefault(other.name, []).append(number)
        for version, numbers in by_version.items():
            listed = self._list(version, fresh=True).find_many(
                version, [requests[number][2].blob.name for number in numbers]
            )
            for number in numbers:
                stored = requests[number][2]
                sources[number] = _source_of(version, stored, listed.get(stored.blob.name))
        return sources

    def _find_source(self, version: str, stored: StoredFile) -> ObjectInfo | None:
        return _source_of(version, stored, self._find(version, stored.blob.name))

    def _copy(self, source: ObjectInfo, name: str) -> ObjectInfo | None:
        with suppress(DestinationError):
            return self.objects.copy(source, name)
        return None

    def remove(self, version: Version, names: Iterable[str]) -> None:
        """Remove objects that an unpublished version should not have; missing is no error."""
        keys = (object_key(version.name, name) for name in names if not find_universal_problem(name))
        while batch := list(islice(keys, OBJECTS_PER_DELETE)):
            self._guard.ensure_renewed()
            self._mark_changed(version.name)
            self.objects.delete(batch)

    def remove_parts(self) -> None:
        """Do nothing: the store discards unfinished uploads by itself."""


def _source_of(version: str, stored: StoredFile, found: ObjectInfo | None) -> ObjectInfo | None:
    """Return the object of a stored file with its full name, or None if it is missing or changed."""
    unchanged = found is not None and is_unchanged(stored, found)
    return found._replace(name=object_key(version, stored.blob.name)) if found is not None and unchanged else None
