"""The files of the versions of a destination in an object store: to be read, and on their way in."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from threading import RLock
from typing import Protocol

from tilesync.core.http_headers import HEAD, Serving
from tilesync.core.safe_names import plain, refuse, unaskable
from tilesync.errors import DestinationError
from tilesync.model import Blob, Held, Proof, SasUrl, Trace, Version
from tilesync.model.storage import Elsewhere, Found
from tilesync.protocols import Catalog, Glance, Objects, Upload
from tilesync.runtime.threads import side_by_side
from tilesync.stores.local.fs import BatchWriter
from tilesync.stores.object_store.listing_cache import Listed, is_listed, is_same, number_of

VERSIONS = "versions/"

LONGEST = 1024
"""Characters of a name in Azure, bytes in S3; bytes are the fewer. Source: "Naming and Referencing Containers, Blobs,
and Metadata"; Amazon S3, "Naming Amazon S3 objects".
"""

LEAD = 160
"""Bytes kept for `versions/` and the name of a version."""

AT_ONCE = 32
"""Copies within the store that are asked for at once."""

FEW = 32
"""Files of a version that are asked about one by one; for more the version is listed."""

TOGETHER = 1000
"""Objects that are deleted together."""

WEIGHT = 1 << 19
"""Bytes in memory that one transfer may take."""


def key_of(version: str, name: str) -> str:
    """The name of the object that a file of a version is."""
    return f"{VERSIONS}{version}/{name}"


def lead_of(objects: Objects) -> int:
    """Bytes that stand before the name of a file, at the most."""
    return LEAD + len(objects.shown.encode())


def judge_keys(names: Iterable[str], objects: Objects) -> None:
    """Raise UnsafeName for names that this object store cannot hold."""
    names, most = list(names), LONGEST - lead_of(objects)
    if not plain(names, path_bytes=most):
        judged = ((name, unaskable(name) or _unfit(name, most, only_paths=objects.only_paths)) for name in names)
        refuse([(name, why) for name, why in judged if why], "cannot be held safely")


def _unfit(name: str, most: int, *, only_paths: bool) -> str | None:
    if only_paths and "" in name.split("/"):
        return "holds an empty folder name, which cannot be put into a bucket"
    return f"is longer than the {most} bytes that fit here" if len(name.encode(errors="surrogatepass")) > most else None


class ObjectHeldFiles:
    """Reading. A version is listed when many of its files are asked about: one question for thousands."""

    portable = False
    wide = 16

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self._listed = Listed()
        self._changes: dict[str, object] = {}
        self._listed_at: dict[str, object] = {}
        self._listing = RLock()

    def _list(self, version: str, *, anew: bool) -> Listed:
        """The listing of a version; `anew`: not from before something of it was changed here."""
        with self._listing:
            if version not in self._listed_at or (anew and not self._is_known(version)):
                self._listed_at.pop(version, None)
                change = self._changes.setdefault(version, object())
                self._listed.take(version, self._pages(version))
                self._listed_at[version] = change
        return self._listed

    def _is_known(self, version: str) -> bool:
        """Whether the version was listed, and nothing of it was changed here since that began."""
        change = self._listed_at.get(version)
        return change is not None and change is self._changes[version]

    def _changed(self, version: str) -> None:
        self._changes[version] = object()

    def _pages(self, version: str) -> Iterator[list[Found]]:
        """What lies in the folder of a version, by names within it."""
        lead = key_of(version, "")
        for page in self.objects.pages(lead):
            yield [each._replace(name=each.name[len(lead) :]) for each in page]

    def names(self, version: Version) -> Iterator[str]:
        """What lies in the folder of a version, whether it is known or not."""
        return (each.name for page in self._pages(version.name) for each in page)

    def unchanged(self, version: Version, held: Sequence[Held]) -> list[bool]:
        """For each, whether ETag, or size and MD5, are as they were left."""
        if not held:
            return []
        if len(held) <= FEW and not self._is_known(version.name):
            return [is_same(each, self._find(version.name, each.blob.name)) for each in held]
        there = self._list(version.name, anew=True).among(version.name, [each.blob.name for each in held])
        return [is_same(each, there.get(each.blob.name)) for each in held]

    def survey(self, version: Version) -> None:
        """List the version, for all looks until something of it is changed here."""
        self._list(version.name, anew=True)

    def glances(self, version: Version, catalog: Catalog, place: str) -> Iterator[Glance]:
        """Looks at what is listed, page by page: what the store does not list any more shows in the count alone."""
        lead = key_of(version.name, "")
        for page, following in self.objects.pages_from(lead, place):
            there = {each.name[len(lead) :]: each for each in page}
            held = catalog.held_among(version, list(there))
            yield Glance(len(held), [each for name, each in held.items() if not is_same(each, there[name])], following)

    def size(self, version: Version, name: str) -> int | None:
        """The size of the object; None when there is none."""
        found = self._find(version.name, name)
        return found.size if found is not None else None

    def trace(self, version: Version, name: str) -> Trace | None:
        """The trace of the object; None when there is none."""
        found = self._find(version.name, name)
        return Trace(number_of(found.etag)) if found is not None else None

    def _find(self, version: str, name: str) -> Found | None:
        """The object: as it was listed, where that is known; else it is asked for by itself."""
        if unaskable(name):
            return None
        if self._is_known(version):
            return self._listed.among(version, [name]).get(name)
        return self.objects.find(key_of(version, name))

    def feed(self, version: Version, name: str, into: Callable[[bytes], object]) -> Trace | None:
        """Give the bytes of the object, read anew, to `into`; its trace, None when there is none."""
        stored = None if unaskable(name) else self.objects.read(key_of(version.name, name))
        if stored is None:
            return None
        for chunk in stored.chunks:
            into(chunk)
        return Trace(number_of(stored.found.etag))

    def digest(self, version: Version, name: str) -> bytes | None:
        """SHA-256 of the object, read anew; None when there is none."""
        sha256 = hashlib.sha256()
        return None if self.feed(version, name, sha256.update) is None else sha256.digest()

    def chunks(self, version: Version, name: str, *, offset: int = 0) -> Iterator[bytes]:
        """The bytes of one object from `offset` on, piece by piece."""
        stored = None if unaskable(name) else self.objects.read(key_of(version.name, name), offset=offset)
        if stored is None:
            raise DestinationError(f"cannot read {name} of version {version.name}: it is not in {self.objects.shown}")
        yield from stored.chunks

    def read(self, version: Version, name: str) -> bytes:
        """The bytes of one object."""
        return b"".join(self.chunks(version, name))

    def close(self) -> None:
        """Let go of what was listed."""
        self._listed.close()


Pace = Callable[[int], Awaitable[None]]
"""Waits until so many bytes may leave."""

Look = Callable[[Iterable[str]], object]
"""Looks at the names of files that are to be held."""


class Right(Protocol):
    """The right to write."""

    def demand(self) -> None:
        """Raise DestinationBusy where it was lost, Transient where that is not known. Does not block."""

    def secure(self) -> None:
        """Return when it is there for sure. Raises DestinationBusy, Unavailable."""


class ObjectFiles(ObjectHeldFiles):
    """Reading and writing. `lock` says whether that is still this run's to do."""

    links = keeps_parts = False
    proves_md5 = states_encoding = True

    def __init__(
        self,
        objects: Objects,
        serving: Serving,
        lock: Right,
        *,
        look: Look = lambda names: None,
        pace: Pace | None = None,
    ) -> None:
        super().__init__(objects)
        self._look = look
        self._pace = pace
        self._serving = serving
        self._lock = lock
        self._prover = BatchWriter()

    def touch(self, version: Version) -> None:
        """Others put files in place: what was listed before may be so no more. Raises where that is not ours to do."""
        self._lock.demand()
        self._changed(version.name)

    def free(self) -> None:
        """A store has no end."""

    def judge(self, names: Iterable[str]) -> None:
        """Raise UnsafeName, naming the offenders."""
        names = list(names)
        judge_keys(names, self.objects)
        self._look(names)

    def begun(self, version: Version, blob: Blob) -> bool:
        """Never: what an earlier run had not put in place is read again."""
        return False

    def places(self, blob: Blob) -> int:
        """What is put in parts takes the room of some small ones."""
        return max(1, self.objects.part // WEIGHT) if blob.size > self.objects.part else 1

    async def put(self, version: Version, blob: Blob, data: bytes, prove: Callable[[bytes], Proof]) -> Held:
        """Place a small file; it is proven off the loop, together with others."""
        proof = await self._prover.run(partial(prove, data))
        if self._pace is not None:
            await self._pace(len(data))
        self._lock.demand()
        self._changed(version.name)
        label = self._serving.label(blob, data[:HEAD])
        found = await self.objects.put(key_of(version.name, blob.name), data, proof.md5, label)
        return as_held(blob, proof, found)

    async def take(self, version: Version, blob: Blob, link: SasUrl, head: bytes) -> tuple[Held | None, str]:
        """Have the store take a blob by itself; that it has the MD5 which its container states is proof enough."""
        self.touch(version)
        label = self._serving.label(blob, head[:HEAD])
        source = Elsewhere(link.blob(blob.name), blob.size, blob.etag, blob.md5)
        found = await self.objects.take(source, key_of(version.name, blob.name), label)
        if isinstance(found, str):
            return None, found
        return as_held(blob, Proof(blob.size, b"", found.md5), found), ""

    def draft(self, version: Version, blob: Blob) -> ObjectDraft:
        """A draft; it begins with nothing."""

        def begin(head: bytes) -> Upload:
            self._lock.demand()
            self._changed(version.name)
            label = self._serving.label(blob, head[:HEAD])
            return self.objects.begin(key_of(version.name, blob.name), blob.size, label)

        return ObjectDraft(blob, begin, self._lock, self._pace)

    def lying(self, version: Version, blobs: Sequence[Blob]) -> set[str]:
        """The names of those that lie in the version by size and MD5."""
        there = self._list(version.name, anew=False).among(version.name, [blob.name for blob in blobs])
        return {blob.name for blob in blobs if is_listed(blob, there.get(blob.name))}

    def share(self, version: Version, wishes: Sequence[tuple[Blob, Version, Held]]) -> list[Held | None]:
        """Place, as each blob, what another version holds, by a copy within the store."""
        if not wishes:
            return []
        self._lock.secure()
        self._changed(version.name)
        if len(wishes) > FEW:
            for name in {of.name for _, of, _ in wishes}:
                self._list(name, anew=True)
        return side_by_side(lambda wish: self._share(version.name, *wish), wishes, width=AT_ONCE)

    def _share(self, version: str, blob: Blob, of: Version, held: Held) -> Held | None:
        source = self._source(of.name, held)
        if source is None:
            return None
        with suppress(DestinationError):
            found = self.objects.copy(source, key_of(version, blob.name))
            return (
                as_held(blob, Proof(held.blob.size, held.sha256, held.blob.md5), found) if found is not None else None
            )
        return None

    def _source(self, version: str, held: Held) -> Found | None:
        """The object that was left there, where it still is."""
        name = held.blob.name
        found = self._find(version, name)
        return found._replace(name=key_of(version, name)) if found is not None and is_same(held, found) else None

    def remove(self, version: Version, names: Iterable[str]) -> None:
        """Remove objects that an unpublished version should not have; missing is no error."""
        coming = (key_of(version.name, name) for name in names if not unaskable(name))
        while some := list(islice(coming, TOGETHER)):
            self._lock.secure()
            self._changed(version.name)
            self.objects.delete(some)

    def tidy(self) -> None:
        """Nothing is kept for later: what was not put in place the store forgets by itself."""


def as_held(blob: Blob, proof: Proof, found: Found) -> Held:
    """The file that an object is: with the MD5 of its bytes, whether its container claimed one or not."""
    return Held(blob._replace(md5=proof.md5), proof.sha256, number_of(found.etag))


class ObjectDraft:
    """A blob on its way to an object, piece by piece; `begin` begins that with its first bytes."""

    def __init__(self, blob: Blob, begin: Callable[[bytes], Upload], lock: Right, pace: Pace | None) -> None:
        self._blob = blob
        self._begin = begin
        self._lock = lock
        self._pace = pace
        self._upload: Upload | None = None
        self.held = 0

    async def prefix(self) -> AsyncIterator[bytes]:
        """Nothing: what was sent cannot be read before it is whole."""
        for chunk in tuple[bytes, ...]():
            yield chunk

    async def append(self, chunk: bytes) -> None:
        """Add `chunk` after the held bytes."""
        if self._pace is not None:
            await self._pace(len(chunk))
        self._lock.demand()
        self._upload = self._upload or self._begin(chunk)
        await self._upload.append(chunk)
        self.held += len(chunk)

    async def restart(self) -> None:
        """Forget the held bytes."""
        upload, self._upload, self.held = self._upload, None, 0
        if upload is not None:
            await upload.abort()

    async def commit(self, proof: Proof) -> Held:
        """Place the whole file under its final name."""
        self._lock.demand()
        self._upload = self._upload or self._begin(b"")
        found = await self._upload.finish(proof.md5)
        self._upload, self.held = None, 0
        return as_held(self._blob, proof, found)

    async def suspend(self) -> None:
        """Give it up: a later run reads it again."""
        await self.restart()
