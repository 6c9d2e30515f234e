"""Pack job: what is written, in which order, and what a bad file or a bad manifest leads to."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterable
from typing import Any, cast

import pytest

from tests.support.fake_destination import FakeDestination
from tests.support.simulator import JobOutcome
from tilesync.core.manifest import UNPROVEN
from tilesync.errors import (
    BlobDamaged,
    DestinationError,
    DiskFull,
    Interrupted,
    PackFailed,
    TilesyncError,
    Unavailable,
    UsageError,
)
from tilesync.events import Finding, VersionChosen
from tilesync.jobs.pack.job import MAX_FINDINGS, PackInputs, PackJob
from tilesync.protocols import ReadOnlyPublication, StoredFiles
from tilesync.protocols.package import MAX_WHOLE_BYTES
from tilesync.runtime.threads import STOP_EVENT

LARGE = b"tile" * (MAX_WHOLE_BYTES // 4 + 1)
FILES = {"a.glb": b"a" * 100, "data/empty": b"", "large.glb": LARGE, "tileset.json": b"{}", "z/ä.json": b"[]"}


class RecordingWriter:
    """Writer that keeps the entries in memory; `problems` are names that it cannot hold, `limits` those of readers."""

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}
        self.limits: dict[str, str] = {}
        self.entries: dict[str, bytes] = {}
        self.is_finished = False

    def find_problem(self, name: str, size: int) -> str | None:
        return self.problems.get(name)

    def find_compatibility_problem(self, name: str, size: int) -> str | None:
        return self.limits.get(name)

    def measure(self, name: str, size: int) -> int:
        return size + 10

    def add_manifest(self, size: int, chunks: Iterable[bytes]) -> None:
        self.add("manifest", size, chunks)

    def add(self, name: str, size: int, chunks: Iterable[bytes]) -> None:
        data = b"".join(chunks)
        assert len(data) == size
        assert name not in self.entries
        self.entries[name] = data

    def finish(self) -> None:
        self.is_finished = True


class PackRun(JobOutcome):
    """One run of the job against a fake destination with the version `e1` of FILES."""

    def __init__(self, files: dict[str, bytes] = FILES, *, parallel_reads: int = 1) -> None:
        super().__init__()
        self.destination = FakeDestination(chunk_bytes=1000)
        self.destination.parallel_reads = parallel_reads
        self.destination.add_version("e1", files)
        self.destination.set_latest("e1")
        self.writer = RecordingWriter()
        self.free_bytes = 1 << 40
        self.needed_bytes = 0

    def check_space(self, size: int) -> None:
        self.needed_bytes = size
        if size > self.free_bytes:
            raise DiskFull("full")

    def pack(self, version: str = "current") -> PackRun:
        files, publication = cast(StoredFiles, self.destination), cast(ReadOnlyPublication, self.destination)
        inputs = PackInputs(files, publication, self.writer, self.check_space, io.BytesIO())
        try:
            PackJob(inputs, self, self.stats).run(version)
        except TilesyncError as error:
            self.error = error
        assert self.writer.is_finished is (self.error is None)
        return self

    @property
    def findings(self) -> dict[str, str]:
        return {each.name: each.problem for each in self.events_of(Finding)}

    def edit_line(self, index: int, **values: Any) -> None:
        self.destination.manifests["e1"][index].update(values)


@pytest.mark.parametrize("parallel_reads", [1, 4])
def test_entries_are_manifest_root_then_the_others_in_order(parallel_reads: int) -> None:
    """The manifest comes first, bit by bit, then the root tileset, then the other files in its order."""
    run = PackRun(parallel_reads=parallel_reads).pack()
    assert run.error is None
    manifest = b"".join(run.destination.manifest_chunks("e1"))
    assert list(run.writer.entries) == ["manifest", "tileset.json", "a.glb", "data/empty", "large.glb", "z/ä.json"]
    assert run.writer.entries == {"manifest": manifest, **FILES}
    assert run.events_of(VersionChosen) == [VersionChosen("e1", "held")]
    stats = run.stats
    assert (stats.listed, stats.verified, stats.failed) == (len(FILES), len(FILES), 0)
    assert stats.transferred_bytes == stats.planned_bytes == sum(map(len, FILES.values()))
    assert run.needed_bytes == sum(map(len, FILES.values())) + len(manifest) + 10 * (len(FILES) + 1)


def test_all_bad_files_are_reported_and_nothing_is_finished() -> None:
    """A missing, shorter, longer or changed file, small or large, is a finding; the good ones are checked too."""
    names = ["gone", "short", "long", "changed", "large gone", "large changed", "large long"]
    files = {name: LARGE if name.startswith("large") else b"0123456789" * 500 for name in names}
    run = PackRun({**files, "tileset.json": b"{}", "zz": b"good"})
    stored = run.destination.files
    for name in names:
        data = stored["e1", name]
        changes = {"gone": None, "short": data[:-1], "long": data + b"x", "changed": data[:-1] + b"?"}
        changed = changes[name.rpartition(" ")[2]]
        if changed is None:
            del stored["e1", name]
        else:
            stored["e1", name] = changed
    run.pack()
    assert isinstance(run.error, PackFailed)
    assert run.exit_code == 3
    assert "7 files of version e1 are missing or damaged" in str(run.error)
    assert "tilesync verify" in run.error.hint
    assert run.findings == {
        "gone": "missing",
        "short": "size",
        "long": "size",
        "changed": "content",
        "large gone": "missing",
        "large changed": "content",
        "large long": "size",
    }
    assert {each.version for each in run.events_of(Finding)} == {"e1"}
    assert (run.stats.failed, run.stats.verified) == (7, 2)


def test_unreadable_file_is_a_finding() -> None:
    """A file that exists and cannot be read is reported as unreadable, not as missing."""
    run = PackRun()
    run.destination.read_errors["a.glb"] = OSError()
    assert run.pack().findings == {"a.glb": "unreadable"}


def test_run_gives_up_after_many_bad_files() -> None:
    """The number of findings is bounded: a destination without files is not searched to its end."""
    files = {f"tiles/{number:04d}.glb": b"x" for number in range(MAX_FINDINGS * 3)}
    run = PackRun({"tileset.json": b"{}", **files}, parallel_reads=4)
    run.destination.files = {("e1", "tileset.json"): b"{}"}
    run.pack()
    assert run.exit_code == 3
    assert len(run.findings) == run.stats.failed == MAX_FINDINGS


def test_failure_of_a_store_ends_the_run() -> None:
    """A store that keeps failing is no finding about a file: its error ends the run."""
    run = PackRun()
    run.destination.read_errors["a.glb"] = OSError()
    # a store that is down
    run.destination._read = lambda version, name: (_ for _ in ()).throw(Unavailable("down"))  # type: ignore[method-assign]
    assert isinstance(run.pack().error, Unavailable)
    assert run.findings == {}


def test_md5_proves_a_file_without_sha256() -> None:
    """A file that the storage service copied has only an MD5: that is compared."""
    run = PackRun({"a.glb": b"good", "b.glb": b"bad?", "tileset.json": b"{}"})
    for index, data in ((1, b"good"), (2, b"bad!")):
        run.edit_line(index, sha256=None, proof="service-md5", md5=hashlib.md5(data).hexdigest())
    assert run.pack().findings == {"b.glb": "content"}
    assert "MD5" in run.events_of(Finding)[0].message


def test_files_without_any_digest_are_refused() -> None:
    """A package that others wrote has no digests: nothing could be proven, so the hint says to mirror it first."""
    run = PackRun()
    run.edit_line(1, sha256=None, proof=UNPROVEN)
    run.pack()
    assert "no digest proves the files of version e1, such as a.glb" in str(run.error)
    assert run.error is not None
    assert "mirror it into a folder" in run.error.hint
    assert run.writer.entries == {}


def test_damaged_entry_of_a_package_is_a_finding() -> None:
    """An entry whose own checksum is wrong is reported as damaged content."""
    run = PackRun()
    # a package with damaged bytes
    run.destination._read = lambda version, name: (_ for _ in ()).throw(BlobDamaged("CRC-32"))  # type: ignore[method-assign]
    run.pack()
    assert run.findings == dict.fromkeys(FILES, "content")


def test_version_is_chosen_by_prefix() -> None:
    """A prefix names a version, also one that is not the current one; an unknown one is a usage error."""
    run = PackRun()
    run.destination.add_version("old", {"tileset.json": b"old"})
    assert run.pack("ol").writer.entries["tileset.json"] == b"old"
    unknown = PackRun().pack("x")
    assert isinstance(unknown.error, UsageError)
    assert unknown.writer.entries == {}


def test_limits_are_checked_before_the_first_byte() -> None:
    """Files that the format cannot hold, and a disk without room, end the run before anything is written."""
    run = PackRun()
    run.writer.problems = dict.fromkeys(FILES, "is bad")
    run.pack()
    assert run.exit_code == 8
    assert str(run.error).startswith("this format cannot hold 5 files of version e1: 'a.glb' is bad; ")
    assert run.writer.entries == {}
    full = PackRun()
    full.free_bytes = 100
    assert isinstance(full.pack().error, DiskFull)
    assert full.writer.entries == {}


def test_unsafe_names_are_no_limit_of_the_format() -> None:
    """A name that leaves its folder is reported as unsafe, and no other format is suggested; nothing is written."""
    run = PackRun()
    run.destination.add_version("bad", {"tileset.json": b"{}", "../../etc/passwd": b"x"})
    run.pack("bad")
    assert run.exit_code == 8
    assert str(run.error).startswith("the manifest of version bad is damaged: it has unsafe names")
    assert "'../../etc/passwd' leaves its folder" in str(run.error)
    assert run.error is not None
    assert "format" not in run.error.hint
    assert run.writer.entries == {}


def test_limits_of_readers_are_one_warning_each() -> None:
    """Files that some programs cannot read are reported in one sentence for each reason, with the first name."""
    run = PackRun()
    run.writer.limits = {"a.glb": "is odd", "data/empty": "is empty", "z/ä.json": "is odd"}
    assert run.pack().warnings == ["'a.glb' is odd; 1 file more like it", "'data/empty' is empty"]


@pytest.mark.parametrize(
    ("index", "values", "message"),
    [
        (0, {"files": 9}, "lists 5 files with"),
        (0, {"bytes": 9}, "but its first line says 5 with 9"),
        (0, {"version": "e2"}, "is damaged: it describes version 'e2'"),
        (1, {"sha256": None}, "is damaged: no digest proves a.glb"),
        (1, {"size": -1}, "is damaged"),
        (1, {"name": "../a.glb"}, "'../a.glb' leaves its folder"),
        (1, {"name": "/etc/a.glb"}, "'/etc/a.glb' is an absolute path"),
        (1, {"name": "z/ä.json"}, "lists z/ä.json twice"),
        (4, {"name": "root.json"}, "has no tileset.json"),
    ],
)
def test_damaged_manifest_is_refused(index: int, values: dict[str, Any], message: str) -> None:
    """A manifest that contradicts itself, or names files outside, is refused before anything is written."""
    run = PackRun()
    run.edit_line(index, **values)
    run.pack()
    assert isinstance(run.error, DestinationError)
    assert message in str(run.error)
    assert run.error.hint
    assert run.writer.entries == {}


def test_manifest_that_is_no_json_is_refused() -> None:
    """A manifest whose line is cut off is a DestinationError, no crash."""
    run = PackRun()
    data = b"".join(run.destination.manifest_chunks("e1"))
    run.destination.manifest_chunks = lambda version: iter([data[:-20]])  # type: ignore[method-assign]  # cut off
    assert "is damaged" in str(run.pack().error)


def test_unsorted_manifest_is_packed_in_its_order() -> None:
    """The order of the manifest is kept, whatever it is."""
    files = {"b": b"1", "tileset.json": b"{}", "a": b"2"}
    assert list(PackRun(files).pack().writer.entries) == ["manifest", "tileset.json", "b", "a"]


def test_cancelled_run_stops_between_files() -> None:
    """If nobody waits for the result any more, the run stops at the next file."""
    stop = threading.Event()
    token = STOP_EVENT.set(stop)
    try:
        run = PackRun()
        run.writer.add_manifest = lambda size, chunks: stop.set()  # type: ignore[method-assign]  # the moment to stop
        assert isinstance(run.pack().error, Interrupted)
    finally:
        STOP_EVENT.reset(token)
    assert run.writer.entries == {}
