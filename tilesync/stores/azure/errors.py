"""What Azure Blob Storage answers to one who writes, in our terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

from tilesync.azure.error_hints import storage_hint
from tilesync.azure.responses import judge_storage, parse_md5, plain_etag, storage_code
from tilesync.core.http_status import Verdict
from tilesync.errors import ConditionFailed, DestinationError, LinkRefused, Transient
from tilesync.model.storage import Found
from tilesync.transport.retry_after import asked_wait

VERSION: Final = "2023-11-03"
"""Of the REST interface that is spoken here."""

_SPOILT: Final = {"Md5Mismatch", "InvalidMd5", "Crc64Mismatch"}
"""The bytes were spoilt on their way: another attempt may cure it."""

_THERE: Final = "BlobAlreadyExists"
"""What `If-None-Match: *` is answered where something is there already. Source: "Blob service error codes"."""

Act = Literal["read", "put", "delete"]
_DONE: Final[Mapping[Act, str]] = {"read": "read from", "put": "put into", "delete": "deleted from"}
_WRITES: Final = "check that this identity, or the link, may read, list, create, write and delete there (`sp=racwdl`)"
_RIGHTS: Final[Mapping[Act, str]] = {
    "read": "check that this identity, or the link, may read and list there (`sp=rl`)",
    "put": _WRITES,
    "delete": _WRITES,
}

Header = Callable[[str], str | None]


def demand(
    status: int, header: Header, body: bytes, name: str, shown: str, *, act: Act = "put", creatable: bool | None = None
) -> None:
    """Return when a request about the blob `name` was granted; else raise what follows from the answer. `creatable`: an
    option would make a container that is missing; unless said otherwise, where it is written to.
    """
    if status < 300:
        return
    creatable = act != "read" if creatable is None else creatable
    code = storage_code(header("x-ms-error-code"), body)
    said = f"({status} {code})".replace(" )", ")")
    if code in _SPOILT:
        raise Transient(f"{name} did not arrive whole {said}")
    match judge_storage(status, code):
        case Verdict.RETRY | Verdict.PRESSURE as verdict:
            wait = asked_wait(header)
            pressure = verdict is Verdict.PRESSURE
            raise Transient(f"{shown} answered {status}", retry_after=wait, pressure=pressure)
        case Verdict.DENIED:
            raise LinkRefused(f"{shown} refuses {name} {said}", hint=storage_hint(code) or _RIGHTS[act])
        case Verdict.GONE:
            raise DestinationError(
                f"there is no container at {shown} {said}",
                hint="check the name" + ("; `mirror --create-container` makes it" if creatable else ""),
            )
        case Verdict.CHANGED | Verdict.REFUSED if (status == 412 and not code.startswith("Lease")) or code == _THERE:
            raise ConditionFailed(f"{name} is another one by now {said}")
    raise DestinationError(f"{name} cannot be {_DONE[act]} {shown} {said}", hint=storage_hint(code))


def about_source(code: str, header: Header) -> bool:
    """Whether a refused copy was refused to the service itself, by what it should have read. Source: "Put Blob From
    URL", "Error and status codes".
    """
    return code == "CannotVerifyCopySource" or header("x-ms-copy-source-status-code") is not None


def found_in(name: str, header: Header) -> Found:
    """The blob that the headers of an answer describe. Source: "Get Blob Properties", "Put Blob"."""
    length = (header("content-range") or "").rpartition("/")[2] or header("content-length") or ""
    md5 = parse_md5(header("x-ms-blob-content-md5") or header("content-md5"))
    return Found(name, int(length) if length.isdecimal() else 0, plain_etag(header("etag")), md5)
