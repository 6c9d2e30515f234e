"""The conformance suite of a destination: what the jobs may rely on, whatever the store."""

import asyncio
import hashlib
import json
import random
from collections.abc import Awaitable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import pytest

from tilesync.errors import BlobDamaged, DestinationError, UnsafeName
from tilesync.model import Arrival, Blob, Held, Proof, SasUrl, Version
from tilesync.protocols import Destination, Draft
from tilesync.stores.local import reader as held_files
from tilesync.stores.s3 import objects as s3_whole

T = TypeVar("T")

VERSION = Version(0, "e1", "e1", "i", "c", "2026-03-01T08:30:00Z", {"id": "e1"}, files=1, bytes=1, published="t")
BIG = random.Random(1).randbytes((3 << 20) + 17)
SIZES = [0, 1, 65_536, 1 << 20, (1 << 20) + 1, len(BIG)]


class Open(Protocol):
    """Opens the same destination again and again, each time as a new run does."""

    def __call__(self) -> AbstractContextManager[Destination]:
        """The destination, closed with the context."""


def proof(data: bytes) -> Proof:
    return Proof(len(data), hashlib.sha256(data).digest(), hashlib.md5(data, usedforsecurity=False).digest())


def never(chunk: bytes) -> object:
    """Take no bytes."""
    raise AssertionError(chunk)


def blob(name: str, data: bytes, etag: str = "0x8D", **more: Any) -> Blob:
    return Blob(name, len(data), etag, **more)


async def put(destination: Destination, item: Blob, data: bytes, *, step: int = 300_000) -> Held:
    draft = destination.files.draft(VERSION, item)
    await draft.restart()
    for start in range(0, len(data), step):
        await draft.append(data[start : start + step])
    return await draft.commit(proof(data))


async def bytes_of(draft: Draft) -> bytes:
    return b"".join([chunk async for chunk in draft.prefix()]) if draft.held else b""


def run(work: Awaitable[T]) -> T:
    async def main() -> T:
        return await work

    return asyncio.run(main())


