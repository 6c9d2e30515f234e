"""Gzip payloads that lie unpacked in a folder: what comes in, what is shared, and what is left when something fails."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import pickle
import random
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support import store_contract as contract
from tests.support.store_contract import ResumableDestinationContract, blob, digests_of, run_async
from tilesync.core import gzip as packed
from tilesync.errors import BlobDamaged
from tilesync.model import Blob, Content, FileResult, Layout, StoredFile, UnpackedFile, Version
from tilesync.stores.local.destination import LocalDestination, open_local
from tilesync.stores.local.directory_handles import DirectoryHandle, Entry
from tilesync.stores.local.gunzip import WRITE_STRETCH_BYTES, GunzipWriter, gunzip_to_file, is_gzip_file, read_chunks
from tilesync.stores.local.writer import LocalFiles

PLAIN = random.Random(7).randbytes(1_500_000)
PACKED = gzip.compress(PLAIN, 1, mtime=0)
STORED, DECODED = (
    replace(contract.SAMPLE_VERSION, serial=number, name=f"e{number}", content=content)
    for number, content in enumerate(Content, start=1)
)
DATE = 1772353800


def entry(path: Path) -> Entry:
    """A path as an entry of an open folder."""
    return DirectoryHandle(str(path.parent)).entry(path.name)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The version of the conformance suite is one in which gzip payloads lie unpacked."""
    monkeypatch.setattr(contract, "SAMPLE_VERSION", replace(contract.SAMPLE_VERSION, content=Content.DECODED))


@pytest.mark.usefixtures("decoded")
class TestUnpackingFolder(ResumableDestinationContract):
    """A folder in which gzip payloads lie unpacked."""

    @pytest.fixture
    def opening(self, tmp_path: Path) -> contract.OpenDestination:
        return lambda: open_local(tmp_path / "dest", state_dir=None)


@pytest.mark.usefixtures("decoded")
class TestUnpackingFlatFolder(ResumableDestinationContract):
    """The same in the flat layout."""

    @pytest.fixture
    def opening(self, tmp_path: Path) -> contract.OpenDestination:
        return lambda: open_local(tmp_path / "dest", state_dir=None, layout=Layout.FLAT)


