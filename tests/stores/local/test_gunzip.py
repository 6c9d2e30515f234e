"""Gzip payloads stored unpacked in a folder: writing, reuse, and cleanup after errors."""

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
from tilesync.errors import BlobDamaged
from tilesync.model import Blob, Content, FileResult, Layout, StoredFile, UnpackedFile, Version
from tilesync.runtime import gzip as gzip_module
from tilesync.stores.local.destination import LocalDestination, open_local
from tilesync.stores.local.directory_handles import DirectoryHandle, Entry
from tilesync.stores.local.gunzip import WRITE_STEP_BYTES, GunzipWriter, gunzip_to_file, is_gzip_file, read_chunks
from tilesync.stores.local.writer import LocalFiles

PLAIN = random.Random(7).randbytes(1_500_000)
PACKED = gzip.compress(PLAIN, 1, mtime=0)
STORED, DECODED = (
    replace(contract.SAMPLE_VERSION, serial=number, name=f"e{number}", content=content)
    for number, content in enumerate(Content, start=1)
)
DATE = 1772353800


def entry(path: Path) -> Entry:
    """Return a path as an entry of an open folder."""
    return DirectoryHandle(str(path.parent)).entry(path.name)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the version of the conformance suite store gzip payloads unpacked."""
    monkeypatch.setattr(contract, "SAMPLE_VERSION", replace(contract.SAMPLE_VERSION, content=Content.DECODED))


@pytest.mark.usefixtures("decoded")
class TestUnpackingFolder(ResumableDestinationContract):
    """A folder that stores gzip payloads unpacked."""

    @pytest.fixture
    def opening(self, tmp_path: Path) -> contract.OpenDestination:
        return lambda: open_local(tmp_path / "dest", state_dir=None)


@pytest.mark.scale
@pytest.mark.usefixtures("decoded")
class TestUnpackingFlatFolder(ResumableDestinationContract):
    """The same in the flat layout."""

    @pytest.fixture
    def opening(self, tmp_path: Path) -> contract.OpenDestination:
        return lambda: open_local(tmp_path / "dest", state_dir=None, layout=Layout.FLAT)


@pytest.fixture(params=list(Layout))
def destination(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[LocalDestination]:
    with open_local(tmp_path / "d", state_dir=None, layout=request.param) as destination:
        yield destination


async def commit(files: LocalFiles, version: Version, item: Blob, data: bytes) -> StoredFile:
    """Write a file through a part."""
    draft = files.draft(version, item)
    for offset in range(0, len(data), 300_000):
        await draft.append(data[offset : offset + 300_000])
    return await draft.commit(digests_of(data))


def put(files: LocalFiles, version: Version, item: Blob, data: bytes, *, small: bool = True) -> StoredFile:
    """Write a file in one of the two ways: at once, or through a part."""
    return run_async(files.put(version, item, data, digests_of) if small else commit(files, version, item, data))


def part_names(files: Any) -> list[str]:
    """List the files in the parts folder."""
    return sorted(os.listdir(files.put_target(STORED).parts.path))


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("version", [STORED, DECODED])
def test_gzip_payload_is_stored_as_the_version_needs(
    destination: LocalDestination, version: Version, small: bool
) -> None:
    """A gzip payload is stored unpacked in a decoded version, with the date of its blob; both sizes are known."""
    item = blob("a/b", PACKED, last_modified=DATE)
    stored = put(destination.files, version, item, PACKED, small=small)
    expected = PLAIN if version is DECODED else PACKED
    assert stored.blob == item
    assert stored.unpacked == (UnpackedFile(len(PLAIN), digests_of(PACKED).sha256) if version is DECODED else None)
    assert (stored.size, stored.sha256, stored.stored_sha256) == (
        len(expected),
        digests_of(expected).sha256,
        digests_of(PACKED).sha256,
    )
    assert destination.files.read(version, "a/b") == expected
    assert destination.files.digest(version, "a/b") == stored.sha256
    assert destination.files.unchanged(version, [stored]) == [True]
    assert stored.mtime_ns == DATE * 10**9
    assert [name for name in part_names(destination.files) if not name.startswith("case-")] == []


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("data", [b"", b"\x1f\x8b", b"\x1f\x8b\x07 other", b"plain", gzip.compress(b"", mtime=0)])
def test_data_that_is_not_gzip(destination: LocalDestination, data: bytes, small: bool) -> None:
    """Data that is not gzip is stored unchanged; an empty payload unpacks to an empty file."""
    stored = put(destination.files, DECODED, blob("a", data), data, small=small)
    is_gzip = len(data) > 10
    assert destination.files.read(DECODED, "a") == (b"" if is_gzip else data)
    assert (stored.unpacked is not None) == is_gzip


@pytest.mark.parametrize("small", [True, False])
def test_gzip_bomb_is_stored_packed(
    destination: LocalDestination, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A verified bomb is stored packed, never unpacked in part, and leaves no temporary file."""
    put(destination.files, DECODED, blob("a", b"old", "1"), b"old")
    monkeypatch.setattr(gzip_module, "MAX_UNPACKED_BYTES", 1_000_000)
    stored = put(destination.files, DECODED, blob("a", PACKED, "2"), PACKED, small=small)
    assert stored.unpacked is None
    assert destination.files.read(DECODED, "a") == PACKED
    assert part_names(destination.files) == []


