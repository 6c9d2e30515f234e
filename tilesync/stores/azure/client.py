"""Objects in an Azure blob container: block blobs, through signed links that stay alive.

Source: Azure Blob Storage REST: "Put Blob", "Put Block", "Put Block List", "Put Blob From URL", "List Blobs", "Lease
Blob".
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from tilesync.azure.list_blobs import PageGuard, parse_page
from tilesync.azure.responses import storage_code
from tilesync.core.http_headers import Serving
from tilesync.errors import ConditionFailed, DestinationError, LinkRefused, NotAuthorised, Transient, Unavailable
from tilesync.model import Page, SasUrl
from tilesync.model.storage import Elsewhere, Found, Label
from tilesync.protocols import Observer, Stored
from tilesync.runtime.threads import in_thread, side_by_side
from tilesync.stores.azure.block_upload import BLOCK, Blocks, block, block_list, block_query, said, whole
from tilesync.stores.azure.copy_from_url import taken
from tilesync.stores.azure.copy_internal import Copies
from tilesync.stores.azure.direct_put import BlobShelf
from tilesync.stores.azure.errors import VERSION, Act, demand, found_in
from tilesync.stores.azure.lease import BlobLease
from tilesync.stores.azure.sas_link import SignedLink
from tilesync.stores.object_store.lock import patience_of
from tilesync.stores.object_store.resumable_read import unbroken
from tilesync.transport.api_client import LARGEST_PAGE
from tilesync.transport.blob_client_sync import Blocking, Reply, Send
from tilesync.transport.retry import Insistence

if TYPE_CHECKING:
    from tilesync.transport.blob_client import Bulk, Told

T = TypeVar("T")

ANSWER: Final = timedelta(seconds=60)
COPY: Final = timedelta(minutes=10)
"""How long an answer may take, beside the time for the bytes that are sent; one that comes after a copy."""

REFUSALS: Final = 4
"""403s in a row that one request survives, while each fresh link has ended on arrival."""

TERM: Final = timedelta(seconds=60)
"""The longest lease that ends by itself. Source: "Lease Blob"."""

FEW: Final = 8
BATCHED: Final = 256
"""Blobs that are deleted one by one, and in one request, at most. Source: "Blob Batch" (REST)."""

DELETED_AT_ONCE: Final = 16

DeleteMany = Callable[[SasUrl, Sequence[str]], list[tuple[str, int]]]
"""Deletes many blobs in one request; the status for each."""


@dataclass(frozen=True)
class Wires:
    """What a container is spoken to by. `copying`: a link that only reads, for what it copies within itself."""

    link: SignedLink
    copying: SignedLink | None
    talk: Blocking
    bulk: Callable[[], Awaitable[Bulk]]
    delete_many: DeleteMany


class AzureObjects:
    """The blobs of one container below a prefix, which is empty or ends with a slash. `creatable`: an option of the
    command that is run would make the container.
    """

    part = BLOCK
    doubtful = ""
    only_paths = False

    def __init__(
        self,
        wires: Wires,
        prefix: str,
        observe: Observer,
        *,
        shown: str,
        home: str,
        term: timedelta = TERM,
        creatable: bool = False,
    ) -> None:
        self._link = wires.link
        self._prefix = prefix
        self._talk = wires.talk
        self._bulk = wires.bulk
        self._delete_many = wires.delete_many
        self._deletes_together = True
        self._copies = Copies(wires.link, wires.copying, prefix, self._ask, self._demand)
        self._beating = Insistence(observe, budget=patience_of(term))
        self._creatable = creatable
        self.guard: Callable[[], None] = lambda: None
        self.shown = shown
        self.home = home
        self.term = term

    def misread(self) -> list[str]:
        """None: a name is read as it is written."""
        return []

    # --- conversations ---

    def find(self, name: str) -> Found | None:
        """What is said of a blob; None when there is none."""

        def accept(reply: Reply) -> Found | None:
            if reply.status == 404 and reply.header("x-ms-error-code") != "ContainerNotFound":
                return None
            self._demand(reply, name, act="read")
            return found_in(name, reply.header)

        return self._ask(name, "HEAD", {}, accept)

    def pages(self, prefix: str) -> Iterator[list[Found]]:
        """The blobs whose names begin so, page by page."""
        return (page for page, _ in self.pages_from(prefix, ""))

    def pages_from(self, prefix: str, place: str) -> Iterator[tuple[list[Found], str]]:
        """Likewise, from a marker on, each page with the marker of the next one."""
        lead, marker = self._prefix + prefix, place or None
        guard = PageGuard(marker)
        while True:
            page = self._page(lead, marker)
            marker = page.marker
            blobs = [Found(b.name[len(self._prefix) :], b.size, b.etag, b.md5) for b in page.blobs]
            yield blobs, marker or ""
            if marker is None:
                return
            guard.note(blobs[-1].name if blobs else "", marker)

    def _page(self, lead: str, marker: str | None) -> Page:
        def attempt(sas: SasUrl) -> Page:
            send = Send("GET", sas.listing(marker, prefix=lead), {"x-ms-version": VERSION})
            with self._talk.send(send) as reply:
                self._demand(reply, "the listing", act="read")
                return parse_page(reply.read(LARGEST_PAGE))

        return self._insist(attempt)

    def read(self, name: str, *, offset: int = 0) -> Stored | None:
        """A blob and its bytes from `offset` on; None when there is none."""
        opened = self._insist(lambda sas: self._open(sas, name, offset))
        if opened is None:
            return None
        found = found_in(name, opened[0].header)

        def again(at: int) -> Iterator[bytes] | None:
            opened = self._insist(lambda sas: self._open(sas, name, at, found.etag))
            return _body(*opened) if opened is not None else None

        return Stored(found, unbroken(found, offset, _body(*opened), again, self.shown))

    def _open(self, sas: SasUrl, name: str, at: int, etag: str = "") -> tuple[Reply, ExitStack] | None:
        headers = {"x-ms-version": VERSION, **({"Range": f"bytes={at}-"} if at else {}), **_condition(etag or None)}
        with ExitStack() as closing:
            reply = closing.enter_context(self._talk.send(Send("GET", sas.blob(self._prefix + name), headers)))
            if reply.status == 404 and reply.header("x-ms-error-code") != "ContainerNotFound":
                return None
            self._demand(reply, name, act="read")
            if at and reply.status != 206:
                raise Transient("the destination did not give the range that it was asked for")
            return reply, closing.pop_all()

    def write(self, name: str, data: Iterable[bytes], label: Label, *, instead_of: str | None = None) -> Found:
        """Put a blob in place, of whatever size."""
        condition = _condition(instead_of)
        md5, number, buffer = hashlib.md5(usedforsecurity=False), 0, b""
        for piece in data:
            md5.update(piece)
            buffer += piece
            while len(buffer) > BLOCK:
                self._send(name, block(buffer[:BLOCK]), buffer[:BLOCK], query=block_query(number))
                buffer, number = buffer[BLOCK:], number + 1
        try:
            if not number:
                return self._send(name, {**whole(label, md5.digest()), **condition}, buffer)
            self._send(name, block(buffer), buffer, query=block_query(number))
            headers = {**said(label, md5.digest()), **condition}
            return self._send(name, headers, block_list(number + 1), query="comp=blocklist")
        except ConditionFailed:
            found = self.find(name)  # of an attempt whose answer was lost it is what this one put there
            if found is not None and found.md5 == md5.digest():
                return found
            raise

    def copy(self, of: Found, name: str) -> Found | None:
        """Put a copy of a blob in place, by the service alone; None where it does not make it, or the blob is not there
        as it was found.
        """
        return self._copies.copy(of, name)

    def delete(self, names: Sequence[str]) -> None:
        """Delete blobs; missing is no error. Many of them with one request for 256, where that is allowed."""
        for start in range(0, len(names), BATCHED):
            some = names[start : start + BATCHED]
            if len(some) <= FEW or not self._delete_together(some):
                side_by_side(self._delete, some, width=DELETED_AT_ONCE)

    def _delete(self, name: str) -> None:
        def accept(reply: Reply) -> None:
            if reply.status != 404 or reply.header("x-ms-error-code") == "ContainerNotFound":
                self._demand(reply, name, act="delete")

        self._ask(name, "DELETE", {"x-ms-delete-snapshots": "include"}, accept)

    def _delete_together(self, names: Sequence[str]) -> bool:
        """Whether they could be deleted in one request, which not every link allows, nor every server knows."""
        if not self._deletes_together:
            return False

        def attempt(sas: SasUrl) -> list[tuple[str, int]]:
            self.guard()
            return self._delete_many(sas, [self._prefix + name for name in names])

        try:
            told = self._insist(attempt)
        except (NotAuthorised, DestinationError, Unavailable):
            self._deletes_together = False
            return False
        return len(told) == len(names) and all(status in {202, 404} for _, status in told)

    # --- bodies ---

    async def put(self, name: str, data: bytes, md5: bytes | None, label: Label) -> Found:
        """Put a small blob in place, at one attempt; the service checks its MD5."""
        return await self.send(name, whole(label, md5), data)

    async def take(self, source: Elsewhere, name: str, label: Label) -> Found | str:
        """Put a copy of what lies elsewhere in place, by the service alone; why it does not, where it does not."""
        return await taken(self.send_any, source, name, label)

    async def shelf(self, serving: Serving) -> BlobShelf:
        """Where other processes put small blobs now."""
        sas = await in_thread(self._link.current) if self._link.due else self._link.current()
        return BlobShelf(sas, self._prefix, serving)

    def begin(self, name: str, size: int, label: Label) -> Blocks:
        """Begin a large blob."""
        return Blocks(self, name, size, label)

    async def send(self, name: str, headers: Mapping[str, str], body: bytes, *, query: str = "") -> Found:
        """One attempt to PUT a body, through a fresh link where one is refused."""
        told = await self.send_any(name, headers, body, query=query)
        return found_in(name, told.headers.get)._replace(size=len(body))

    async def send_any(
        self,
        name: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        query: str = "",
        bears: Callable[[Told], bool] = lambda told: False,
    ) -> Told:
        """The same; an answer that the caller `bears` with is given whatever it is."""
        bulk = await self._bulk()
        for attempt in range(REFUSALS):
            sas = await in_thread(self._link.current) if self._link.due else self._link.current()
            try:
                url = _url(sas, self._prefix + name, query)
                within = COPY if "x-ms-copy-source" in headers else ANSWER
                told = await bulk.put(url, {"x-ms-version": VERSION, **headers}, body, within=within)
                if not bears(told):
                    demand(told.status, told.headers.get, told.body, name, self.shown)
                return told
            except LinkRefused as refusal:
                await in_thread(self._link.refused, sas, refusal, again=attempt > 0)
        raise _late()

    # --- how requests are made ---

    def _send(self, name: str, headers: Mapping[str, str], body: bytes, *, query: str = "") -> Found:
        def accept(reply: Reply) -> Found:
            self._demand(reply, name)
            return found_in(name, reply.header)._replace(size=len(body))

        return self._ask(name, "PUT", headers, accept, body=body, query=query)

    def _ask(
        self,
        name: str,
        method: str,
        headers: Mapping[str, str] | Callable[[SasUrl], Mapping[str, str]],
        accept: Callable[[Reply], T],
        *,
        body: bytes | None = None,
        query: str = "",
    ) -> T:
        def attempt(sas: SasUrl) -> T:
            if method in {"PUT", "DELETE"}:
                self.guard()
            more = headers(sas) if callable(headers) else headers
            send = Send(method, _url(sas, self._prefix + name, query), {"x-ms-version": VERSION, **more}, body)
            with self._talk.send(send) as reply:
                return accept(reply)

        return self._insist(attempt)

    def _insist(self, attempt: Callable[[SasUrl], T]) -> T:
        """Attempt with the link of that moment, as long as patience lasts; with a fresh one where it is refused."""
        return self._talk.insist(self.shown, lambda: self._through_a_link(attempt))

    def _through_a_link(self, attempt: Callable[[SasUrl], T]) -> T:
        for number in range(REFUSALS):
            sas = self._link.current()
            try:
                return attempt(sas)
            except LinkRefused as refusal:
                self._link.refused(sas, refusal, again=number > 0)
        raise _late()

    def _demand(self, reply: Reply, name: str, *, act: Act = "put") -> None:
        body = b"" if reply.status < 300 else reply.read()
        demand(reply.status, reply.header, body, name, self.shown, act=act, creatable=self._creatable)

    def lease(self) -> BlobLease:
        """The right to write here: a lease of the blob `.tilesync/lock`."""
        return BlobLease(self.lease_request, self.term, self.shown, self.read)

    def lease_request(
        self, name: str, headers: Mapping[str, str], *, query: str = "", beats: bool = False, body: bytes = b""
    ) -> tuple[int, str]:
        """The answer to one request about a lease, which may be no: its status and code. One that `beats` is not borne
        with for long: the next beat asks again.
        """

        def accept(reply: Reply) -> tuple[int, str]:
            code = storage_code(reply.header("x-ms-error-code"), b"" if reply.status < 300 else reply.read())
            if reply.status not in {404, 409, 412} or code == "ContainerNotFound":
                demand(reply.status, reply.header, b"", name, self.shown)
            return reply.status, code

        def attempt(sas: SasUrl) -> tuple[int, str]:
            url, within = _url(sas, self._prefix + name, query), patience_of(self.term) if beats else None
            send = Send("PUT", url, {"x-ms-version": VERSION, **headers}, body, within=within)
            with self._talk.send(send) as reply:
                return accept(reply)

        if not beats:
            return self._insist(attempt)
        return self._beating.insist(f"the lock of {self.shown}", lambda: self._through_a_link(attempt))


def _body(reply: Reply, closing: ExitStack) -> Iterator[bytes]:
    with closing:
        yield from reply.chunks()


def _url(sas: SasUrl, name: str, query: str) -> str:
    url = sas.blob(name)
    return f"{url}&{query}" if query else url


def _condition(instead_of: str | None) -> dict[str, str]:
    if instead_of is None:
        return {}
    return {"If-Match": f'"{instead_of}"'} if instead_of else {"If-None-Match": "*"}


def _late() -> NotAuthorised:
    return NotAuthorised(
        "each fresh link to the store is refused on arrival", hint="compare this machine's clock with the world's"
    )