@pytest.fixture(params=list(Layout))
def there(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[LocalDestination]:
    with open_local(tmp_path / "d", state_dir=None, layout=request.param) as destination:
        yield destination


async def commit(files: LocalFiles, version: Version, item: Blob, data: bytes) -> StoredFile:
    """A file by way of a part."""
    draft = files.draft(version, item)
    for at in range(0, len(data), 300_000):
        await draft.append(data[at : at + 300_000])
    return await draft.commit(digests_of(data))


def put(files: LocalFiles, version: Version, item: Blob, data: bytes, *, small: bool = True) -> StoredFile:
    """A file by one of the two ways in."""
    return run_async(files.put(version, item, data, digests_of) if small else commit(files, version, item, data))


def parts(files: Any) -> list[str]:
    """What lies beside."""
    return sorted(os.listdir(files.put_target(STORED).parts.path))


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("version", [STORED, DECODED])
def test_what_comes_in(there: LocalDestination, version: Version, small: bool) -> None:
    """A gzip payload lies unpacked in a version that is to hold it so, with the date of its blob; both are known."""
    item = blob("a/b", PACKED, last_modified=DATE)
    held = put(there.files, version, item, PACKED, small=small)
    lies = PLAIN if version is DECODED else PACKED
    assert held.blob == item
    assert held.unpacked == (UnpackedFile(len(PLAIN), digests_of(PACKED).sha256) if version is DECODED else None)
    assert (held.size, held.sha256, held.stored_sha256) == (
        len(lies),
        digests_of(lies).sha256,
        digests_of(PACKED).sha256,
    )
    assert there.files.read(version, "a/b") == lies
    assert there.files.digest(version, "a/b") == held.sha256
    assert there.files.unchanged(version, [held]) == [True]
    assert held.mtime_ns == DATE * 10**9
    assert [name for name in parts(there.files) if not name.startswith("case-")] == []


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("data", [b"", b"\x1f\x8b", b"\x1f\x8b\x07 other", b"plain", gzip.compress(b"", mtime=0)])
def test_what_is_no_payload(there: LocalDestination, data: bytes, small: bool) -> None:
    """What is no gzip lies as it came; an empty payload unpacks to an empty file."""
    held = put(there.files, DECODED, blob("a", data), data, small=small)
    is_gzip = len(data) > 10
    assert there.files.read(DECODED, "a") == (b"" if is_gzip else data)
    assert (held.unpacked is not None) == is_gzip


@pytest.mark.parametrize("small", [True, False])
def test_a_payload_that_unpacks_to_too_much(
    there: LocalDestination, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bomb that is proven lies as it is stored, never unpacked in part, and nothing of it is left beside."""
    put(there.files, DECODED, blob("a", b"old", "1"), b"old")
    monkeypatch.setattr(packed, "MAX_UNPACKED_BYTES", 1_000_000)
    held = put(there.files, DECODED, blob("a", PACKED, "2"), PACKED, small=small)
    assert held.unpacked is None
    assert there.files.read(DECODED, "a") == PACKED
    assert parts(there.files) == []


def test_unpacking_takes_little_memory(tmp_path: Path) -> None:
    """However much a payload unpacks to, a few hundred kilobytes are in memory."""
    bomb = gzip.compress(bytes(200_000_000), mtime=0)
    tracemalloc.start()
    try:
        laid = gunzip_to_file([bomb], entry(tmp_path / "a"), None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert laid.size == (tmp_path / "a").stat().st_size == 200_000_000
    assert peak < 2_000_000


def test_a_cancelled_commit_leaves_the_part(there: LocalDestination, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is interrupted while it unpacks goes on with what is stored; nothing lies under the name."""
    data = gzip.compress(bytes(3 * WRITE_STRETCH_BYTES) + PLAIN, 1, mtime=0)
    item = blob("a", data)
    real, steps = GunzipWriter.write_next, list[int]()

    async def interrupted() -> None:
        task = asyncio.ensure_future(commit(there.files, DECODED, item, data))

        def step(self: GunzipWriter) -> bool:
            steps.append(self.size)
            if len(steps) == 2:
                loop.call_soon_threadsafe(task.cancel)
            return real(self)

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(GunzipWriter, "write_next", step)
        with pytest.raises(asyncio.CancelledError):
            await task

    run_async(interrupted())
    assert len(steps) == 2
    assert there.files.size(DECODED, "a") is None
    monkeypatch.undo()
    (part,) = parts(there.files)
    assert not part.endswith("unpacked")
    assert (Path(there.files.put_target(DECODED).parts.path) / part).read_bytes() == data


def test_a_shelf_can_go_elsewhere(there: LocalDestination) -> None:
    """What other processes put on a shelf lies as the version of the shelf wants it."""
    for version in (STORED, DECODED):
        shelf = pickle.loads(pickle.dumps(there.files.put_target(version)))
        held = shelf.put_verified(version.name, blob("a", PACKED), PACKED, digests_of(PACKED))
        assert there.files.unchanged(version, [held]) == [True]
    assert (there.files.read(STORED, "a"), there.files.read(DECODED, "a")) == (PACKED, PLAIN)


# --- shared ---


def kept(destination: LocalDestination, version: Version, held: StoredFile) -> Version:
    """A version of the catalog that holds a file."""
    known = destination.catalog.add_version(version)
    destination.catalog.add_stored_files(known, [FileResult(0, held)])
    return known


@pytest.mark.parametrize("data", [PACKED, b"plain"], ids=["gzip", "plain"])
@pytest.mark.parametrize("of", [STORED, DECODED], ids=["from stored", "from decoded"])
@pytest.mark.parametrize("to", [STORED, DECODED], ids=["to stored", "to decoded"])
def test_sharing(there: LocalDestination, of: Version, to: Version, data: bytes) -> None:
    """Files that lie alike are linked; what is stored is unpacked on the way; what is unpacked is never taken for what
    is stored.
    """
    to = replace(to, serial=9, name="e9")
    item = blob("a", data, last_modified=DATE)
    held = put(there.files, of, item, data)
    (shared,) = there.files.share(to, [(item._replace(name="b"), of, held)])
    if data is PACKED and (of.content, to.content) == (Content.DECODED, Content.STORED):
        assert shared is None
        assert there.files.size(to, "b") is None
        return
    assert shared is not None
    lies = PLAIN if data is PACKED and to.content is Content.DECODED else data
    assert there.files.read(to, "b") == lies
    assert there.files.unchanged(to, [shared]) == [True]
    assert (shared.blob.name, shared.sha256, shared.stored_sha256) == (
        "b",
        digests_of(lies).sha256,
        digests_of(data).sha256,
    )
    assert shared.size == len(lies)
    alike = data is not PACKED or of.content is to.content
    assert (shared.inode == held.inode) == alike
    assert there.files.unchanged(of, [held]) == [True]


def test_what_changed_is_not_unpacked(there: LocalDestination) -> None:
    """A stored file that is no longer what was left there, though it looks so, is not unpacked from."""
    held = put(there.files, STORED, blob("a", PACKED, last_modified=DATE), PACKED)
    lying = there.files.find(STORED.name, "a")
    assert lying is not None
    path = lying[0].path
    for wrong in (PACKED[:-1] + b"!", gzip.compress(PLAIN, 2, mtime=1)[: len(PACKED)].ljust(len(PACKED), b"\0")):
        Path(path).write_bytes(wrong)
        os.utime(path, (DATE, DATE))
        assert there.files.share(DECODED, [(held.blob, STORED, held)]) == [None]
        assert there.files.size(DECODED, "a") is None
    assert parts(there.files) == []


def test_twins_of_both_contents(there: LocalDestination) -> None:
    """Twins are found by what the container stores: for stored files only stored ones, for unpacked ones those of the
    same content first.
    """
    item = blob("a", PACKED, md5=digests_of(PACKED).md5)
    stored = kept(there, STORED, put(there.files, STORED, item, PACKED))
    held = put(there.files, DECODED, item, PACKED)
    decoded = kept(there, DECODED, held)
    newer = kept(there, replace(STORED, name="e3"), put(there.files, replace(STORED, name="e3"), item, PACKED))
    claimed = item._replace(sha256=digests_of(PACKED).sha256)
    for wish in (item, claimed):
        for content, known in ((Content.STORED, newer), (Content.DECODED, decoded)):
            wanting = replace(STORED, serial=99, content=content)
            (twin,) = there.catalog.duplicates.find_by_digest(wanting, [wish])["a"]
            assert (twin.version.serial, twin.stored.stored_sha256) == (known.serial, digests_of(PACKED).sha256)
            every = there.catalog.duplicates.find_by_digest(wanting, [wish], all_versions=True)["a"]
            unpacked = {decoded.serial} if content is Content.DECODED else set()
            assert {twin.version.serial for twin in every} == {stored.serial, newer.serial} | unpacked
    (read,) = there.catalog.find_stored(decoded, ["a"]).values()
    assert read == held
    assert (
        there.catalog.duplicates.find_by_digest(replace(DECODED, serial=99), [item._replace(sha256=held.sha256)]) == {}
    )
    totals = there.catalog.compute_totals(decoded)
    assert (totals.stored_bytes, totals.growth_bytes) == (len(PACKED), len(PLAIN) - len(PACKED))


def test_what_is_released_must_be_what_was_stored(there: LocalDestination) -> None:
    """A file that was found bad is wanted with the SHA-256 of its stored bytes; when it is there again it is whole."""
    item = blob("a", PACKED)
    held = put(there.files, DECODED, item, PACKED)
    version = kept(there, DECODED, held)
    there.catalog.mark_wanted(version, ["a"], include_linked=True)
    ((number, wanted),) = there.catalog.list_wanted(version, 0, limit=2)
    assert wanted == item._replace(sha256=digests_of(PACKED).sha256)
    assert there.catalog.duplicates.count_reusable_bytes(version) == 0
    there.catalog.mark_stored(version, [FileResult(number, held)])
    assert there.catalog.find_stored(version, ["a"]) == {"a": held}
    there.catalog.mark_wanted(version, ["a"])
    plain = StoredFile(blob("a", b"x"), b"p" * 32, 1, 2)
    there.catalog.mark_stored(version, [FileResult(number, plain)])
    assert there.catalog.find_stored(version, ["a"]) == {"a": plain}


def test_what_lies_there_already(there: LocalDestination) -> None:
    """Of files without a catalog only those that are no gzip seem to be there, where gzip is to lie unpacked."""
    for version in (STORED, DECODED):
        for name, data in (("gzip", PACKED), ("plain", b"plain")):
            put(there.files, replace(version, content=Content.STORED), blob(name, data), data)
    blobs = [blob("gzip", PACKED, md5=b"m"), blob("plain", b"plain", md5=b"m"), blob("none", b"", md5=b"m")]
    assert there.files.find_present(STORED, blobs) == {"gzip", "plain"}
    assert there.files.find_present(DECODED, blobs) == {"plain"}


# --- the pieces ---


def test_unpacking_goes_on_by_stretches(tmp_path: Path) -> None:
    """Each stretch ends soon behind its limit; after the last one all is written."""
    data = bytes(2 * WRITE_STRETCH_BYTES) + PLAIN
    unpacking = GunzipWriter([gzip.compress(data, 1, mtime=0)], entry(tmp_path / "a"))
    sizes = [0]
    while unpacking.write_next():
        sizes.append(unpacking.size)
    assert len(sizes) == 3
    assert all(WRITE_STRETCH_BYTES <= after - before < 2 * WRITE_STRETCH_BYTES for before, after in pairwise(sizes))
    assert (unpacking.size, unpacking.sha256) == (len(data), hashlib.sha256(data).digest())
    assert (tmp_path / "a").read_bytes() == data
    unpacking.close()


def test_a_broken_payload_leaves_nothing(tmp_path: Path) -> None:
    """What cannot be unpacked is damaged, and no file is left."""
    with pytest.raises(BlobDamaged):
        gunzip_to_file([PACKED[:-4]], entry(tmp_path / "a"), None)
    assert list(tmp_path.iterdir()) == []


def test_symlinks_are_not_followed(tmp_path: Path) -> None:
    """Neither to read what is packed nor to write what is unpacked."""
    (tmp_path / "real").write_bytes(PACKED)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert is_gzip_file(entry(tmp_path / "real"))
    link = entry(tmp_path / "link")
    for work in (lambda: is_gzip_file(link), lambda: list(read_chunks(link))):
        with pytest.raises(OSError, match="a symlink stands where a file is needed"):
            work()
    GunzipWriter([], link).close()  # what stood there gives way to a new file
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == PACKED