@pytest.mark.scale
def test_unpacking_takes_little_memory(tmp_path: Path) -> None:
    """Unpacking needs a few hundred kilobytes of memory, whatever the unpacked size."""
    bomb = gzip.compress(bytes(200_000_000), mtime=0)
    tracemalloc.start()
    try:
        written = gunzip_to_file([bomb], entry(tmp_path / "a"), None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert written.size == (tmp_path / "a").stat().st_size == 200_000_000
    assert peak < 2_000_000


def test_a_cancelled_commit_leaves_the_part(destination: LocalDestination, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that is cancelled while it unpacks keeps the packed part, and nothing is under the final name."""
    data = gzip.compress(bytes(3 * WRITE_STEP_BYTES) + PLAIN, 1, mtime=0)
    item = blob("a", data)
    real, steps = GunzipWriter.write_next, list[int]()

    async def interrupted() -> None:
        task = asyncio.ensure_future(commit(destination.files, DECODED, item, data))

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
    assert destination.files.size(DECODED, "a") is None
    monkeypatch.undo()
    (part,) = part_names(destination.files)
    assert not part.endswith("unpacked")
    assert (Path(destination.files.put_target(DECODED).parts.path) / part).read_bytes() == data


def test_put_target_is_picklable(destination: LocalDestination) -> None:
    """A pickled put target of another process stores files as its version needs them."""
    for version in (STORED, DECODED):
        put_target = pickle.loads(pickle.dumps(destination.files.put_target(version)))
        stored = put_target.put_verified(version.name, blob("a", PACKED), PACKED, digests_of(PACKED))
        assert destination.files.unchanged(version, [stored]) == [True]
    assert (destination.files.read(STORED, "a"), destination.files.read(DECODED, "a")) == (PACKED, PLAIN)


# --- reuse of other versions' files ---


def catalog_version(destination: LocalDestination, version: Version, stored: StoredFile) -> Version:
    """Add a version with one stored file to the catalog."""
    added = destination.catalog.add_version(version)
    destination.catalog.add_stored_files(added, [FileResult(0, stored)])
    return added


@pytest.mark.parametrize("data", [PACKED, b"plain"], ids=["gzip", "plain"])
@pytest.mark.parametrize("source", [STORED, DECODED], ids=["from stored", "from decoded"])
@pytest.mark.parametrize("target", [STORED, DECODED], ids=["to stored", "to decoded"])
def test_reuse_between_contents(destination: LocalDestination, source: Version, target: Version, data: bytes) -> None:
    """Files of the same content are linked, stored ones unpacked if needed, unpacked ones never taken as stored."""
    target = replace(target, serial=9, name="e9")
    item = blob("a", data, last_modified=DATE)
    stored = put(destination.files, source, item, data)
    (shared,) = destination.files.share(target, [(item._replace(name="b"), source, stored)])
    if data is PACKED and (source.content, target.content) == (Content.DECODED, Content.STORED):
        assert shared is None
        assert destination.files.size(target, "b") is None
        return
    assert shared is not None
    expected = PLAIN if data is PACKED and target.content is Content.DECODED else data
    assert destination.files.read(target, "b") == expected
    assert destination.files.unchanged(target, [shared]) == [True]
    assert (shared.blob.name, shared.sha256, shared.stored_sha256) == (
        "b",
        digests_of(expected).sha256,
        digests_of(data).sha256,
    )
    assert shared.size == len(expected)
    is_same_content = data is not PACKED or source.content is target.content
    assert (shared.inode == stored.inode) == is_same_content
    assert destination.files.unchanged(source, [stored]) == [True]


def test_changed_file_is_not_unpacked(destination: LocalDestination) -> None:
    """A stored file whose bytes changed is not unpacked from, even if size and mtime are the same."""
    stored = put(destination.files, STORED, blob("a", PACKED, last_modified=DATE), PACKED)
    result = destination.files.find(STORED.name, "a")
    assert result is not None
    path = result[0].path
    for changed in (PACKED[:-1] + b"!", gzip.compress(PLAIN, 2, mtime=1)[: len(PACKED)].ljust(len(PACKED), b"\0")):
        Path(path).write_bytes(changed)
        os.utime(path, (DATE, DATE))
        assert destination.files.share(DECODED, [(stored.blob, STORED, stored)]) == [None]
        assert destination.files.size(DECODED, "a") is None
    assert part_names(destination.files) == []


def test_duplicates_of_both_contents(destination: LocalDestination) -> None:
    """Duplicates are found by the container's bytes; for an unpacked version, those of the same content come first."""
    item = blob("a", PACKED, md5=digests_of(PACKED).md5)
    older = catalog_version(destination, STORED, put(destination.files, STORED, item, PACKED))
    stored = put(destination.files, DECODED, item, PACKED)
    decoded = catalog_version(destination, DECODED, stored)
    newer = catalog_version(
        destination, replace(STORED, name="e3"), put(destination.files, replace(STORED, name="e3"), item, PACKED)
    )
    claimed = item._replace(sha256=digests_of(PACKED).sha256)
    for blob_item in (item, claimed):
        for content, expected in ((Content.STORED, newer), (Content.DECODED, decoded)):
            wanted_version = replace(STORED, serial=99, content=content)
            (duplicate,) = destination.catalog.duplicates.find_by_digest(wanted_version, [blob_item])["a"]
            assert (duplicate.version.serial, duplicate.stored.stored_sha256) == (
                expected.serial,
                digests_of(PACKED).sha256,
            )
            duplicates = destination.catalog.duplicates.find_by_digest(wanted_version, [blob_item], all_versions=True)[
                "a"
            ]
            unpacked = {decoded.serial} if content is Content.DECODED else set()
            assert {duplicate.version.serial for duplicate in duplicates} == {older.serial, newer.serial} | unpacked
    (read,) = destination.catalog.find_stored(decoded, ["a"]).values()
    assert read == stored
    assert (
        destination.catalog.duplicates.find_by_digest(
            replace(DECODED, serial=99), [item._replace(sha256=stored.sha256)]
        )
        == {}
    )
    totals = destination.catalog.compute_totals(decoded)
    assert (totals.stored_bytes, totals.growth_bytes) == (len(PACKED), len(PLAIN) - len(PACKED))


def test_wanted_blob_has_the_digest_of_its_packed_bytes(destination: LocalDestination) -> None:
    """A damaged file is requested with the SHA-256 of its packed bytes, and is whole when it is stored again."""
    item = blob("a", PACKED)
    stored = put(destination.files, DECODED, item, PACKED)
    version = catalog_version(destination, DECODED, stored)
    destination.catalog.mark_wanted(version, ["a"], include_linked=True)
    ((number, wanted),) = destination.catalog.list_wanted(version, 0, limit=2)
    assert wanted == item._replace(sha256=digests_of(PACKED).sha256)
    assert destination.catalog.duplicates.count_reusable_bytes(version) == 0
    destination.catalog.mark_stored(version, [FileResult(number, stored)])
    assert destination.catalog.find_stored(version, ["a"]) == {"a": stored}
    destination.catalog.mark_wanted(version, ["a"])
    plain = StoredFile(blob("a", b"x"), b"p" * 32, 1, 2)
    destination.catalog.mark_stored(version, [FileResult(number, plain)])
    assert destination.catalog.find_stored(version, ["a"]) == {"a": plain}


def test_find_present_leaves_out_gzip(destination: LocalDestination) -> None:
    """Without a catalog, gzip files do not count as present where gzip is to be stored unpacked."""
    for version in (STORED, DECODED):
        for name, data in (("gzip", PACKED), ("plain", b"plain")):
            put(destination.files, replace(version, content=Content.STORED), blob(name, data), data)
    blobs = [blob("gzip", PACKED, md5=b"m"), blob("plain", b"plain", md5=b"m"), blob("none", b"", md5=b"m")]
    assert destination.files.find_present(STORED, blobs) == {"gzip", "plain"}
    assert destination.files.find_present(DECODED, blobs) == {"plain"}


# --- the writer and the functions ---


def test_unpacking_in_steps(tmp_path: Path) -> None:
    """Each step ends soon after its limit; after the last one everything is written."""
    data = bytes(2 * WRITE_STEP_BYTES) + PLAIN
    writer = GunzipWriter([gzip.compress(data, 1, mtime=0)], entry(tmp_path / "a"))
    sizes = [0]
    while writer.write_next():
        sizes.append(writer.size)
    assert len(sizes) == 3
    assert all(WRITE_STEP_BYTES <= after - before < 2 * WRITE_STEP_BYTES for before, after in pairwise(sizes))
    assert (writer.size, writer.sha256) == (len(data), hashlib.sha256(data).digest())
    assert (tmp_path / "a").read_bytes() == data
    writer.close()


def test_broken_payload_leaves_no_file(tmp_path: Path) -> None:
    """A broken payload raises BlobDamaged and leaves no file."""
    with pytest.raises(BlobDamaged):
        gunzip_to_file([PACKED[:-4]], entry(tmp_path / "a"), None)
    assert list(tmp_path.iterdir()) == []


def test_symlinks_are_not_followed(tmp_path: Path) -> None:
    """Symlinks are not followed, neither to read a payload nor to write the unpacked file."""
    (tmp_path / "real").write_bytes(PACKED)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert is_gzip_file(entry(tmp_path / "real"))
    link = entry(tmp_path / "link")
    for action in (lambda: is_gzip_file(link), lambda: list(read_chunks(link))):
        with pytest.raises(OSError, match="a symlink where a file is needed"):
            action()
    GunzipWriter([], link).close()  # what stood there gives way to a new file
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == PACKED
