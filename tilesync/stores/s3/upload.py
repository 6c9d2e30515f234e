"""A large object on its way into a bucket: not visible before it is whole, and nothing stays if it never is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from tilesync.errors import TilesyncError, Transient
from tilesync.events import Notice
from tilesync.model.storage import Found, Label
from tilesync.protocols import Observer
from tilesync.stores.s3.errors import NotThere
from tilesync.stores.s3.multipart import PART, Parts, etag_of, part_of
from tilesync.stores.s3.objects import Whole
from tilesync.transport.retry import Insistence

T = TypeVar("T")


class Beside(Protocol):
    """Gives the result of blocking work that is done beside the loop."""

    def __call__(self, work: Callable[[], T]) -> Awaitable[T]:
        """Do it."""


class Sending:
    """The parts of one object, one attempt a call; it begins with the first of them. `astray`: an upload may have begun
    that nobody knows the id of, as the answer was lost; `abort` finds it.
    """

    def __init__(self, parts: Parts, whole: Whole, name: str, label: Label) -> None:
        self._parts = parts
        self._whole = whole
        self._name = name
        self._label = label
        self._upload: str | None = None
        self._sent: dict[int, tuple[str, bytes, int]] = {}
        self.astray = False

    def send(self, number: int, data: bytes | bytearray) -> None:
        """Send a part, counted from 1; it may be sent again."""
        if self._upload is None:
            try:
                self._upload = self._parts.create(self._name, self._label)
            except Transient:
                self.astray = True
                raise
        etag, md5 = self._parts.send(self._name, self._upload, number, data)
        self._sent[number] = etag, md5, len(data)

    def complete(self, count: int, *, instead_of: str | None = None) -> Found:
        """Put in place what so many parts make; it may be tried again: what an attempt that went unanswered put there
        is known by its ETag.
        """
        sent = [self._sent[number] for number in range(1, count + 1)]
        size, expected = sum(length for _, _, length in sent), etag_of([md5 for _, md5, _ in sent])
        assert self._upload is not None
        try:
            etags = [etag for etag, _, _ in sent]
            etag = self._parts.complete(self._name, self._upload, etags, instead_of=instead_of)
        except NotThere:
            there = self._whole.head(self._name)
            if (there.size, there.etag) != (size, expected):
                raise
            etag = expected
        self._upload = None
        return Found(self._name, size, etag)

    def abort(self) -> None:
        """Give up what is not complete, and what began without an answer."""
        uploads = [self._upload] if self._upload is not None else []
        if self.astray:
            uploads = self._parts.begun(self._name)
        for upload in uploads:
            try:
                self._parts.abort(self._name, upload)
            except NotThere:
                continue
        self._upload, self._sent, self.astray = None, {}, False


def give_up(sending: Sending, insistence: Insistence, observe: Observer, shown: str) -> None:
    """Leave no parts behind: they would be paid for. Where they cannot be deleted that is said, and is no error."""
    try:
        insistence.insist(shown, sending.abort)
    except TilesyncError as error:
        observe(
            Notice(
                f"parts of an unfinished upload stay in {shown}: {error}; a lifecycle rule of the bucket can end them"
            )
        )


class S3Upload:
    """A large object on its way in. Of its bytes no more than two parts are in memory."""

    def __init__(
        self,
        name: str,
        size: int,
        label: Label,
        *,
        whole: Whole,
        sending: Sending,
        beside: Beside,
        abort: Callable[[], None],
    ) -> None:
        self._name = name
        self._label = label
        self._whole = whole
        self._sending = sending
        self._beside = beside
        self._abort = abort
        self._part = part_of(size)
        self._pieces: list[bytes] = []
        self._count = 0
        self._last: int | None = None

    async def append(self, data: bytes) -> None:
        """Take in the next bytes; whole parts leave. Done again it sends the same parts under the same numbers."""
        pieces, count = [*self._pieces, data], self._count
        while sum(map(len, pieces)) > self._part:
            part, pieces = _cut(pieces, self._part)
            count += 1
            await self._send(count, part)
        self._pieces, self._count = pieces, count

    async def _send(self, number: int, part: bytes | bytearray) -> None:
        await self._beside(lambda: self._sending.send(number, part))

    async def finish(self, md5: bytes | None) -> Found:
        """Put it in place. The last part is not sent again once it is there: the upload may be complete by then."""
        rest, count = b"".join(self._pieces), self._count + 1
        if not self._count and len(rest) <= PART:
            return await self._whole.put_async(self._name, rest, self._label)
        if self._last != count:
            await self._send(count, rest)
            self._last = count
        found = await self._beside(lambda: self._sending.complete(count))
        if self._sending.astray:
            await self._beside(self._abort)
        return found

    async def abort(self) -> None:
        """Give it up."""
        self._pieces, self._count, self._last = [], 0, None
        await self._beside(self._abort)


def _cut(pieces: list[bytes], size: int) -> tuple[bytearray, list[bytes]]:
    """The first `size` bytes, and the pieces of what follows. As a bytearray: botocore copies bytes once more."""
    first = bytearray()
    for number, piece in enumerate(pieces):
        room = size - len(first)
        first += piece[:room]
        if len(first) == size:
            return first, [rest for rest in (piece[room:], *pieces[number + 1 :]) if rest]
    return first, []
