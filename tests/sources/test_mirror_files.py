"""Stored files of another mirror as a source: listing by manifest, reads in pieces, and errors."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import random
from collections.abc import Awaitable
from typing import TypeVar

import pytest

from tests.support.fake_destination import FakeDestination
from tilesync.errors import BlobDamaged, BlobMissing, ExportReplaced, Incomplete, TilesyncError, Transient
from tilesync.model import Blob, Page, StoredFile
from tilesync.sources.mirror_files import FILES_PER_PAGE, READ_BYTES, MirrorSource

T = TypeVar("T")

BIG = random.Random(1).randbytes(3 * READ_BYTES + 17)


def run(work: Awaitable[T]) -> T:
    async def main() -> T:
        return await work

    return asyncio.run(main())


def open_mirror(place: FakeDestination, files: dict[str, bytes]) -> MirrorSource:
    return MirrorSource(place.add_version("e1", files), place, place, "/srv/tiles")


async def pages(source: MirrorSource, marker: str | None = None) -> list[Page]:
    return [page async for page in source.pages(marker)]


def many(count: int) -> dict[str, bytes]:
    return {f"{number:05d}": b"x" * (number % 3) for number in range(count)}


async def whole(source: MirrorSource, blob: Blob, offset: int = 0) -> bytes:
    body = await source.open(blob, offset)
    assert body.start == offset
    data = b"".join([chunk async for chunk in body.chunks()])
    await body.aclose()
    await body.aclose()
    return data


def claimed(name: str, data: bytes) -> Blob:
    return Blob(name, len(data), "e", sha256=hashlib.sha256(data).digest())


# --- the listing ---


@pytest.mark.parametrize(
    "count", [0, 1, FILES_PER_PAGE - 1, FILES_PER_PAGE, FILES_PER_PAGE + 1, 2 * FILES_PER_PAGE + 500]
)
def test_the_manifest_is_the_listing(count: int) -> None:
    """Every file once, with its SHA-256, and from any marker on the rest."""
    files = many(count)
    result = run(pages(open_mirror(FakeDestination(), files)))
    listed = [blob for page in result for blob in page.blobs]
    assert listed == [claimed(name, data) for name, data in files.items()]
    assert [len(page.blobs) for page in result[:-1]] == [FILES_PER_PAGE] * (len(result) - 1)
    for place, page in enumerate(result):
        assert (page.marker is None) == (place == len(result) - 1)
        if page.marker is not None:
            assert run(pages(open_mirror(FakeDestination(), files), page.marker)) == result[place + 1 :]


@pytest.mark.parametrize("marker", [None, str(FILES_PER_PAGE)])
@pytest.mark.parametrize("lost", [1, FILES_PER_PAGE + 1])
def test_truncated_manifest(marker: str | None, lost: int) -> None:
    """If lines are missing at the end, the last page is not yielded, also in a listing from a marker."""
    place, given = FakeDestination(), list[Page]()
    source = open_mirror(place, many(2 * FILES_PER_PAGE + 1))
    del place.manifests["e1"][-lost:]

    async def work() -> None:
        async for page in source.pages(marker):
            given.append(page)

    with pytest.raises(Incomplete, match="e1 in /srv/tiles"):
        run(work())
    assert all(page.marker is not None for page in given)


@pytest.mark.parametrize("wrong", [None, [], {}, {"name": "a", "size": -1}, "text"])
def test_damaged_manifest_line(wrong: object) -> None:
    """A damaged manifest is reported with the name of its version."""
    place = FakeDestination()
    source = open_mirror(place, many(3))
    place.manifests["e1"][2] = wrong
    with pytest.raises(Incomplete, match="e1 in /srv/tiles cannot be read"):
        run(pages(source))


def test_properties_of_the_source() -> None:
    """It has the container URL of its manifest, no link, a listing, and a key of place and version."""
    source = open_mirror(FakeDestination(), many(1))
    assert run(source.container_url()) == "https://a/c"
    assert run(source.is_listable())
    assert not source.has_link
    assert source.inventory_key.split(" ")[0] == "e1"
    assert "tilesync verify /srv/tiles" in source.remedy
    with pytest.raises(NotImplementedError):
        run(source.link())


def test_throttle() -> None:
    """Every byte counts towards the bandwidth limit, once."""
    place, paid = FakeDestination(), list[int]()

    async def throttle(count: int) -> None:
        paid.append(count)

    source = MirrorSource(
        place.add_version("e1", {"a": BIG, "b": b"abc"}), place, place, "/srv/tiles", throttle=throttle
    )
    assert run(whole(source, claimed("a", BIG))) == BIG
    assert run(whole(source, claimed("b", b"abc"))) == b"abc"
    assert sum(paid) == len(BIG) + 3


# --- bodies ---


@pytest.mark.scale
@pytest.mark.parametrize("size", [0, 1, READ_BYTES - 1, READ_BYTES, READ_BYTES + 1, len(BIG)])
@pytest.mark.parametrize("step", [1 << 16, READ_BYTES, 5 * READ_BYTES])
def test_bytes_from_any_offset(size: int, step: int) -> None:
    """However a store splits them, the bytes from the offset on are complete, also when read at once."""
    data = BIG[:size]
    source = open_mirror(FakeDestination(chunk_bytes=step), {"a": data})
    for offset in {0, 1, size // 2, size - 1} & set(range(size + 1)):
        assert run(whole(source, claimed("a", data), offset)) == data[offset:]

    async def at_once(most: int) -> bytes:
        return await (await source.open(claimed("a", data), 0, prefetch_bytes=most)).read(most)

    assert run(at_once(size)) == data
    assert len(run(at_once(size // 2))) > size // 2 or size == 0


def test_concurrent_reads() -> None:
    """Each of many concurrent reads gets its own bytes, and an error affects only its own file."""
    files = {f"{number}": BIG[number : number + number % 9] for number in range(300)}
    place = FakeDestination()
    source = open_mirror(place, files)
    del place.files["e1", "7"]

    async def work() -> list[bytes | BaseException]:
        reads = (whole(source, claimed(name, data)) for name, data in files.items())
        return await asyncio.gather(*reads, return_exceptions=True)

    result = dict(zip(files, run(work()), strict=True))
    assert isinstance(result.pop("7"), BlobMissing)
    assert result == {name: data for name, data in files.items() if name != "7"}


@pytest.mark.parametrize(
    ("cause", "error"),
    [
        (FileNotFoundError(errno.ENOENT, "no"), BlobMissing),
        (PermissionError(errno.EACCES, "no"), BlobDamaged),
        (OSError(errno.ELOOP, "no"), BlobDamaged),
        (OSError(errno.EIO, "no"), Transient),
        (OSError(errno.ESTALE, "no"), Transient),
        (ValueError(), BlobDamaged),
    ],
)
def test_read_errors(cause: Exception, error: type[TilesyncError]) -> None:
    """A lost file is missing, a permanent error is damage, any other is Transient."""
    place = FakeDestination()
    source = open_mirror(place, {"a": b"abc"})
    place.read_errors["a"] = cause
    for job in (source.open(claimed("a", b"abc"), 0), source.is_unchanged(StoredFile(claimed("a", b"abc"), b"", 0))):
        with pytest.raises(error, match="a"):
            run(job)


def test_version_that_is_removed_meanwhile() -> None:
    """A file or manifest that is lost together with its version raises ExportReplaced."""
    place = FakeDestination()
    source = open_mirror(place, {"a": b"abc"})
    place.manifests.clear()
    place.files.clear()
    for job in (source.open(claimed("a", b"abc"), 0), pages(source)):
        with pytest.raises(ExportReplaced, match="e1"):
            run(job)


def test_blob_without_digest_is_compared_with_the_manifest() -> None:
    """For a blob without a SHA-256 that of the manifest counts: damage is found before any byte is returned."""
    place = FakeDestination()
    source = open_mirror(place, {"a": b"abc", "b": b"abc"})
    bare = Blob("b", 3, "e")
    assert run(whole(source, bare)) == b"abc"
    place.files["e1", "b"] = b"abd"
    with pytest.raises(BlobDamaged, match="b: its SHA-256"):
        run(source.open(bare, 0))


def test_open_by_name() -> None:
    """The manifest describes the file; one that it does not list is missing."""
    source = open_mirror(FakeDestination(), {"a": b"abc", "b": b"bcd"})

    async def first(name: str) -> tuple[Blob, bytes]:
        blob, body = await source.open_by_name(name)
        return blob, await body.read(9)

    assert run(first("b")) == (claimed("b", b"bcd"), b"bcd")
    with pytest.raises(BlobMissing):
        run(first("c"))


def test_is_unchanged() -> None:
    """A file is unchanged if its SHA-256 is equal; a lost one is not."""
    place = FakeDestination()
    source = open_mirror(place, {"a": b"abc"})
    same, other = StoredFile(Blob("a", 3), hashlib.sha256(b"abc").digest(), 0), StoredFile(Blob("a", 3), b"s" * 32, 0)
    assert run(source.is_unchanged(same))
    assert not run(source.is_unchanged(other))
    del place.files["e1", "a"]
    assert not run(source.is_unchanged(same))
