"""Values of object stores: locations, objects, headers and responses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from tilesync.model import SasUrl
from tilesync.values import dataclass

HEAD_BYTES: Final = 512
"""Bytes from the start of a file that are enough to detect its type."""


class ObjectHeaders(NamedTuple):
    """Headers with which an object is served."""

    content_type: str
    content_encoding: str | None = None
    cache_control: str | None = None


class ObjectInfo(NamedTuple):
    """Object as its store describes it: `etag` without quotes, `md5` None if the store states none."""

    name: str
    size: int
    etag: str
    md5: bytes | None = None


class CopySource(NamedTuple):
    """Blob to copy by the store: the signed URL to read it, which is a secret, and its known properties."""

    url: str
    size: int
    etag: str
    md5: bytes | None

    def __repr__(self) -> str:
        return f"CopySource({self.size} bytes)"


class HttpResponse(NamedTuple):
    """Response of a server to an anonymous request: header names in lower case, body as sent."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class AzureLocation:
    """Container of an Azure storage account, with a prefix that is empty or ends with a slash.

    `link`: the signed link that named it; None if a link must be requested with an identity.
    """

    account: str
    container: str
    prefix: str = ""
    link: SasUrl | None = None

    def __str__(self) -> str:
        return f"az://{self.account}/{self.container}/{self.prefix}".rstrip("/")


@dataclass(frozen=True, slots=True)
class S3Location:
    """S3 bucket, with a prefix that is empty or ends with a slash."""

    bucket: str
    prefix: str = ""

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")
