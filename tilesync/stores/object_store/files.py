"""The files of the versions of a destination in an object store: to be read, and on their way in."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from threading import RLock
from typing import Protocol

from tilesync.core.http_headers import HEAD_BYTES, CachePolicy
from tilesync.core.safe_names import are_all_safe, find_universal_problem, raise_if_unsafe
from tilesync.errors import DestinationError
from tilesync.model import Blob, Digests, FileStamp, SasUrl, StoredFile, Version
from tilesync.model.storage import CopySource, ObjectInfo
from tilesync.protocols import Catalog, Objects, PresencePage, Upload
from tilesync.runtime.threads import map_in_threads
from tilesync.stores.local.fs import ThreadBatcher
from tilesync.stores.object_store.listing_cache import ListingCache, has_same_md5, hash_etag, is_unchanged

VERSIONS_PREFIX = "versions/"

MAX_KEY_BYTES = 1024
"""Characters of a name in Azure, bytes in S3; bytes are the fewer. Source: "Naming and Referencing Containers, Blobs,
and Metadata"; Amazon S3, "Naming Amazon S3 objects".
"""

VERSION_PATH_BYTES = 160
"""Bytes kept for `versions/` and the name of a version."""

PARALLEL_COPIES = 32
"""Copies within the store that are asked for at once."""

MAX_SINGLE_LOOKUPS = 32
"""Files of a version that are asked about one by one; for more the version is listed."""

OBJECTS_PER_DELETE = 1000
"""Objects that are deleted together."""

BYTES_PER_TRANSFER_SLOT = 1 << 19
"""Bytes in memory that one transfer may take."""


def object_key(version: str, name: str) -> str:
    """The name of the object that a file of a version is."""
    return f"{VERSIONS_PREFIX}{version}/{name}"


def key_prefix_bytes(objects: Objects) -> int:
    """Bytes that stand before the name of a file, at the most."""
    return VERSION_PATH_BYTES + len(objects.display_name.encode())


def check_object_names(names: Iterable[str], objects: Objects) -> None:
    """Raise UnsafeName for names that this object store cannot hold."""
    names, most = list(names), MAX_KEY_BYTES - key_prefix_bytes(objects)
    if not are_all_safe(names, path_bytes=most):
        judged = (
            (name, find_universal_problem(name) or _name_problem(name, most, only_paths=objects.rejects_empty_segments))
            for name in names
        )
        raise_if_unsafe([(name, why) for name, why in judged if why], "cannot be held safely")


def _name_problem(name: str, max_bytes: int, *, only_paths: bool) -> str | None:
    if only_paths and "" in name.split("/"):
        return "holds an empty folder name, which cannot be put into a bucket"
    return (
        f"is longer than the {max_bytes} bytes that fit here"
        if len(name.encode(errors="surrogatepass")) > max_bytes
        else None
    )


class ObjectStoredFiles:
    """Reading. A version is listed when many of its files are asked about: one question for thousands."""

    is_picklable = False
    parallel_reads = 16

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self._listing_cache = ListingCache()
        self._changes: dict[str, object] = {}
        self._listed_changes: dict[str, object] = {}
        self._listing_lock = RLock()

    def _list(self, version: str, *, fresh: bool) -> ListingCache:
        """The listing of a version; `anew`: not from before something of it was changed here."""
        with self._listing_lock:
            if version not in self._listed_changes or (fresh and not self._has_current_listing(version)):
                self._listed_changes.pop(version, None)
                change = self._changes.setdefault(version, object())
                self._listing_cache.replace_listing(version, self._pages(version))
                self._listed_changes[version] = change
        return self._listing_cache

    def _has_current_listing(self, version: str) -> bool:
        """Whether the version was listed, and nothing of it was changed here since that began."""
        change = self._listed_changes.get(version)
        return change is not None and change is self._changes[version]

    def _mark_changed(self, version: str) -> None:
        self._changes[version] = object()

    def _pages(self, version: str) -> Iterator[list[ObjectInfo]]:
        """What lies in the folder of a version, by names within it."""
        lead = object_key(version, "")
        for page in self.objects.list_pages(lead):
            yield [each._replace(name=each.name[len(lead) :]) for each in page]

    def names(self, version: Version) -> Iterator[str]:
        """What lies in the folder of a version, whether it is known or not."""
        return (each.name for page in self._pages(version.name) for each in page)

    def unchanged(self, version: Version, stored: Sequence[StoredFile]) -> list[bool]:
        """For each, whether ETag, or size and MD5, are as they were left."""
        if not stored:
            return []
        if len(stored) <= MAX_SINGLE_LOOKUPS and not self._has_current_listing(version.name):
            return [is_unchanged(each, self._find(version.name, each.blob.name)) for each in stored]
        there = self._list(version.name, fresh=True).find_many(version.name, [each.blob.name for each in stored])
        return [is_unchanged(each, there.get(each.blob.name)) for each in stored]

    def prepare_listing(self, version: Version) -> None:
        """List the version, for all looks until something of it is changed here."""
        self._list(version.name, fresh=True)

    def presence_pages(self, version: Version, catalog: Catalog, cursor: str) -> Iterator[PresencePage]:
        """Looks at what is listed, page by page: what the store does not list any more shows in the count alone."""
        lead = object_key(version.name, "")
        for page, following in self.objects.list_pages_from(lead, cursor):
            there = {each.name[len(lead) :]: each for each in page}
            held = catalog.find_stored(version, list(there))
            yield PresencePage(
                len(held), [each for name, each in held.items() if not is_unchanged(each, there[name])], following
            )

    def size(self, version: Version, name: str) -> int | None:
        """The size of the object; None when there is none."""
        found = self._find(version.name, name)
        return found.size if found is not None else None

    def stamp(self, version: Version, name: str) -> FileStamp | None:
        """The trace of the object; None when there is none."""
        found = self._find(version.name, name)
        return FileStamp(hash_etag(found.etag)) if found is not None else None

    def _find(self, version: str, name: str) -> ObjectInfo | None:
        """The object: as it was listed, where that is known; else it is asked for by itself."""
        if find_universal_problem(name):
            return None
        if self._has_current_listing(version):
            return self._listing_cache.find_many(version, [name]).get(name)
        return self.objects.find(object_key(version, name))

    def read_into(self, version: Version, name: str, consume: Callable[[bytes], object]) -> FileStamp | None:
        """Give the bytes of the object, read anew, to `into`; its trace, None when there is none."""
        stored = None if find_universal_problem(name) else self.objects.read(object_key(version.name, name))
        if stored is None:
            return None
        for chunk in stored.chunks:
            consume(chunk)
        return FileStamp(hash_etag(stored.info.etag))

    def digest(self, version: Version, name: str) -> bytes | None:
        """SHA-256 of the object, read anew; None when there is none."""
        sha256 = hashlib.sha256()
        return None if self.read_into(version, name, sha256.update) is None else sha256.digest()

    def chunks(self, version: Version, name: str, *, offset: int = 0) -> Iterator[bytes]:
        """The bytes of one object from `offset` on, piece by piece."""
        stored = (
            None if find_universal_problem(name) else self.objects.read(object_key(version.name, name), offset=offset)
        )
        if stored is None:
            raise DestinationError(
                f"cannot read {name} of version {version.name}: it is not in {self.objects.display_name}"
            )
        yield from stored.chunks

    def read(self, version: Version, name: str) -> bytes:
        """The bytes of one object."""
        return b"".join(self.chunks(version, name))

    def close(self) -> None:
        """Let go of what was listed."""
        self._listing_cache.close()


WaitForBandwidth = Callable[[int], Awaitable[None]]
"""Waits until so many bytes may leave."""

NameWarner = Callable[[Iterable[str]], object]
"""Looks at the names of files that are to be held."""


class LockGuard(Protocol):
    """The right to write."""

    def require_held(self) -> None:
        """Raise DestinationBusy where it was lost, Transient where that is not known. Does not block."""

    def ensure_renewed(self) -> None:
        """Return when it is there for sure. Raises DestinationBusy, Unavailable."""


class ObjectFiles(ObjectStoredFiles):
    """Reading and writing. `lock` says whether that is still this run's to do."""

    has_hard_links = keeps_parts = False
    requires_md5 = states_encoding = True

    def __init__(
        self,
        objects: Objects,
        serving: CachePolicy,
        guard: LockGuard,
        *,
        warn_names: NameWarner = lambda names: None,
        wait_for_bandwidth: WaitForBandwidth | None = None,
    ) -> None:
        super().__init__(objects)
        self._warn_names = warn_names
        self._wait_for_bandwidth = wait_for_bandwidth
        self._serving = serving
        self._guard = guard
        self._batcher = ThreadBatcher()

    def mark_changed(self, version: Version) -> None:
        """Others put files in place: what was listed before may be so no more. Raises where that is not ours to do."""
        self._guard.require_held()
        self._mark_changed(version.name)

    def free_bytes(self) -> None:
        """A store has no end."""

    def check_names(self, names: Iterable[str]) -> None:
        """Raise UnsafeName, naming the offenders."""
        names = list(names)
        check_object_names(names, self.objects)
        self._warn_names(names)

    def has_part(self, version: Version, blob: Blob) -> bool:
        """Never: what an earlier run had not put in place is read again."""
        return False

    def transfer_slots(self, blob: Blob) -> int:
        """What is put in parts takes the room of some small ones."""
        return max(1, self.objects.part_bytes // BYTES_PER_TRANSFER_SLOT) if blob.size > self.objects.part_bytes else 1

    async def put(self, version: Version, blob: Blob, data: bytes, verify: Callable[[bytes], Digests]) -> StoredFile:
        """Place a small file; it is proven off the loop, together with others."""
        proof = await self._batcher.run(partial(verify, data))
        if self._wait_for_bandwidth is not None:
            await self._wait_for_bandwidth(len(data))
        self._guard.require_held()
        self._mark_changed(version.name)
        label = self._serving.file_headers(blob, data[:HEAD_BYTES])
        found = await self.objects.put(object_key(version.name, blob.name), data, proof.md5, label)
        return to_stored_file(blob, proof, found)

    async def copy_from_source(
        self, version: Version, blob: Blob, url: SasUrl, head: bytes
    ) -> tuple[StoredFile | None, str]:
        """Have the store take a blob by itself; that it has the MD5 which its container states is proof enough."""
        self.mark_changed(version)
        label = self._serving.file_headers(blob, head[:HEAD_BYTES])
        source = CopySource(url.blob_url(blob.name), blob.size, blob.etag, blob.md5)
        found = await self.objects.copy_from_url(source, object_key(version.name, blob.name), label)
        if isinstance(found, str):
            return None, found
        return to_stored_file(blob, Digests(blob.size, b"", found.md5), found), ""

    def draft(self, version: Version, blob: Blob) -> ObjectDraft:
        """A draft; it begins with nothing."""

        def begin(head: bytes) -> Upload:
            self._guard.require_held()
            self._mark_changed(version.name)
            label = self._serving.file_headers(blob, head[:HEAD_BYTES])
            return self.objects.begin_upload(object_key(version.name, blob.name), blob.size, label)

        return ObjectDraft(blob, begin, self._guard, self._wait_for_bandwidth)

    def find_present(self, version: Version, blobs: Sequence[Blob]) -> set[str]:
        """The names of those that lie in the version by size and MD5."""
        there = self._list(version.name, fresh=False).find_many(version.name, [blob.name for blob in blobs])
        return {blob.name for blob in blobs if has_same_md5(blob, there.get(blob.name))}

    def share(self, version: Version, requests: Sequence[tuple[Blob, Version, StoredFile]]) -> list[StoredFile | None]:
        """Place, as each blob, what another version holds, by a copy within the store."""
        if not requests:
            return []
        self._guard.ensure_renewed()
        self._mark_changed(version.name)
        if len(requests) > MAX_SINGLE_LOOKUPS:
            for name in {of.name for _, of, _ in requests}:
                self._list(name, fresh=True)
        return map_in_threads(lambda wish: self._share(version.name, *wish), requests, max_threads=PARALLEL_COPIES)

    def _share(self, version: str, blob: Blob, other: Version, stored: StoredFile) -> StoredFile | None:
        source = self._find_source(other.name, stored)
        if source is None:
            return None
        with suppress(DestinationError):
            found = self.objects.copy(source, object_key(version, blob.name))
            return (
                to_stored_file(blob, Digests(stored.blob.size, stored.sha256, stored.blob.md5), found)
                if found is not None
                else None
            )
        return None

    def _find_source(self, version: str, stored: StoredFile) -> ObjectInfo | None:
        """The object that was left there, where it still is."""
        name = stored.blob.name
        found = self._find(version, name)
        return (
            found._replace(name=object_key(version, name))
            if found is not None and is_unchanged(stored, found)
            else None
        )

    def remove(self, version: Version, names: Iterable[str]) -> None:
        """Remove objects that an unpublished version should not have; missing is no error."""
        coming = (object_key(version.name, name) for name in names if not find_universal_problem(name))
        while some := list(islice(coming, OBJECTS_PER_DELETE)):
            self._guard.ensure_renewed()
            self._mark_changed(version.name)
            self.objects.delete(some)

    def remove_parts(self) -> None:
        """Nothing is kept for later: what was not put in place the store forgets by itself."""


def to_stored_file(blob: Blob, digests: Digests, info: ObjectInfo) -> StoredFile:
    """The file that an object is: with the MD5 of its bytes, whether its container claimed one or not."""
    return StoredFile(blob._replace(md5=digests.md5), digests.sha256, hash_etag(info.etag))


class ObjectDraft:
    """A blob on its way to an object, piece by piece; `begin` begins that with its first bytes."""

    def __init__(
        self,
        blob: Blob,
        begin_upload: Callable[[bytes], Upload],
        guard: LockGuard,
        wait_for_bandwidth: WaitForBandwidth | None,
    ) -> None:
        self._blob = blob
        self._begin_upload = begin_upload
        self._guard = guard
        self._wait_for_bandwidth = wait_for_bandwidth
        self._upload: Upload | None = None
        self.received_bytes = 0

    async def received_chunks(self) -> AsyncIterator[bytes]:
        """Nothing: what was sent cannot be read before it is whole."""
        for chunk in tuple[bytes, ...]():
            yield chunk

    async def append(self, chunk: bytes) -> None:
        """Add `chunk` after the held bytes."""
        if self._wait_for_bandwidth is not None:
            await self._wait_for_bandwidth(len(chunk))
        self._guard.require_held()
        self._upload = self._upload or self._begin_upload(chunk)
        await self._upload.append(chunk)
        self.received_bytes += len(chunk)

    async def restart(self) -> None:
        """Forget the held bytes."""
        upload, self._upload, self.received_bytes = self._upload, None, 0
        if upload is not None:
            await upload.abort()

    async def commit(self, digests: Digests) -> StoredFile:
        """Place the whole file under its final name."""
        self._guard.require_held()
        self._upload = self._upload or self._begin_upload(b"")
        found = await self._upload.finish(digests.md5)
        self._upload, self.received_bytes = None, 0
        return to_stored_file(self._blob, digests, found)

    async def suspend(self) -> None:
        """Give it up: a later run reads it again."""
        await self.restart()
