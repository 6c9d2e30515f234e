"""Conformance tests of a destination: the behaviour that the jobs rely on, for every store."""

import asyncio
import hashlib
import json
import random
from collections.abc import Awaitable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeVar

import pytest

from tilesync.core.manifest import encode_line
from tilesync.errors import BlobDamaged, DestinationError, UnsafeName
from tilesync.model import Blob, Digests, ExportFacts, FileResult, SasUrl, StoredFile, Version, VersionSummary
from tilesync.protocols import Destination, Draft
from tilesync.stores import presence_pages
from tilesync.stores.s3 import objects as s3_whole

T = TypeVar("T")

SAMPLE_VERSION = Version(
    0,
    "e1",
    "e1",
    facts=ExportFacts(imodel="i", changeset="c", modified="2026-03-01T08:30:00Z", record={"id": "e1"}),
    summary=VersionSummary(published_at="t", files=1, bytes=1),
)
BIG_BYTES = random.Random(1).randbytes((3 << 20) + 17)
FILE_SIZES = [0, 1, 65_536, 1 << 20, (1 << 20) + 1, len(BIG_BYTES)]


class OpenDestination(Protocol):
    """Opens the same destination several times, as separate runs do."""

    def __call__(self) -> AbstractContextManager[Destination]:
        """Open the destination; it closes with the context."""


def digests_of(data: bytes) -> Digests:
    return Digests(len(data), hashlib.sha256(data).digest(), hashlib.md5(data, usedforsecurity=False).digest())


def reject_bytes(chunk: bytes) -> object:
    """Ignore the bytes."""
    raise AssertionError(chunk)


def blob(name: str, data: bytes, etag: str = "0x8D", **more: Any) -> Blob:
    return Blob(name, len(data), etag, **more)


async def put_file(destination: Destination, item: Blob, data: bytes, *, step: int = 300_000) -> StoredFile:
    draft, checked = destination.files.draft(SAMPLE_VERSION, item), bytearray()
    await draft.restart()
    for start in range(0, len(data), step):
        piece = memoryview(data)[start : start + step]
        await draft.append(piece, partial(checked.extend, piece))
    assert checked == data
    return await draft.commit(digests_of(data))


async def read_draft(draft: Draft) -> bytes:
    return b"".join([chunk async for chunk in draft.received_chunks()]) if draft.received_bytes else b""


def run_async(work: Awaitable[T]) -> T:
    async def main() -> T:
        return await work

    return asyncio.run(main())


