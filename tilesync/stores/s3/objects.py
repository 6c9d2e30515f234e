"""Objects of a bucket, each in one request, through obstore: the one door for its errors.

It signs, sends and lists outside the interpreter lock. Its own retries are off: those who wait want to know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from tilesync.errors import ConditionFailed, DestinationError, TilesyncError, Transient, UnknownHost
from tilesync.model.storage import Found, Label
from tilesync.stores.s3.errors import ENDPOINT, Act, found, refuse
from tilesync.transport.connect_errors import is_unresolved

if TYPE_CHECKING:
    from obstore import Attributes, GetOptions, ListStream, ObjectMeta, PutMode
    from obstore.store import S3Store

PAGE: Final = 1000
"""Objects of a page at most. Source: Amazon S3 API Reference, "ListObjectsV2"."""

PIECE: Final = 1 << 20
"""Bytes of a body that are taken at once."""

_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>([A-Za-z0-9.]+)</Code>|\(code: ([A-Za-z0-9.]+)\)")
_REASONS: Final = (
    ("InvalidCertificate", "its certificate is not to be trusted"),
    ("dns error", "its name cannot be looked up"),
    ("credential provider", "the credentials cannot be renewed"),
    ("Timeout", "no bytes in time"),
    ("TimedOut", "no bytes in time"),
    ("kind: Connect", "no connection"),
    ("kind: Body", "the body broke off"),
)
"""What obstore's details say, and what is said of it: the details themselves hold URLs."""


class Got(NamedTuple):
    """A body on its way."""

    found: Found
    chunks: Iterator[bytes]


class Whole:
    """One attempt each, by whole names. Raises what follows from the answer; Transient for what another may cure."""

    def __init__(self, store: S3Store, shown: str) -> None:
        import obstore
        from obstore.exceptions import AlreadyExistsError, BaseError, InvalidPathError, PreconditionError

        self._obstore = obstore
        self._foreign = (BaseError, OSError, ValueError)
        self._conditions = (AlreadyExistsError, PreconditionError)
        self._paths = (InvalidPathError, ValueError)
        self._store = store
        self._shown = shown

    def head(self, name: str) -> Found:
        """What is said of an object. Raises NotThere."""
        with self._mapped(name, act="read"):
            return _found(self._obstore.head(self._store, name))

    def pages(self, folder: str, *, after: str | None = None) -> Iterator[list[Found]]:
        """What lies in a folder, in the order of names, from behind the name `after` on."""
        with self._mapped(folder, act="read"):
            stream: ListStream[Sequence[ObjectMeta]]
            stream = self._obstore.list(self._store, folder, offset=after, chunk_size=PAGE)
        while True:
            with self._mapped(folder, act="read"):
                page = next(stream, None)
            if page is None:
                return
            yield [_found(each) for each in page]

    def get(self, name: str, *, offset: int, etag: str) -> Got:
        """An object from `offset` on, of this version where one is named. Raises NotThere, ConditionFailed."""
        options: GetOptions = {"range": {"offset": offset}} if offset else {}
        if etag:
            options["if_match"] = f'"{etag}"'
        with self._mapped(name, act="read"):
            result = self._obstore.get(self._store, name, options=options)
            if result.range[0] != offset:
                raise Transient("the destination did not give the range that it was asked for")
            stream = result.stream(min_chunk_size=PIECE)
        return Got(_found(result.meta), self._chunks(name, stream))

    def _chunks(self, name: str, stream: Iterator[bytes]) -> Iterator[bytes]:
        while True:
            with self._mapped(name, act="read"):
                chunk = next(stream, None)
            if chunk is None:
                return
            yield bytes(chunk)

    def put(self, name: str, data: bytes, label: Label, *, instead_of: str | None) -> Found:
        """Put an object in place. Raises ConditionFailed where another one stands there than was said."""
        mode: PutMode = "overwrite"
        if instead_of is not None:
            mode = {"e_tag": f'"{instead_of}"'} if instead_of else "create"
        with self._mapped(name, act="write" if instead_of is None else "replace"):
            told = self._obstore.put(
                self._store, name, data, attributes=_attributes(label), mode=mode, use_multipart=False
            )
            return found(name, len(data), told["e_tag"])

    async def put_async(self, name: str, data: bytes, label: Label) -> Found:
        """Put an object in place, whatever stood there."""
        with self._mapped(name):
            told = await self._obstore.put_async(
                self._store, name, data, attributes=_attributes(label), use_multipart=False
            )
            return found(name, len(data), told["e_tag"])

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects, a thousand with a request; missing is no error."""
        with self._mapped(names[0] if len(names) == 1 else "the deletion"):
            self._obstore.delete(self._store, names)

    def signed(self, name: str, life: timedelta) -> str:
        """A URL by which anybody can read an object for some time: a secret."""
        with self._mapped(name):
            return self._obstore.sign(self._store, "GET", name, life)

    @contextmanager
    def _mapped(self, name: str, *, act: Act = "write") -> Iterator[None]:
        """Errors of obstore as ours. Theirs are dropped: they hold URLs and answers."""
        try:
            yield
        except self._foreign as error:
            raise self._ours(error, name, act) from None

    def _ours(self, error: Exception, name: str, act: Act) -> TilesyncError:
        text = str(error)
        status, code = _STATUS.search(text), _CODE.search(text)
        number = int(status[1]) if status else 301 if "Received redirect" in text else 0
        if isinstance(error, self._conditions) and number != 409:
            return ConditionFailed(f"{name} is another one by now")
        if isinstance(error, self._paths):
            return DestinationError(f"{self._shown} holds, or is to hold, a name that is no path, beside {name!r}")
        try:
            if number or code:
                refuse(number, (code[1] or code[2]) if code else "", name, self._shown, act=act)
            if is_unresolved(text):
                return UnknownHost(f"the host of {self._shown} does not resolve", hint=ENDPOINT)
            return Transient(next((said for detail, said in _REASONS if detail in text), "the request failed"))
        except TilesyncError as ours:
            return ours


def _found(meta: ObjectMeta) -> Found:
    return found(meta["path"], meta["size"], meta["e_tag"])


def _attributes(label: Label) -> Attributes:
    said: Attributes = {"Content-Type": label.content_type}
    if label.content_encoding:
        said["Content-Encoding"] = label.content_encoding
    if label.cache_control:
        said["Cache-Control"] = label.cache_control
    return said
