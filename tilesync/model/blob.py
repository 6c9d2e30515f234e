"""Blobs of a container and the files stored from them; there may be millions of these values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from itertools import compress
from typing import Any, NamedTuple, TypeAlias

from tilesync.values import dataclass

UNKNOWN_SIZE = -1
"""Size of a blob that no response has described yet."""

Chunk: TypeAlias = "bytes | memoryview"
"""Bytes of a body as they arrive. A large piece is a view, which is not copied."""


class Blob(NamedTuple):
    """File of a container as the listing describes it: its stored bytes, not decoded.

    `etag` has no quotes. `md5`: the 16 bytes that the uploader stated, or None. `last_modified`: seconds since the
    epoch, None if unknown. `sha256`: from a manifest, or None. A walk knows only the name of a blob before the first
    response describes it; until then its size is UNKNOWN_SIZE.
    """

    name: str
    size: int
    etag: str = ""
    md5: bytes | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    last_modified: int | None = None
    sha256: bytes | None = None


@dataclass(frozen=True, slots=True)
class BlobColumns:
    """Blobs of a listing page as columns: a list for each field of Blob, in its order, all of the same length.

    A page goes from the parser to the catalog in this form, because an object for each blob costs more than the
    database.
    """

    names: list[str]
    sizes: list[int]
    etags: list[str]
    md5s: list[bytes | None]
    content_types: list[str | None]
    content_encodings: list[str | None]
    last_modified: list[int | None]
    sha256s: list[bytes | None]

    @classmethod
    def from_blobs(cls, blobs: Iterable[Blob]) -> BlobColumns:
        """Build the columns of some blobs."""
        rows = list(blobs)
        return cls(*map(list, zip(*rows, strict=True))) if rows else cls([], [], [], [], [], [], [], [])

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Blob]:
        return map(Blob, *self.columns())

    def columns(self) -> tuple[list[Any], ...]:
        """Return all columns, in the order of the fields of Blob."""
        return tuple(getattr(self, field.name) for field in fields(self))

    def extend(self, more: BlobColumns) -> None:
        """Append other blobs."""
        for column, values in zip(self.columns(), more.columns(), strict=True):
            column.extend(values)

    def select(self, wanted: Sequence[bool]) -> BlobColumns:
        """Return the blobs for which `wanted` is true."""
        return BlobColumns(*(list(compress(column, wanted)) for column in self.columns()))


class Digests(NamedTuple):
    """Size and digests of the stored bytes of a file, computed during the transfer; MD5 only if requested."""

    size: int
    sha256: bytes
    md5: bytes | None = None


class FileStamp(NamedTuple):
    """Stamp of a file that shows a later change: mtime in ns and inode (0 if there is none).

    For an object: a number derived from its ETag, and 0.
    """

    mtime_ns: int
    inode: int = 0


class UnpackedFile(NamedTuple):
    """Difference between an unpacked file and its blob: size of the file, and SHA-256 of the stored bytes."""

    size: int
    stored_sha256: bytes


class StoredFile(NamedTuple):
    """File in a version of the destination.

    `mtime_ns` and `inode`: its stamp when it was written. `sha256`: digest of the file on disk; empty if the storage
    service copied it, and then the MD5 of the blob proves it. `unpacked`: set if the blob is gzip and the file is its
    decompressed content.
    """

    blob: Blob
    sha256: bytes
    mtime_ns: int
    inode: int = 0
    unpacked: UnpackedFile | None = None

    @property
    def size(self) -> int:
        """Size of the file on disk."""
        return self.blob.size if self.unpacked is None else self.unpacked.size

    @property
    def stored_sha256(self) -> bytes:
        """SHA-256 of the bytes of the blob."""
        return self.sha256 if self.unpacked is None else self.unpacked.stored_sha256

    @property
    def on_disk(self) -> Blob:
        """The file as a blob of its own.

        The container's MD5, encoding and SHA-256 describe the packed bytes, so an unpacked file drops them.
        """
        if self.unpacked is None:
            return self.blob
        return self.blob._replace(size=self.unpacked.size, md5=None, content_encoding=None, sha256=None)


class RecordedFile(NamedTuple):
    """Stored file with what shows a later change: the size of the file on disk, and its mtime in ns."""

    name: str
    size: int
    mtime_ns: int


class UnchangedFile(NamedTuple):
    """Wanted file that an earlier version stores with the same name and content.

    `listed_size` is the size of the blob; `size` and the stamp are those of the earlier version's file.
    """

    file_id: int
    name: str
    listed_size: int
    size: int
    mtime_ns: int
    inode: int