class DestinationContract:
    """Tests for every destination; a subclass provides the fixture `opening`."""

    @pytest.fixture
    def opening(self) -> OpenDestination:
        raise NotImplementedError

    # --- drafts ---

    @pytest.mark.parametrize("size", FILE_SIZES)
    @pytest.mark.parametrize("step", [1 << 16, 1 << 21])
    def test_committed_files_are_stored_byte_for_byte(self, opening: OpenDestination, size: int, step: int) -> None:
        """A file of any size, written in any steps, is stored byte for byte; reading and measuring confirm it."""
        data = BIG_BYTES[:size]
        with opening() as there:
            stored = run_async(put_file(there, blob("a/b c/ä%20.bin", data), data, step=step))
            assert stored.blob._replace(md5=None) == blob("a/b c/ä%20.bin", data)
            assert stored.sha256 == digests_of(data).sha256
            assert there.files.size(SAMPLE_VERSION, "a/b c/ä%20.bin") == size
            assert there.files.read(SAMPLE_VERSION, "a/b c/ä%20.bin") == data
            result = there.files.digest(SAMPLE_VERSION, "a/b c/ä%20.bin")
            assert result == digests_of(data).sha256
            assert there.files.unchanged(SAMPLE_VERSION, [stored]) == [True]
            pieces: list[bytes] = []
            assert there.files.read_into(SAMPLE_VERSION, "a/b c/ä%20.bin", pieces.append) == (
                stored.mtime_ns,
                stored.inode,
            )
            assert b"".join(pieces) == data
            assert b"".join(there.files.chunks(SAMPLE_VERSION, "a/b c/ä%20.bin")) == data
            assert all(pieces)
            for offset in {1, size // 2} & set(range(size)):
                assert b"".join(there.files.chunks(SAMPLE_VERSION, "a/b c/ä%20.bin", offset=offset)) == data[offset:]

    def test_a_draft_counts_its_bytes(self, opening: OpenDestination) -> None:
        """A draft counts its bytes from zero."""
        with opening() as there:
            draft = there.files.draft(SAMPLE_VERSION, blob("a", BIG_BYTES))
            counts = [draft.received_bytes]

            async def work() -> None:
                for start in range(0, len(BIG_BYTES), 1 << 20):
                    await draft.append(BIG_BYTES[start : start + (1 << 20)])
                    counts.append(draft.received_bytes)
                await draft.restart()
                counts.append(draft.received_bytes)

            run_async(work())
            assert counts == [0, 1 << 20, 2 << 20, 3 << 20, len(BIG_BYTES), 0]

    @pytest.mark.parametrize("size", [10, len(BIG_BYTES)])
    def test_nothing_is_visible_before_commit(self, opening: OpenDestination, size: int) -> None:
        """A file is not visible before it is committed, however many bytes have arrived."""
        with opening() as there:
            draft = there.files.draft(SAMPLE_VERSION, blob("a/b", BIG_BYTES[:size]))
            run_async(draft.append(BIG_BYTES[:size]))
            assert there.files.size(SAMPLE_VERSION, "a/b") is None
            run_async(draft.suspend())
            assert there.files.size(SAMPLE_VERSION, "a/b") is None
            assert there.files.digest(SAMPLE_VERSION, "a/b") is None

    @pytest.mark.parametrize("size", [10, len(BIG_BYTES)])
    def test_the_old_file_stays_until_commit(self, opening: OpenDestination, size: int) -> None:
        """A replaced file keeps its old bytes until the new ones are committed."""
        with opening() as there:
            old = run_async(put_file(there, blob("a", b"old", "1"), b"old"))
            draft = there.files.draft(SAMPLE_VERSION, blob("a", BIG_BYTES[:size], "2"))
            run_async(draft.append(BIG_BYTES[:size]))
            assert there.files.read(SAMPLE_VERSION, "a") == b"old"
            run_async(draft.commit(digests_of(BIG_BYTES[:size])))
            assert there.files.read(SAMPLE_VERSION, "a") == BIG_BYTES[:size]
            assert there.files.unchanged(SAMPLE_VERSION, [old]) == [False]

    @pytest.mark.parametrize("first", [10, 1 << 20, (2 << 20) + 5])
    def test_restart_discards_earlier_bytes(self, opening: OpenDestination, first: int) -> None:
        """After a restart of a draft, the file has only the bytes written since."""
        with opening() as there:
            draft = there.files.draft(SAMPLE_VERSION, blob("a", b"x" * 50))

            async def work() -> None:
                await draft.append(BIG_BYTES[:first])
                await draft.restart()
                await draft.restart()
                await draft.append(b"x" * 50)
                await draft.commit(digests_of(b"x" * 50))

            run_async(work())
            assert there.files.read(SAMPLE_VERSION, "a") == b"x" * 50

    def test_suspend_after_commit_does_nothing(self, opening: OpenDestination) -> None:
        """A committed draft may be suspended: the file stays, and nothing is continued."""
        with opening() as there:
            draft = there.files.draft(SAMPLE_VERSION, blob("a", BIG_BYTES))

            async def work() -> None:
                await draft.append(BIG_BYTES)
                await draft.commit(digests_of(BIG_BYTES))
                await draft.suspend()

            run_async(work())
            assert there.files.read(SAMPLE_VERSION, "a") == BIG_BYTES
            assert there.files.draft(SAMPLE_VERSION, blob("a", BIG_BYTES)).received_bytes == 0

    def test_many_drafts_at_once(self, opening: OpenDestination) -> None:
        """Files written at the same time do not mix."""
        with opening() as there:
            contents = {f"{n % 3}/{n}": BIG_BYTES[n * 1000 : n * 1000 + (n % 4) * 600_000 + n] for n in range(40)}

            async def work() -> None:
                async with asyncio.TaskGroup() as group:
                    for name, data in contents.items():
                        group.create_task(put_file(there, blob(name, data), data))

            run_async(work())
            assert {name: there.files.read(SAMPLE_VERSION, name) for name in contents} == contents

    # --- small files ---

    @pytest.mark.parametrize("size", [0, 1, 300_000])
    def test_a_small_file_is_put_at_once(self, opening: OpenDestination, size: int) -> None:
        """A file put with valid bytes replaces the old one, and has the digest of the check."""
        data = BIG_BYTES[:size]
        with opening() as there:
            run_async(put_file(there, blob("a/b", b"old", "1"), b"old"))
            stored = run_async(there.files.put(SAMPLE_VERSION, blob("a/b", data), data, digests_of))
            assert (stored.blob._replace(md5=None), stored.sha256) == (blob("a/b", data), digests_of(data).sha256)
            assert there.files.read(SAMPLE_VERSION, "a/b") == data
            assert there.files.unchanged(SAMPLE_VERSION, [stored]) == [True]

    def test_a_put_with_invalid_bytes_changes_nothing(self, opening: OpenDestination) -> None:
        """A put with invalid bytes changes nothing; other puts at the same time succeed."""

        def refuse(data: bytes) -> Digests:
            raise BlobDamaged("no")

        async def work(there: Destination) -> list[StoredFile | BaseException]:
            files = there.files
            return await asyncio.gather(
                files.put(SAMPLE_VERSION, blob("a", b"new"), b"new", refuse),
                *(files.put(SAMPLE_VERSION, blob(f"b/{n}", b"%d" % n), b"%d" % n, digests_of) for n in range(100)),
                return_exceptions=True,
            )

        with opening() as there:
            run_async(put_file(there, blob("a", b"old", "1"), b"old"))
            first, *others = run_async(work(there))
            assert isinstance(first, BlobDamaged)
            assert all(isinstance(other, StoredFile) for other in others)
            assert there.files.read(SAMPLE_VERSION, "a") == b"old"
            assert [there.files.read(SAMPLE_VERSION, f"b/{n}") for n in range(100)] == [b"%d" % n for n in range(100)]

    def test_a_suspended_draft_is_no_file(self, opening: OpenDestination) -> None:
        """An uncommitted file does not exist for a later run, which writes the whole content."""
        item = blob("a/b", BIG_BYTES)
        with opening() as there:
            there.mark_intact()

            async def work() -> None:
                draft = there.files.draft(SAMPLE_VERSION, item)
                await draft.append(BIG_BYTES[:2_000_000])
                await draft.suspend()

            run_async(work())
        with opening() as there:
            assert there.files.size(SAMPLE_VERSION, "a/b") is None
            assert run_async(put_file(there, item, BIG_BYTES)).sha256 == digests_of(BIG_BYTES).sha256
            assert there.files.read(SAMPLE_VERSION, "a/b") == BIG_BYTES

    # --- files ---

    def test_unchanged_detects_replaced_and_removed_files(self, opening: OpenDestination) -> None:
        """A file that was replaced or removed is reported as changed, in the order asked."""
        with opening() as there:
            before, replaced, removed = (
                run_async(put_file(there, blob(name, b"12"), b"12")) for name in ("k", "r", "x")
            )
            run_async(put_file(there, blob("r", b"123"), b"123"))
            there.files.remove(SAMPLE_VERSION, ["x"])
            assert there.files.unchanged(SAMPLE_VERSION, [removed, before, replaced]) == [False, True, False]

    def test_missing_files(self, opening: OpenDestination) -> None:
        """A missing file has no size and no digest, and removing it is no error."""
        with opening() as there:
            for name in ("a", "a/b/c"):
                assert there.files.size(SAMPLE_VERSION, name) is None
                assert there.files.digest(SAMPLE_VERSION, name) is None
                assert there.files.read_into(SAMPLE_VERSION, name, reject_bytes) is None
                with pytest.raises(DestinationError):
                    there.files.read(SAMPLE_VERSION, name)
                with pytest.raises(DestinationError):
                    next(there.files.chunks(SAMPLE_VERSION, name))
                there.files.remove(SAMPLE_VERSION, [name])
            run_async(put_file(there, blob("a/b", b"1"), b"1"))
            assert there.files.size(SAMPLE_VERSION, "a") is None

    def test_unsafe_names_are_reported_together(self, opening: OpenDestination) -> None:
        """One error names all unsafe names of a page; safe names pass."""
        with opening() as there:
            there.files.check_names(["a", "b/c", "ä b%2F"])
            with pytest.raises(UnsafeName) as error:
                there.files.check_names(["good", "../up", "a/./b", "a\\b"])
            assert all(repr(name) in str(error.value) for name in ("../up", "a/./b", "a\\b"))
            assert "good" not in str(error.value)

    def test_free_space(self, opening: OpenDestination) -> None:
        """The free space is a number of bytes, or unknown."""
        with opening() as there:
            room = there.files.free_bytes()
            assert room is None or room > 0

    # --- publication ---

    def test_nothing_is_published_at_first(self, opening: OpenDestination) -> None:
        """A new destination has no manifest, no pointer, and no latest version."""
        with opening() as there:
            assert there.publication.manifest_names() == []
            assert there.publication.pointer_digest() is None
            assert there.publication.latest() is None
            assert not there.publication.points_at(SAMPLE_VERSION, hashlib.sha256(b"").hexdigest())

    def published(self, there: Destination, version: Version, pointer: bytes) -> str:
        run_async(put_file(there, blob("tileset.json", pointer), pointer))
        digest = there.publication.write_manifest(
            version, map(encode_line, [{"version": version.name}, {"name": "ä\u2028"}])
        )
        there.publication.move_into_place(version, ["tileset.json"], "2026-03-01T08:30:00Z")
        latest = {"version": version.name, "manifest": f"manifests/{version.name}.jsonl"}
        there.publication.point_at(version, iter([pointer[:3], pointer[3:]]), latest)
        return digest

    def test_published_documents_are_read_back(self, opening: OpenDestination) -> None:
        """Manifest, pointer and latest version are read as written, also in a later run."""
        with opening() as there:
            self.published(there, SAMPLE_VERSION, b'{"root":{}}')
        with opening() as there:
            assert there.publication.manifest_names() == ["e1"]
            assert list(there.publication.manifest("e1")) == [{"version": "e1"}, {"name": "ä\u2028"}]
            assert there.publication.pointer_digest() == hashlib.sha256(b'{"root":{}}').hexdigest()
            assert there.publication.latest() == {"version": "e1", "manifest": "manifests/e1.jsonl"}

    def test_the_digest_is_of_the_manifest(self, opening: OpenDestination) -> None:
        """Writing a manifest returns its SHA-256; the same lines give the same digest, and are read byte for byte."""
        with opening() as there:
            lines = [{"version": "e1"}, {"name": "ä\u2028"}]
            data = b"".join(json.dumps(x, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for x in lines)
            digests = {there.publication.write_manifest(SAMPLE_VERSION, map(encode_line, lines)) for _ in range(2)}
            assert digests == {hashlib.sha256(data).hexdigest()}
            assert b"".join(there.publication.manifest_chunks("e1")) == data
            with pytest.raises(DestinationError, match="cannot read the manifest"):
                list(there.publication.manifest_chunks("e2"))

    def test_points_at(self, opening: OpenDestination) -> None:
        """The destination points at the version published last, with exactly the pointer that was written."""
        pointer, other = b'{"root":{}}', replace(SAMPLE_VERSION, name="e2")
        with opening() as there:
            self.published(there, SAMPLE_VERSION, pointer)
            assert there.publication.points_at(SAMPLE_VERSION, hashlib.sha256(pointer).hexdigest())
            assert there.publication.is_complete(SAMPLE_VERSION)
            assert not there.publication.points_at(SAMPLE_VERSION, hashlib.sha256(b"other").hexdigest())
            assert not there.publication.points_at(other, hashlib.sha256(pointer).hexdigest())

    def test_a_failed_pointer_write_changes_nothing(self, opening: OpenDestination) -> None:
        """A pointer whose write fails is not put in place; the published version stays. If the pointer is
        the root tileset itself, it is already in place.
        """

        def broken() -> Iterator[bytes]:
            yield b'{"root'
            raise BlobDamaged("the root tileset is damaged")

        pointer = b'{"root":{}}'
        with opening() as there:
            self.published(there, SAMPLE_VERSION, pointer)
            if there.publication.prefix(SAMPLE_VERSION):
                with pytest.raises(BlobDamaged):
                    there.publication.point_at(
                        replace(SAMPLE_VERSION, name="e2"), broken(), {"version": "e2", "manifest": "m"}
                    )
            assert there.publication.points_at(SAMPLE_VERSION, hashlib.sha256(pointer).hexdigest())
            assert there.publication.is_complete(SAMPLE_VERSION)

    def test_publishing_may_be_done_again(self, opening: OpenDestination) -> None:
        """Every step of publishing can be repeated with the same result."""
        pointer = b'{"root":{}}'
        with opening() as there:
            assert self.published(there, SAMPLE_VERSION, pointer) == self.published(there, SAMPLE_VERSION, pointer)
            assert there.publication.points_at(SAMPLE_VERSION, hashlib.sha256(pointer).hexdigest())
            assert there.publication.manifest_names() == ["e1"]

    # --- several versions ---

    NEXT_VERSION = replace(SAMPLE_VERSION, name="e2", export="e2")

    def test_a_file_is_shared_with_another_version(self, opening: OpenDestination) -> None:
        """A file of one version can be placed in another under any name; the original stays unchanged."""
        with opening() as there:
            stored = run_async(put_file(there, blob("a/b", b"12"), b"12"))
            (shared,) = there.files.share(self.NEXT_VERSION, [(blob("c/d", b"12", "0x9"), SAMPLE_VERSION, stored)])
            assert shared is not None
            assert (shared.blob.name, shared.blob.etag, shared.sha256) == ("c/d", "0x9", stored.sha256)
            assert there.files.read(self.NEXT_VERSION, "c/d") == there.files.read(SAMPLE_VERSION, "a/b") == b"12"
            assert there.files.unchanged(self.NEXT_VERSION, [shared]) == [True]
            assert there.files.unchanged(SAMPLE_VERSION, [stored]) == [True]

    def test_changed_files_are_not_shared(self, opening: OpenDestination) -> None:
        """A file that was replaced or removed is not shared, and nothing is placed."""
        with opening() as there:
            stored, gone = (run_async(put_file(there, blob(name, b"12"), b"12")) for name in ("a", "x"))
            run_async(put_file(there, blob("a", b"123"), b"123"))
            there.files.remove(SAMPLE_VERSION, ["x"])
            requests = [(blob("new", b"12"), SAMPLE_VERSION, each) for each in (stored, gone)]
            assert there.files.share(self.NEXT_VERSION, requests) == [None, None]
            assert there.files.size(self.NEXT_VERSION, "new") is None

    def test_names_of_a_version_are_listed(self, opening: OpenDestination) -> None:
        """All names in the folder of a version are listed, and none of another version."""
        with opening() as there:
            for name in ("a", "b/c", "ä %2F"):
                run_async(put_file(there, blob(name, b"1"), b"1"))
            assert sorted(there.files.names(SAMPLE_VERSION)) == ["a", "b/c", "ä %2F"]
            assert list(there.files.names(self.NEXT_VERSION)) == []

    def test_a_stamp_identifies_a_stored_file(self, opening: OpenDestination) -> None:
        """The stamp of a stored file is the recorded one, and differs for another file; a missing file has none."""
        with opening() as there:
            stored = run_async(put_file(there, blob("a", b"12"), b"12"))
            assert there.files.stamp(SAMPLE_VERSION, "a") == (stored.mtime_ns, stored.inode)
            assert there.files.stamp(SAMPLE_VERSION, "b") is None

    def test_presence_checks_report_changed_files(self, opening: OpenDestination) -> None:
        """Presence checks give the same result as before, and see later changes."""
        with opening() as there:
            stored = [run_async(put_file(there, blob(name, b"12"), b"12")) for name in ("a", "b", "ä %2F")]
            there.files.prepare_listing(SAMPLE_VERSION)
            assert [there.files.size(SAMPLE_VERSION, name) for name in ("a", "ä %2F", "c")] == [2, 2, None]
            assert there.files.stamp(SAMPLE_VERSION, "a") == (stored[0].mtime_ns, stored[0].inode)
            run_async(put_file(there, blob("a", b"123"), b"123"))
            there.files.remove(SAMPLE_VERSION, ["b"])
            assert [there.files.size(SAMPLE_VERSION, name) for name in ("a", "b")] == [3, None]

    def test_presence_checks_continue_from_their_position(
        self, opening: OpenDestination, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each presence check says where the next one starts. Together they cover all files once, and report the
        changed ones.
        """
        listing = SasUrl.listing_url
        monkeypatch.setattr(SasUrl, "listing_url", lambda sas, marker, **how: listing(sas, marker, page_size=2, **how))
        monkeypatch.setattr(s3_whole, "OBJECTS_PER_PAGE", 2)
        monkeypatch.setattr(presence_pages, "FILES_PER_PRESENCE_PAGE", 2)
        with opening() as there:
            stored = [run_async(put_file(there, blob(f"t/ä {n}", b"12"), b"12")) for n in range(7)]
            run_async(put_file(there, blob("t/ä 3", b"123"), b"123"))
            run_async(put_file(there, blob("t/unknown", b"12"), b"12"))
            version = there.catalog.add_version(SAMPLE_VERSION)
            there.catalog.add_stored_files(version, [FileResult(0, each) for each in stored])
            assert [each for page in there.files.changed_pages(version, there.catalog) for each in page] == [stored[3]]
            looks = [next(there.files.presence_pages(version, there.catalog, ""))]
            while looks[-1].cursor:
                looks.append(next(there.files.presence_pages(version, there.catalog, looks[-1].cursor)))
        assert (sum(look.files for look in looks), len(looks) >= 4) == (7, True)
        assert [each.blob.name for look in looks for each in look.doubtful] == ["t/ä 3"]

    def test_a_version_retires(self, opening: OpenDestination) -> None:
        """Its manifest is gone, that of the other version stays; it can be repeated. In the end its files are
        gone too, and until then no other version gets its name.
        """
        with opening() as there:
            for version in (SAMPLE_VERSION, self.NEXT_VERSION):
                there.publication.write_manifest(version, iter([encode_line({"version": version.name})]))
            run_async(put_file(there, blob("a", b"12"), b"12"))
            for _ in range(2):
                there.publication.retire(SAMPLE_VERSION, "2026-03-01T08:30:00Z")
            assert there.publication.manifest_names() == ["e2"]
            assert there.files.size(SAMPLE_VERSION, "a") is None or "e1" in there.publication.retired_names()
            there.publication.empty_trash("2026-03-01T08:30:00Z")
            there.publication.empty_trash("2026-03-09T08:30:00Z")
            there.publication.empty_trash("2026-03-09T08:30:00Z")
            assert there.files.size(SAMPLE_VERSION, "a") is None
            assert there.publication.manifest_names() == ["e2"]

    def test_laying_out_and_discarding(self, opening: OpenDestination) -> None:
        """Files of a finished version are where readers expect them. A discarded file is either gone and reported, or
        was never in the way.
        """
        with opening() as there:
            stored = run_async(put_file(there, blob("a/b", b"12"), b"12"))
            assert there.publication.find_blocked(SAMPLE_VERSION, iter(["a/b"])) == []
            for _ in range(2):
                assert there.publication.move_into_place(SAMPLE_VERSION, iter(["a/b"]), "2026-03-01T08:30:00Z") == []
                assert there.files.read(SAMPLE_VERSION, "a/b") == b"12"
            gone = there.publication.discard(self.NEXT_VERSION, iter([stored]), "2026-03-01T08:30:00Z")
            assert gone in ([], [stored])
            assert (there.files.size(SAMPLE_VERSION, "a/b") is None) == bool(gone)


class ResumableDestinationContract(DestinationContract):
    """Tests for a destination that keeps partial files for a later run."""

    def suspend_draft(self, opening: OpenDestination, item: Blob, data: bytes) -> None:
        with opening() as there:
            there.mark_intact()

            async def work() -> None:
                draft = there.files.draft(SAMPLE_VERSION, item)
                await draft.append(data)
                await draft.suspend()

            run_async(work())

    @pytest.mark.parametrize("first", [1, 1 << 20, (2 << 20) + 5])
    def test_a_suspended_draft_is_continued(self, opening: OpenDestination, first: int) -> None:
        """A later run continues with the bytes that an earlier one left, and the result is correct."""
        item = blob("a/b", BIG_BYTES)
        self.suspend_draft(opening, item, BIG_BYTES[:first])
        with opening() as there:
            assert there.files.has_part(SAMPLE_VERSION, item)
            assert not there.files.has_part(SAMPLE_VERSION, blob("a/c", BIG_BYTES))
            draft = there.files.draft(SAMPLE_VERSION, item)
            assert draft.received_bytes == first
            assert run_async(read_draft(draft)) == BIG_BYTES[:first]

            async def work() -> None:
                await draft.append(BIG_BYTES[first:])
                await draft.commit(digests_of(BIG_BYTES))

            run_async(work())
            assert there.files.read(SAMPLE_VERSION, "a/b") == BIG_BYTES

    def test_a_suspended_draft_is_continued_in_the_same_run(self, opening: OpenDestination) -> None:
        """A suspended draft is continued by the next draft of the same content, also within one run."""
        with opening() as there:
            item = blob("a", BIG_BYTES)

            async def work() -> bytes:
                for piece in (BIG_BYTES[: 1 << 20], BIG_BYTES[1 << 20 : 2 << 20]):
                    draft = there.files.draft(SAMPLE_VERSION, item)
                    await draft.append(piece)
                    await draft.suspend()
                return await read_draft(there.files.draft(SAMPLE_VERSION, item))

            assert run_async(work()) == BIG_BYTES[: 2 << 20]

    @pytest.mark.parametrize(
        "other",
        [
            (SAMPLE_VERSION, blob("a", BIG_BYTES, "2")),
            (SAMPLE_VERSION, blob("b", BIG_BYTES, "1")),
            (SAMPLE_VERSION, blob("a", BIG_BYTES, "1")._replace(size=len(BIG_BYTES) + 1)),
            (replace(SAMPLE_VERSION, name="e1-2"), blob("a", BIG_BYTES, "1")),
        ],
        ids=["etag", "name", "size", "version"],
    )
    def test_a_stale_part_is_never_continued(self, opening: OpenDestination, other: tuple[Version, Blob]) -> None:
        """Bytes of another ETag, name, size or version are not continued, and the new file has none of them."""
        self.suspend_draft(opening, blob("a", BIG_BYTES, "1"), b"stale" * 300_000)
        with opening() as there:
            draft = there.files.draft(*other)
            assert draft.received_bytes == 0

            async def work() -> None:
                await draft.append(BIG_BYTES)
                await draft.commit(digests_of(BIG_BYTES))

            run_async(work())
            assert there.files.read(other[0], other[1].name) == BIG_BYTES

    def test_a_continued_draft_may_restart(self, opening: OpenDestination) -> None:
        """Partial files of an earlier run can be discarded, and do not come back in this run or the next."""
        item = blob("a", BIG_BYTES)
        self.suspend_draft(opening, item, BIG_BYTES[: 2 << 20])
        with opening() as there:
            draft = there.files.draft(SAMPLE_VERSION, item)
            run_async(draft.restart())
            run_async(draft.suspend())
            assert there.files.draft(SAMPLE_VERSION, item).received_bytes == 0
        with opening() as there:
            assert there.files.draft(SAMPLE_VERSION, item).received_bytes == 0

    def test_a_whole_part_needs_no_more_bytes(self, opening: OpenDestination) -> None:
        """A complete draft of an earlier run is committed without another byte."""
        item = blob("a", BIG_BYTES)
        self.suspend_draft(opening, item, BIG_BYTES)
        with opening() as there:
            draft = there.files.draft(SAMPLE_VERSION, item)
            assert draft.received_bytes == len(BIG_BYTES)
            run_async(draft.commit(digests_of(BIG_BYTES)))
            assert there.files.read(SAMPLE_VERSION, "a") == BIG_BYTES
        with opening() as there:
            assert there.files.draft(SAMPLE_VERSION, item).received_bytes == 0

    @pytest.mark.parametrize("steps", range(1, 40, 3))
    def test_a_cancelled_append_leaves_the_start_of_the_content(self, opening: OpenDestination, steps: int) -> None:
        """A draft that is cancelled at any moment has the start of the content and nothing else."""
        item = blob("a", BIG_BYTES)
        with opening() as there:
            there.mark_intact()

            async def work() -> None:
                draft = there.files.draft(SAMPLE_VERSION, item)
                await draft.append(BIG_BYTES[:100])
                task = asyncio.create_task(draft.append(BIG_BYTES[100 : 2 << 20]))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                await draft.suspend()

            run_async(work())
        with opening() as there:
            draft = there.files.draft(SAMPLE_VERSION, item)
            assert BIG_BYTES.startswith(run_async(read_draft(draft)))
            assert draft.received_bytes in {100, 2 << 20}

    def test_cleanup_removes_partial_files(self, opening: OpenDestination) -> None:
        """After a cleanup no partial file is left, and stored files stay."""
        item = blob("a", BIG_BYTES)
        self.suspend_draft(opening, item, BIG_BYTES[: 1 << 20])
        with opening() as there:
            run_async(put_file(there, blob("b", b"b"), b"b"))
            there.files.remove_parts()
            assert there.files.draft(SAMPLE_VERSION, item).received_bytes == 0
            assert there.files.read(SAMPLE_VERSION, "b") == b"b"
