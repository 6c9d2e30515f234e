"""Blobs as a container describes them, and what is held of them: values of which there are millions."""

from __future__ import annotations

from typing import NamedTuple

UNKNOWN_SIZE = -1
"""The size of a blob that no answer has described yet."""


class Blob(NamedTuple):
    """One file of a container as the listing describes it: stored bytes, undecoded.

    `etag` has no quotes. `md5` is the 16 bytes that the uploader claimed, None where there is none. `last_modified` is
    in seconds since the epoch, None when unknown. `sha256` is what a manifest says of it, None where there is no such
    word. A walk knows a blob by its name before the first answer describes it: its size is UNKNOWN until then.
    """

    name: str
    size: int
    etag: str = ""
    md5: bytes | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    last_modified: int | None = None
    sha256: bytes | None = None


class Digests(NamedTuple):
    """What was computed over the stored bytes of one file while they passed; the MD5 only where it was asked for."""

    size: int
    sha256: bytes
    md5: bytes | None = None


class FileStamp(NamedTuple):
    """What a look at a file tells of whether it still is the one that was left there: mtime in ns and inode, which is 0
    where there is none; of an object a number made of its ETag, and 0.
    """

    mtime_ns: int
    inode: int = 0


class UnpackedFile(NamedTuple):
    """What tells a file that lies unpacked from its blob: its size as it lies, and the SHA-256 of the stored bytes."""

    size: int
    stored_sha256: bytes


class StoredFile(NamedTuple):
    """A file that lies in a version of the destination. `mtime_ns` and `inode` are its trace as it was left there.
    `sha256` is that of the file as it lies; empty where its bytes never came here: then the MD5 of the blob is what
    proves it. `unpacked`: the blob is gzip, and the file is what that holds.
    """

    blob: Blob
    sha256: bytes
    mtime_ns: int
    inode: int = 0
    unpacked: UnpackedFile | None = None

    @property
    def size(self) -> int:
        """The size of the file as it lies."""
        return self.blob.size if self.unpacked is None else self.unpacked.size

    @property
    def stored_sha256(self) -> bytes:
        """SHA-256 of the bytes of the blob."""
        return self.sha256 if self.unpacked is None else self.unpacked.stored_sha256

    @property
    def on_disk(self) -> Blob:
        """The file as a blob of its own: what the container states of stored bytes is not true of unpacked ones."""
        if self.unpacked is None:
            return self.blob
        return self.blob._replace(size=self.unpacked.size, md5=None, content_encoding=None, sha256=None)
