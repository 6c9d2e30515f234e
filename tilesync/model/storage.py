"""The values of object stores: places in them, objects, and how those are served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tilesync.model import SasUrl


class ObjectHeaders(NamedTuple):
    """How an object is to be served."""

    content_type: str
    content_encoding: str | None = None
    cache_control: str | None = None


class ObjectInfo(NamedTuple):
    """An object as its store describes it: `etag` without quotes, `md5` None where the store tells none."""

    name: str
    size: int
    etag: str
    md5: bytes | None = None


class CopySource(NamedTuple):
    """A blob in another place: the signed URL by which it can be read, a secret; and what is known of it."""

    url: str
    size: int
    etag: str
    md5: bytes | None

    def __repr__(self) -> str:
        return f"Elsewhere({self.size} bytes)"


class HttpResponse(NamedTuple):
    """What a server answers to someone without any identity: its headers by their names in small letters, its body as
    it was sent.
    """

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class AzureLocation:
    """A container of an Azure storage account, below a prefix that is empty or ends with a slash. `link`: the signed
    link by which it was named, None where an identity is to be asked for one.
    """

    account: str
    container: str
    prefix: str = ""
    link: SasUrl | None = None

    def __str__(self) -> str:
        return f"az://{self.account}/{self.container}/{self.prefix}".rstrip("/")


@dataclass(frozen=True, slots=True)
class S3Location:
    """An S3 bucket, below a prefix that is empty or ends with a slash."""

    bucket: str
    prefix: str = ""

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")