class DestinationContract:
    """A subclass gives the fixture `opening`."""

    @pytest.fixture
    def opening(self) -> Open:
        raise NotImplementedError

    # --- drafts ---

    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("step", [1 << 16, 1 << 21])
    def test_what_is_committed_is_held(self, opening: Open, size: int, step: int) -> None:
        """A file of any size, appended in any steps, is held to the byte, as reading and measuring tell."""
        data = BIG[:size]
        with opening() as there:
            held = run(put(there, blob("a/b c/ä%20.bin", data), data, step=step))
            assert held.blob._replace(md5=None) == blob("a/b c/ä%20.bin", data)
            assert held.sha256 == proof(data).sha256
            assert there.files.size(VERSION, "a/b c/ä%20.bin") == size
            assert there.files.read(VERSION, "a/b c/ä%20.bin") == data
            found = there.files.digest(VERSION, "a/b c/ä%20.bin")
            assert found == proof(data).sha256
            assert there.files.unchanged(VERSION, [held]) == [True]
            pieces: list[bytes] = []
            assert there.files.feed(VERSION, "a/b c/ä%20.bin", pieces.append) == (held.mtime_ns, held.inode)
            assert b"".join(pieces) == data
            assert b"".join(there.files.chunks(VERSION, "a/b c/ä%20.bin")) == data
            assert all(pieces)
            for offset in {1, size // 2} & set(range(size)):
                assert b"".join(there.files.chunks(VERSION, "a/b c/ä%20.bin", offset=offset)) == data[offset:]

    def test_held_counts_what_is_in(self, opening: Open) -> None:
        """A draft counts its bytes as they come, and begins with none."""
        with opening() as there:
            draft = there.files.draft(VERSION, blob("a", BIG))
            counts = [draft.held]

            async def work() -> None:
                for start in range(0, len(BIG), 1 << 20):
                    await draft.append(BIG[start : start + (1 << 20)])
                    counts.append(draft.held)
                await draft.restart()
                counts.append(draft.held)

            run(work())
            assert counts == [0, 1 << 20, 2 << 20, 3 << 20, len(BIG), 0]

    @pytest.mark.parametrize("size", [10, len(BIG)])
    def test_nothing_is_visible_before_commit(self, opening: Open, size: int) -> None:
        """Until it is committed a file is not there, under its name or in what is held, however much has come."""
        with opening() as there:
            draft = there.files.draft(VERSION, blob("a/b", BIG[:size]))
            run(draft.append(BIG[:size]))
            assert there.files.size(VERSION, "a/b") is None
            run(draft.suspend())
            assert there.files.size(VERSION, "a/b") is None
            assert there.files.digest(VERSION, "a/b") is None

    @pytest.mark.parametrize("size", [10, len(BIG)])
    def test_the_old_file_stands_until_commit(self, opening: Open, size: int) -> None:
        """A file that is replaced keeps its bytes until the new ones are committed, then has those alone."""
        with opening() as there:
            old = run(put(there, blob("a", b"old", "1"), b"old"))
            draft = there.files.draft(VERSION, blob("a", BIG[:size], "2"))
            run(draft.append(BIG[:size]))
            assert there.files.read(VERSION, "a") == b"old"
            run(draft.commit(proof(BIG[:size])))
            assert there.files.read(VERSION, "a") == BIG[:size]
            assert there.files.unchanged(VERSION, [old]) == [False]

    @pytest.mark.parametrize("first", [10, 1 << 20, (2 << 20) + 5])
    def test_restart_forgets(self, opening: Open, first: int) -> None:
        """After a restart only what comes then is in the file."""
        with opening() as there:
            draft = there.files.draft(VERSION, blob("a", b"x" * 50))

            async def work() -> None:
                await draft.append(BIG[:first])
                await draft.restart()
                await draft.restart()
                await draft.append(b"x" * 50)
                await draft.commit(proof(b"x" * 50))

            run(work())
            assert there.files.read(VERSION, "a") == b"x" * 50

    def test_suspend_after_commit_does_nothing(self, opening: Open) -> None:
        """A draft that was committed may be suspended: the file stands, and nothing is continued."""
        with opening() as there:
            draft = there.files.draft(VERSION, blob("a", BIG))

            async def work() -> None:
                await draft.append(BIG)
                await draft.commit(proof(BIG))
                await draft.suspend()

            run(work())
            assert there.files.read(VERSION, "a") == BIG
            assert there.files.draft(VERSION, blob("a", BIG)).held == 0

    def test_many_drafts_at_once(self, opening: Open) -> None:
        """Files that come at the same time do not mix."""
        with opening() as there:
            contents = {f"{n % 3}/{n}": BIG[n * 1000 : n * 1000 + (n % 4) * 600_000 + n] for n in range(40)}

            async def work() -> None:
                async with asyncio.TaskGroup() as group:
                    for name, data in contents.items():
                        group.create_task(put(there, blob(name, data), data))

            run(work())
            assert {name: there.files.read(VERSION, name) for name in contents} == contents

    # --- small files ---

    @pytest.mark.parametrize("size", [0, 1, 300_000])
    def test_a_small_file_is_put_at_once(self, opening: Open, size: int) -> None:
        """Once its bytes are proven a file is held to the byte, replacing what was there, with the proof's digest."""
        data = BIG[:size]
        with opening() as there:
            run(put(there, blob("a/b", b"old", "1"), b"old"))
            held = run(there.files.put(VERSION, blob("a/b", data), data, proof))
            assert (held.blob._replace(md5=None), held.sha256) == (blob("a/b", data), proof(data).sha256)
            assert there.files.read(VERSION, "a/b") == data
            assert there.files.unchanged(VERSION, [held]) == [True]

    def test_what_is_not_proven_is_not_put(self, opening: Open) -> None:
        """Bytes that do not check leave everything as it was; others that are put at the same time are held."""

        def refuse(data: bytes) -> Proof:
            raise BlobDamaged("no")

        async def work(there: Destination) -> list[Held | BaseException]:
            files = there.files
            return await asyncio.gather(
                files.put(VERSION, blob("a", b"new"), b"new", refuse),
                *(files.put(VERSION, blob(f"b/{n}", b"%d" % n), b"%d" % n, proof) for n in range(100)),
                return_exceptions=True,
            )

        with opening() as there:
            run(put(there, blob("a", b"old", "1"), b"old"))
            first, *others = run(work(there))
            assert isinstance(first, BlobDamaged)
            assert all(isinstance(other, Held) for other in others)
            assert there.files.read(VERSION, "a") == b"old"
            assert [there.files.read(VERSION, f"b/{n}") for n in range(100)] == [b"%d" % n for n in range(100)]

    def test_a_suspended_draft_is_no_file(self, opening: Open) -> None:
        """What was not committed is no file for a later run, which brings the whole content in."""
        item = blob("a/b", BIG)
        with opening() as there:
            there.settle()

            async def work() -> None:
                draft = there.files.draft(VERSION, item)
                await draft.append(BIG[:2_000_000])
                await draft.suspend()

            run(work())
        with opening() as there:
            assert there.files.size(VERSION, "a/b") is None
            assert run(put(there, item, BIG)).sha256 == proof(BIG).sha256
            assert there.files.read(VERSION, "a/b") == BIG

    # --- files ---

    def test_unchanged_sees_what_became_of_a_file(self, opening: Open) -> None:
        """A file that was replaced or removed is not the one that was left, and each is answered in its place."""
        with opening() as there:
            kept, replaced, removed = (run(put(there, blob(name, b"12"), b"12")) for name in ("k", "r", "x"))
            run(put(there, blob("r", b"123"), b"123"))
            there.files.remove(VERSION, ["x"])
            assert there.files.unchanged(VERSION, [removed, kept, replaced]) == [False, True, False]

    def test_missing_files(self, opening: Open) -> None:
        """A file that is not there has no size and no digest, and removing it is no error."""
        with opening() as there:
            for name in ("a", "a/b/c"):
                assert there.files.size(VERSION, name) is None
                assert there.files.digest(VERSION, name) is None
                assert there.files.feed(VERSION, name, never) is None
                with pytest.raises(DestinationError):
                    there.files.read(VERSION, name)
                with pytest.raises(DestinationError):
                    next(there.files.chunks(VERSION, name))
                there.files.remove(VERSION, [name])
            run(put(there, blob("a/b", b"1"), b"1"))
            assert there.files.size(VERSION, "a") is None

    def test_names_are_judged_together(self, opening: Open) -> None:
        """All unsafe names of a page are named in one error, and good ones pass."""
        with opening() as there:
            there.files.judge(["a", "b/c", "ä b%2F"])
            with pytest.raises(UnsafeName) as error:
                there.files.judge(["good", "../up", "a/./b", "a\\b"])
            assert all(repr(name) in str(error.value) for name in ("../up", "a/./b", "a\\b"))
            assert "good" not in str(error.value)

    def test_room(self, opening: Open) -> None:
        """The room left is a number of bytes, or not known."""
        with opening() as there:
            room = there.files.free()
            assert room is None or room > 0

    # --- publication ---

    def test_nothing_is_published_at_first(self, opening: Open) -> None:
        """A new destination has no manifest, no pointer, and no latest version."""
        with opening() as there:
            assert there.publication.manifest_names() == []
            assert there.publication.pointer() is None
            assert there.publication.latest() is None
            assert not there.publication.points_at(VERSION, hashlib.sha256(b"").hexdigest())

    def published(self, there: Destination, version: Version, pointer: bytes) -> str:
        run(put(there, blob("tileset.json", pointer), pointer))
        digest = there.publication.write_manifest(version, iter([{"version": version.name}, {"name": "ä\u2028"}]))
        there.publication.lay_out(version, ["tileset.json"], "2026-03-01T08:30:00Z")
        latest = {"version": version.name, "manifest": f"manifests/{version.name}.jsonl"}
        there.publication.point_at(version, iter([pointer[:3], pointer[3:]]), latest)
        return digest

    def test_what_is_published_is_read_back(self, opening: Open) -> None:
        """Manifest, pointer and latest come back as they were written, also in a later run."""
        with opening() as there:
            self.published(there, VERSION, b'{"root":{}}')
        with opening() as there:
            assert there.publication.manifest_names() == ["e1"]
            assert list(there.publication.manifest("e1")) == [{"version": "e1"}, {"name": "ä\u2028"}]
            assert there.publication.pointer() == hashlib.sha256(b'{"root":{}}').hexdigest()
            assert there.publication.latest() == {"version": "e1", "manifest": "manifests/e1.jsonl"}

    def test_the_digest_is_of_the_manifest(self, opening: Open) -> None:
        """Writing a manifest gives its SHA-256, and the same lines give the same."""
        with opening() as there:
            lines = [{"version": "e1"}, {"name": "ä\u2028"}]
            data = b"".join(json.dumps(x, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for x in lines)
            digests = {there.publication.write_manifest(VERSION, iter(lines)) for _ in range(2)}
            assert digests == {hashlib.sha256(data).hexdigest()}

    def test_points_at(self, opening: Open) -> None:
        """A destination points at the version that was published last, with the very pointer that was written."""
        pointer, other = b'{"root":{}}', replace(VERSION, name="e2")
        with opening() as there:
            self.published(there, VERSION, pointer)
            assert there.publication.points_at(VERSION, hashlib.sha256(pointer).hexdigest())
            assert there.publication.complete(VERSION)
            assert not there.publication.points_at(VERSION, hashlib.sha256(b"other").hexdigest())
            assert not there.publication.points_at(other, hashlib.sha256(pointer).hexdigest())

    def test_a_pointer_that_breaks_off_moves_nothing(self, opening: Open) -> None:
        """A pointer whose bytes end in an error is not put in place; what was published stays so. Where the pointer is
        the root tileset itself, it is in place already.
        """

        def broken() -> Iterator[bytes]:
            yield b'{"root'
            raise BlobDamaged("the root tileset is damaged")

        pointer = b'{"root":{}}'
        with opening() as there:
            self.published(there, VERSION, pointer)
            if there.publication.prefix(VERSION):
                with pytest.raises(BlobDamaged):
                    there.publication.point_at(
                        replace(VERSION, name="e2"), broken(), {"version": "e2", "manifest": "m"}
                    )
            assert there.publication.points_at(VERSION, hashlib.sha256(pointer).hexdigest())
            assert there.publication.complete(VERSION)

    def test_publishing_may_be_done_again(self, opening: Open) -> None:
        """Every step of publishing can be repeated, and leads to the same."""
        pointer = b'{"root":{}}'
        with opening() as there:
            assert self.published(there, VERSION, pointer) == self.published(there, VERSION, pointer)
            assert there.publication.points_at(VERSION, hashlib.sha256(pointer).hexdigest())
            assert there.publication.manifest_names() == ["e1"]

    # --- several versions ---

    NEXT = replace(VERSION, name="e2", export="e2")

    def test_a_file_is_shared_with_another_version(self, opening: Open) -> None:
        """What one version holds is placed in another under any name, and stays untouched where it was."""
        with opening() as there:
            held = run(put(there, blob("a/b", b"12"), b"12"))
            (shared,) = there.files.share(self.NEXT, [(blob("c/d", b"12", "0x9"), VERSION, held)])
            assert shared is not None
            assert (shared.blob.name, shared.blob.etag, shared.sha256) == ("c/d", "0x9", held.sha256)
            assert there.files.read(self.NEXT, "c/d") == there.files.read(VERSION, "a/b") == b"12"
            assert there.files.unchanged(self.NEXT, [shared]) == [True]
            assert there.files.unchanged(VERSION, [held]) == [True]

    def test_only_what_is_as_it_was_left_is_shared(self, opening: Open) -> None:
        """What was replaced or removed since is not shared, and nothing is placed."""
        with opening() as there:
            held, gone = (run(put(there, blob(name, b"12"), b"12")) for name in ("a", "x"))
            run(put(there, blob("a", b"123"), b"123"))
            there.files.remove(VERSION, ["x"])
            wishes = [(blob("new", b"12"), VERSION, each) for each in (held, gone)]
            assert there.files.share(self.NEXT, wishes) == [None, None]
            assert there.files.size(self.NEXT, "new") is None

    def test_what_lies_in_a_version(self, opening: Open) -> None:
        """Every name that lies in the folder of a version is told, and none of another version's."""
        with opening() as there:
            for name in ("a", "b/c", "ä %2F"):
                run(put(there, blob(name, b"1"), b"1"))
            assert sorted(there.files.names(VERSION)) == ["a", "b/c", "ä %2F"]
            assert list(there.files.names(self.NEXT)) == []

    def test_a_trace_tells_a_file_from_another(self, opening: Open) -> None:
        """The trace of a held file is the one that was recorded, and another for another file; none where none is."""
        with opening() as there:
            held = run(put(there, blob("a", b"12"), b"12"))
            assert there.files.trace(VERSION, "a") == (held.mtime_ns, held.inode)
            assert there.files.trace(VERSION, "b") is None

    def test_a_survey_tells_what_lies_there(self, opening: Open) -> None:
        """Looks give the same as before it, and what is changed here after it is seen."""
        with opening() as there:
            held = [run(put(there, blob(name, b"12"), b"12")) for name in ("a", "b", "ä %2F")]
            there.files.survey(VERSION)
            assert [there.files.size(VERSION, name) for name in ("a", "ä %2F", "c")] == [2, 2, None]
            assert there.files.trace(VERSION, "a") == (held[0].mtime_ns, held[0].inode)
            run(put(there, blob("a", b"123"), b"123"))
            there.files.remove(VERSION, ["b"])
            assert [there.files.size(VERSION, name) for name in ("a", "b")] == [3, None]

    def test_looks_go_on_from_their_place(self, opening: Open, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each look tells where the next one begins; together they are of all files, once, and doubt those that are
        others now.
        """
        listing = SasUrl.listing
        monkeypatch.setattr(SasUrl, "listing", lambda sas, marker, **how: listing(sas, marker, page_size=2, **how))
        monkeypatch.setattr(s3_whole, "PAGE", 2)
        monkeypatch.setattr(held_files, "AT_A_GLANCE", 2)
        with opening() as there:
            held = [run(put(there, blob(f"t/ä {n}", b"12"), b"12")) for n in range(7)]
            run(put(there, blob("t/ä 3", b"123"), b"123"))
            run(put(there, blob("t/unknown", b"12"), b"12"))
            version = there.catalog.begin(VERSION)
            there.catalog.add_held(version, [Arrival(0, each) for each in held])
            looks = [next(there.files.glances(version, there.catalog, ""))]
            while looks[-1].place:
                looks.append(next(there.files.glances(version, there.catalog, looks[-1].place)))
        assert (sum(look.files for look in looks), len(looks) >= 4) == (7, True)
        assert [each.blob.name for look in looks for each in look.doubtful] == ["t/ä 3"]

    def test_a_version_retires(self, opening: Open) -> None:
        """Its manifest is not there any more, the other version's is; it may be done again. In the end its files are
        not there either, and until then its name is no other's.
        """
        with opening() as there:
            for version in (VERSION, self.NEXT):
                there.publication.write_manifest(version, iter([{"version": version.name}]))
            run(put(there, blob("a", b"12"), b"12"))
            for _ in range(2):
                there.publication.retire(VERSION, "2026-03-01T08:30:00Z")
            assert there.publication.manifest_names() == ["e2"]
            assert there.files.size(VERSION, "a") is None or "e1" in there.publication.retired_names()
            there.publication.empty_trash("2026-03-01T08:30:00Z")
            there.publication.empty_trash("2026-03-09T08:30:00Z")
            there.publication.empty_trash("2026-03-09T08:30:00Z")
            assert there.files.size(VERSION, "a") is None
            assert there.publication.manifest_names() == ["e2"]

    def test_laying_out_and_discarding(self, opening: Open) -> None:
        """Files of a finished version are where they are looked for; what is thrown away is either gone and told, or
        was never in the way.
        """
        with opening() as there:
            held = run(put(there, blob("a/b", b"12"), b"12"))
            assert there.publication.blocked(VERSION, iter(["a/b"])) == []
            for _ in range(2):
                assert there.publication.lay_out(VERSION, iter(["a/b"]), "2026-03-01T08:30:00Z") == []
                assert there.files.read(VERSION, "a/b") == b"12"
            gone = there.publication.discard(self.NEXT, iter([held]), "2026-03-01T08:30:00Z")
            assert gone in ([], [held])
            assert (there.files.size(VERSION, "a/b") is None) == bool(gone)


class PartsContract(DestinationContract):
    """Of a destination that keeps what has come of a file for a later run."""

    def suspended(self, opening: Open, item: Blob, data: bytes) -> None:
        with opening() as there:
            there.settle()

            async def work() -> None:
                draft = there.files.draft(VERSION, item)
                await draft.append(data)
                await draft.suspend()

            run(work())

    @pytest.mark.parametrize("first", [1, 1 << 20, (2 << 20) + 5])
    def test_a_suspended_draft_is_continued(self, opening: Open, first: int) -> None:
        """A later run goes on with the bytes that an earlier one left, and the whole is right."""
        item = blob("a/b", BIG)
        self.suspended(opening, item, BIG[:first])
        with opening() as there:
            assert there.files.begun(VERSION, item)
            assert not there.files.begun(VERSION, blob("a/c", BIG))
            draft = there.files.draft(VERSION, item)
            assert draft.held == first
            assert run(bytes_of(draft)) == BIG[:first]

            async def work() -> None:
                await draft.append(BIG[first:])
                await draft.commit(proof(BIG))

            run(work())
            assert there.files.read(VERSION, "a/b") == BIG

    def test_a_suspended_draft_is_continued_in_the_same_run(self, opening: Open) -> None:
        """A draft that was suspended is continued by the next draft of the same content, also within one run."""
        with opening() as there:
            item = blob("a", BIG)

            async def work() -> bytes:
                for piece in (BIG[: 1 << 20], BIG[1 << 20 : 2 << 20]):
                    draft = there.files.draft(VERSION, item)
                    await draft.append(piece)
                    await draft.suspend()
                return await bytes_of(there.files.draft(VERSION, item))

            assert run(work()) == BIG[: 2 << 20]

    @pytest.mark.parametrize(
        "other",
        [
            (VERSION, blob("a", BIG, "2")),
            (VERSION, blob("b", BIG, "1")),
            (VERSION, blob("a", BIG, "1")._replace(size=len(BIG) + 1)),
            (replace(VERSION, name="e1-2"), blob("a", BIG, "1")),
        ],
        ids=["etag", "name", "size", "version"],
    )
    def test_a_stale_part_is_never_continued(self, opening: Open, other: tuple[Version, Blob]) -> None:
        """Bytes of another tag, name, size or version are not continued, and the new file has none of them."""
        self.suspended(opening, blob("a", BIG, "1"), b"stale" * 300_000)
        with opening() as there:
            draft = there.files.draft(*other)
            assert draft.held == 0

            async def work() -> None:
                await draft.append(BIG)
                await draft.commit(proof(BIG))

            run(work())
            assert there.files.read(other[0], other[1].name) == BIG

    def test_a_continued_draft_may_restart(self, opening: Open) -> None:
        """What an earlier run left can be forgotten, and is not met again, by this run or the next."""
        item = blob("a", BIG)
        self.suspended(opening, item, BIG[: 2 << 20])
        with opening() as there:
            draft = there.files.draft(VERSION, item)
            run(draft.restart())
            run(draft.suspend())
            assert there.files.draft(VERSION, item).held == 0
        with opening() as there:
            assert there.files.draft(VERSION, item).held == 0

    def test_a_whole_part_needs_no_more_bytes(self, opening: Open) -> None:
        """A draft that an earlier run filled to the end is committed without another byte."""
        item = blob("a", BIG)
        self.suspended(opening, item, BIG)
        with opening() as there:
            draft = there.files.draft(VERSION, item)
            assert draft.held == len(BIG)
            run(draft.commit(proof(BIG)))
            assert there.files.read(VERSION, "a") == BIG
        with opening() as there:
            assert there.files.draft(VERSION, item).held == 0

    @pytest.mark.parametrize("steps", range(1, 40, 3))
    def test_a_cancelled_append_leaves_a_true_beginning(self, opening: Open, steps: int) -> None:
        """Cancelled at any moment, a draft holds the beginning of the content and nothing else."""
        item = blob("a", BIG)
        with opening() as there:
            there.settle()

            async def work() -> None:
                draft = there.files.draft(VERSION, item)
                await draft.append(BIG[:100])
                task = asyncio.create_task(draft.append(BIG[100 : 2 << 20]))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                await draft.suspend()

            run(work())
        with opening() as there:
            draft = there.files.draft(VERSION, item)
            assert BIG.startswith(run(bytes_of(draft)))
            assert draft.held in {100, 2 << 20}

    def test_tidy_forgets_what_was_suspended(self, opening: Open) -> None:
        """After tidying no part is left to continue, and what is held stands."""
        item = blob("a", BIG)
        self.suspended(opening, item, BIG[: 1 << 20])
        with opening() as there:
            run(put(there, blob("b", b"b"), b"b"))
            there.files.tidy()
            assert there.files.draft(VERSION, item).held == 0
            assert there.files.read(VERSION, "b") == b"b"
