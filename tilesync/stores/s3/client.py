"""Objects in a bucket of S3, or of what speaks like it: small ones through obstore, large ones and copies by boto3."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import timedelta
from functools import partial
from itertools import chain
from typing import Final, NamedTuple, TypeVar

from tilesync.azure.list_blobs import PageGuard
from tilesync.errors import ConditionFailed, Transient
from tilesync.events import Warned
from tilesync.model.storage import Elsewhere, Found, Label
from tilesync.protocols import Observer, Stored
from tilesync.runtime.threads import in_pool
from tilesync.stores.object_store.resumable_read import unbroken
from tilesync.stores.s3.errors import Archived, NotThere
from tilesync.stores.s3.lease import TERM, ObjectLease
from tilesync.stores.s3.multipart import COPIED_AT_ONCE, PART, Parts
from tilesync.stores.s3.name_probe import misread
from tilesync.stores.s3.objects import Whole
from tilesync.stores.s3.upload import S3Upload, Sending, give_up
from tilesync.transport.blob_client_sync import Blocking
from tilesync.transport.retry import Insistence

T = TypeVar("T")

AT_ONCE: Final = 16
"""Parts that are on their way at once, whatever they belong to."""

PARTING: Final = timedelta(seconds=10)
"""How long a failing answer is borne with while an upload is given up."""


class Wires(NamedTuple):
    """The two doors to one bucket, and how long it is borne with when they stay shut; `asking`: how it is asked as
    viewers ask.
    """

    whole: Whole
    parts: Parts
    observe: Observer
    budget: timedelta
    asking: Callable[[], AbstractContextManager[Blocking]]


class S3Objects:
    """The objects of one bucket below a prefix, which is empty or ends with a slash. `beating`: the same, for beats of
    the lock: they have no time to lose.
    """

    part = PART
    doubtful = "+"
    only_paths = True  # obstore takes nothing else

    def __init__(
        self,
        wires: Wires,
        prefix: str,
        *,
        shown: str,
        home: str,
        term: timedelta = TERM,
        beating: S3Objects | None = None,
    ) -> None:
        self._whole = wires.whole
        self._parts = wires.parts
        self._asking = wires.asking
        self._observe = wires.observe
        self._insistence = Insistence(wires.observe, budget=wires.budget)
        self._parting = Insistence(wires.observe, budget=min(wires.budget, PARTING))
        self._prefix = prefix
        self._lease = ObjectLease(self, beating or self, term=term)
        self._pool = ThreadPoolExecutor(AT_ONCE, "tilesync-s3")
        self._has_bucket = False
        self._has_told_archived = False
        self.guard: Callable[[], None] = lambda: None
        self.shown = shown
        self.home = home

    # --- asking ---

    def find(self, name: str) -> Found | None:
        """What is said of an object; None when there is none."""
        try:
            return self._near(self._insist(lambda: self._whole.head(self._prefix + name)))
        except NotThere:
            self._demand_bucket()
            return None

    def _demand_bucket(self) -> None:
        """Raise DestinationError where there is no bucket: the answer to a HEAD cannot say what is missing."""
        if not self._has_bucket:
            self._insist(lambda: next(self._whole.pages(f"{self._prefix}.tilesync"), None))
            self._has_bucket = True

    def pages(self, prefix: str) -> Iterator[list[Found]]:
        """The objects whose names begin so, page by page; each page is asked for until it comes."""
        return (page for page, _ in self.pages_from(prefix, "") if page)

    def pages_from(self, prefix: str, place: str) -> Iterator[tuple[list[Found], str]]:
        """Likewise, from behind a name on, each page with its last name."""
        lead, after = self._prefix + prefix, place or None
        folder = lead.rpartition("/")[0]  # obstore knows prefixes of whole segments only
        coming, guard = self._whole.pages(folder, after=after), PageGuard()
        while True:
            try:
                page = next(coming, None)
            except Transient:
                coming, page = self._insist(partial(self._resumed, folder, after))
            if page is None:
                break
            after = page[-1].name if page else after
            guard.note(page[-1].name if page else "")
            yield [self._near(each) for each in page if each.name.startswith(lead)], after or ""
        yield [], ""

    def _resumed(self, folder: str, after: str | None) -> tuple[Iterator[list[Found]], list[Found] | None]:
        coming = self._whole.pages(folder, after=after)
        return coming, next(coming, None)

    def read(self, name: str, *, offset: int = 0) -> Stored | None:
        """An object and its bytes from `offset` on; None when there is none."""
        whole_name = self._prefix + name
        try:
            got = self._insist(lambda: self._whole.get(whole_name, offset=offset, etag=""))
        except NotThere:
            return None
        found = self._near(got.found)

        def again(at: int) -> Iterator[bytes] | None:
            try:
                return self._insist(lambda: self._whole.get(whole_name, offset=at, etag=found.etag)).chunks
            except NotThere:
                return None

        return Stored(found, unbroken(found, offset, got.chunks, again, self.shown))

    # --- changing ---

    def write(self, name: str, data: Iterable[bytes], label: Label, *, instead_of: str | None = None) -> Found:
        """Put an object in place, of whatever size: in one request up to a part, in parts beyond. The condition goes
        with the request that puts it in place; where parts do, what is there is looked at just before as well, for
        servers that know conditions of the former alone.
        """
        md5 = hashlib.md5(usedforsecurity=False)
        pieces = _pieces(data, md5.update)
        first, second = next(pieces), next(pieces, None)
        try:
            if second is None:
                put = partial(self._whole.put, self._prefix + name, first, label, instead_of=instead_of)
                return self._near(self._change(put))
            return self._near(self._send(name, chain([first, second], pieces), label, instead_of))
        except ConditionFailed:
            found = self._holding(
                name, md5.digest()
            )  # of an attempt whose answer was lost it is what this one put there
            if found is not None:
                return found
            raise

    def _send(self, name: str, pieces: Iterator[bytes], label: Label, instead_of: str | None) -> Found:
        sending = Sending(self._parts, self._whole, self._prefix + name, label)
        try:
            count = 0
            for count, piece in enumerate(pieces, 1):
                self._change(partial(sending.send, count, piece))
            if instead_of is not None:
                self._demand_same(name, instead_of)
            found = self._change(lambda: sending.complete(count, instead_of=instead_of))
        except BaseException:
            self._give_up(sending)
            raise
        if sending.astray:
            self._give_up(sending)
        return found

    def _demand_same(self, name: str, etag: str) -> None:
        there = self.find(name)
        if (there.etag if there is not None else "") != etag:
            raise ConditionFailed(f"{name} is another one by now")

    def _holding(self, name: str, md5: bytes) -> Found | None:
        """The object, where it has these bytes; they are read, as not every ETag tells their MD5."""
        stored, digest = self.read(name), hashlib.md5(usedforsecurity=False)
        for chunk in stored.chunks if stored is not None else ():
            digest.update(chunk)
        return stored.found if stored is not None and digest.digest() == md5 else None

    def copy(self, of: Found, name: str) -> Found | None:
        """Put a copy of an object in place, by the service alone; None when it is not there as it was found, or lies in
        an archive.
        """
        if of.size > COPIED_AT_ONCE:
            return None
        try:
            copied = self._change(lambda: self._parts.copy(of, self._prefix + of.name, self._prefix + name))
        except Archived as error:
            self._tell_archived(error)
            return None
        if copied is None:
            return None
        if copied.etag != of.etag and not self._is_there(of):  # a server that takes no heed of the condition
            self.delete([name])
            return None
        return self._near(copied)

    def _tell_archived(self, error: Archived) -> None:
        if not self._has_told_archived:
            self._has_told_archived = True
            self._observe(
                Warned(f"{error}; such files of older versions are not reused in {self.shown}, but fetched again")
            )

    def _is_there(self, of: Found) -> bool:
        there = self.find(of.name)
        return there is not None and (there.etag, there.size) == (of.etag, of.size)

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects; missing is no error."""
        if names:
            self._change(lambda: self._whole.delete([self._prefix + name for name in names]))

    # --- bodies ---

    async def put(self, name: str, data: bytes, md5: bytes | None, label: Label) -> Found:
        """Put a small object in place, at one attempt; the service checks its SHA-256. Where keys encrypt it, its ETag
        is that of other bytes, and no error.
        """
        found = self._near(await self._whole.put_async(self._prefix + name, data, label))
        return found if md5 in {None, found.md5} else found._replace(md5=None)

    async def take(self, source: Elsewhere, name: str, label: Label) -> str:
        """Nothing: S3 copies within itself alone."""
        return "S3 copies within itself alone"

    def begin(self, name: str, size: int, label: Label) -> S3Upload:
        """Begin a large object."""
        sending = Sending(self._parts, self._whole, self._prefix + name, label)
        return S3Upload(
            self._prefix + name,
            size,
            label,
            whole=self._whole,
            sending=sending,
            beside=partial(in_pool, self._pool),
            abort=lambda: self._give_up(sending),
        )

    def _give_up(self, sending: Sending) -> None:
        give_up(sending, self._parting, self._observe, self.shown)

    # --- the rest ---

    def lease(self) -> ObjectLease:
        """The right to write here: always the same one, which keeps what it saw of another's."""
        return self._lease

    def misread(self) -> list[str]:
        """The characters of names that the server reads as something else: it is asked by a few small objects, which
        go again. Not for a dry run.
        """
        return self._insist(lambda: misread(self._whole, f"{self._prefix}.tilesync/probe/", self._asking))

    def close(self) -> None:
        """Let go of the threads."""
        self._pool.shutdown()

    def _near(self, found: Found) -> Found:
        """By its name below the prefix."""
        return found._replace(name=found.name[len(self._prefix) :])

    def _change(self, attempt: Callable[[], T]) -> T:
        def allowed() -> T:
            self.guard()
            return attempt()

        return self._insist(allowed)

    def _insist(self, attempt: Callable[[], T]) -> T:
        return self._insistence.insist(self.shown, attempt)


def _pieces(data: Iterable[bytes], into: Callable[[bytes], object]) -> Iterator[bytes]:
    """The same bytes in pieces of a part each; the last is what is left, and the only one where there are few."""
    held, size = list[bytes](), 0
    for piece in data:
        into(piece)
        held.append(piece)
        size += len(piece)
        while size > PART:
            joined = b"".join(held)
            yield joined[:PART]
            held, size = [joined[PART:]], size - PART
    yield b"".join(held)
