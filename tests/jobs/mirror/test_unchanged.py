"""Unchanged check: requests for stored and missing files of a fake container."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from tests.support.builders import read_tree
from tests.support.clock import FakeClock
from tests.support.faults import (
    error_response,
    is_listing,
)
from tests.support.simulator import EXPORT, Simulator
from tilesync.errors import (
    BlobError,
    BlobMissing,
    ExportReplaced,
    NotAuthorised,
    Transient,
    Unavailable,
)
from tilesync.events import (
    Event,
    Retried,
    VersionPublished,
)
from tilesync.jobs.mirror import unchanged
from tilesync.jobs.mirror.unchanged import ReadStoredBatch, find_first_appeared, find_first_changed
from tilesync.jobs.run.concurrency import ConcurrencyLimiter
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.run.stats import RunStats
from tilesync.model import Blob, StoredFile
from tilesync.protocols import Source


class FakeContainer:
    """Container whose answers are set by name: true or false, or a list of errors to raise first, then true."""

    def __init__(self, **answers: bool | Exception | list[Exception]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.opened: list[str] = []
        self.closed: list[str] = []
        self.most = self.inside = 0

    async def is_unchanged(self, stored: StoredFile) -> bool:
        name = stored.blob.name
        self.asked.append(name)
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await asyncio.sleep(0)
            return self._answer(name)
        finally:
            self.inside -= 1

    def _answer(self, name: str) -> bool:
        answer = self.answers.get(name, True)
        if isinstance(answer, list):
            if answer:
                raise answer.pop(0)
            return True
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def open_by_name(self, name: str) -> tuple[Blob, FakeBody]:
        self.asked.append(name)
        if not self._answer(name):
            raise BlobMissing(name)
        self.opened.append(name)
        return Blob(name, 1), FakeBody(self, name)


class FakeBody:
    """A body that must not be read."""

    start = 0
    md5: bytes | None = None

    def __init__(self, container: FakeContainer, name: str) -> None:
        self.container = container
        self.name = name

    def chunks(self) -> AsyncIterator[bytes]:
        raise AssertionError

    async def aclose(self) -> None:
        self.container.closed.append(self.name)


class RevalidationRun:
    """One run with a fake clock, and the stored files in batches."""

    def __init__(self, container: FakeContainer, *, transfers: int = 4) -> None:
        self.container = container
        self.clock = FakeClock()
        self.events: list[Event] = []
        limiter = ConcurrencyLimiter(self.clock, fixed_limit=transfers)
        self.run = RunContext(self.clock, self.events.append, RunStats(), limiter, timedelta(seconds=30))

    def first_changed(self, names: str, *, batch: int = 3) -> str | None:
        return asyncio.run(find_first_changed(cast(Source, self.container), make_read_batch(names, batch), self.run))

    def first_appeared(self, names: str) -> str | None:
        return asyncio.run(find_first_appeared(cast(Source, self.container), names, self.run))


def make_read_batch(names: str, limit: int) -> ReadStoredBatch:
    """Return a reader of stored files: one file for each letter, with a key."""

    def behind(after: str) -> list[tuple[str, StoredFile]]:
        rows = [(f"key of {name}", StoredFile(Blob(name, 1), b"", 0)) for name in sorted(names)]
        return [row for row in rows if row[0] > after][:limit]

    return behind


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_nothing_changed(batch: int) -> None:
    """If nothing changed, each file is requested once, with any batch size."""
    container = FakeContainer()
    assert RevalidationRun(container).first_changed("abcdefg", batch=batch) is None
    assert Counter(container.asked) == Counter("abcdefg")
    assert RevalidationRun(FakeContainer()).first_changed("") is None


def test_the_first_change_is_returned() -> None:
    """Of several changed files the first is returned, and no later batch is requested."""
    container = FakeContainer(d=False, e=False, h=False)
    assert RevalidationRun(container).first_changed("abcdefghijk") == "d"
    assert sorted(container.asked) == list("abcdef")


def test_requests_respect_the_concurrency_limit() -> None:
    """The number of concurrent requests never exceeds the number of transfers."""
    container = FakeContainer()
    RevalidationRun(container, transfers=5).first_changed("abcdefghijklmnopqrst", batch=100)
    assert container.most == 5


def test_transient_errors_are_retried() -> None:
    """A failed attempt is repeated, and its answer counts."""
    container = FakeContainer(b=[Transient("x"), Transient("y", retry_after=3)], c=False)
    check = RevalidationRun(container)
    assert check.first_changed("abcd") == "c"
    assert Counter(container.asked) == {"a": 1, "b": 3, "c": 1}
    assert [event.reason for event in check.events if isinstance(event, Retried)] == ["x", "y"]
    assert sum(check.clock.sleeps_s) >= 3


@pytest.mark.parametrize(
    ("error", "error_type"),
    [
        (NotAuthorised("no"), NotAuthorised),
        (ExportReplaced("gone"), ExportReplaced),
        (BlobError("refused"), Unavailable),
        (Transient("always"), Unavailable),
    ],
)
def test_errors_are_not_grouped(error: Exception, error_type: type[Exception]) -> None:
    """A RunError is raised as itself, never in a group; a BlobError becomes Unavailable."""
    check = RevalidationRun(FakeContainer(b=error))
    with pytest.raises(error_type) as raised:
        check.first_changed("abc")
    assert not isinstance(raised.value, BaseExceptionGroup)
    assert type(raised.value) is error_type


def test_one_file_that_keeps_failing_ends_the_run() -> None:
    """A file that cannot be checked does not count as unchanged."""
    clock_moves: list[Exception] = [Transient(f"{number}") for number in range(10**4)]
    check = RevalidationRun(FakeContainer(c=clock_moves))
    with pytest.raises(Unavailable, match="kept failing"):
        check.first_changed("abcdef", batch=6)


def test_the_first_appeared_name_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first missing name that appeared is returned; its body is closed, and no later batch is requested."""
    monkeypatch.setattr(unchanged, "NAMES_PER_BATCH", 2)
    container = FakeContainer(a=False, b=[Transient("x")], c=True)
    check = RevalidationRun(container)
    assert check.first_appeared("abc") == "b"
    assert container.asked == ["a", "b", "b"]
    assert container.opened == container.closed == ["b"]


def test_nothing_appeared() -> None:
    """If all names are still missing, each is requested once."""
    container = FakeContainer(a=False, b=False)
    assert RevalidationRun(container).first_appeared("ab") is None
    assert container.asked == ["a", "b"]
    assert RevalidationRun(FakeContainer()).first_appeared("") is None


@pytest.mark.parametrize(
    ("error", "error_type"), [(NotAuthorised("no"), NotAuthorised), (BlobError("refused"), Unavailable)]
)
def test_an_error_for_a_missing_name_ends_the_run(error: Exception, error_type: type[Exception]) -> None:
    """An error for a missing name ends the run; it does not count as an answer."""
    with pytest.raises(error_type):
        RevalidationRun(FakeContainer(a=error)).first_appeared("a")


def test_an_unchanged_run_is_one_request(tmp_path: Path) -> None:
    """Nothing new: one API request, none to the storage, exit 0; in DEST only the time in `checked.json` changes."""

    def read_unchanging() -> dict[str, bytes]:
        files = {name: data for name, data in read_tree(tmp_path).items() if not name.startswith(".tilesync")}
        record = json.loads(files["checked.json"])
        assert datetime.fromisoformat(record.pop("checked"))
        return {**files, "checked.json": json.dumps(record).encode()}

    with Simulator() as sim:
        files = sim.offer_export()
        sim.mirror(tmp_path)
        before = read_unchanging()
        sim.clear_requests()
        run = sim.mirror(tmp_path)
        assert [request.path for request in sim.requests] == ["/mesh-export/"]
    assert run.exit_code == 0
    assert (run.stats.listed, run.stats.kept, run.stats.fetched) == (len(files), len(files), 0)
    assert run.events_of(VersionPublished) == []
    assert read_unchanging() == before


def test_a_touched_export_with_the_same_content_is_no_new_version(tmp_path: Path) -> None:
    """Another lastModified for the same blobs: listed and compared, nothing fetched; the run after it needs one
    request.
    """
    with Simulator() as sim:
        files = sim.offer_export()
        sim.mirror(tmp_path)
        sim.regenerate(files)
        sim.clear_requests()
        run = sim.mirror(tmp_path)
        assert (run.exit_code, sim.blob_requests()) == (0, [])
        assert [p.name for p in (tmp_path / "versions").iterdir()] == [EXPORT]
        sim.clear_requests()
        assert sim.mirror(tmp_path).exit_code == 0
        assert len(sim.requests) == 1


def test_an_interrupted_comparison_makes_no_second_version(tmp_path: Path) -> None:
    """If the listing of a touched export fails midway, the next run still compares and fetches nothing."""
    with Simulator(page_size=5) as sim:
        files = sim.offer_export()
        sim.mirror(tmp_path)
        sim.regenerate(files)
        sim.add_fault(lambda r: is_listing(r) and "marker" in r.query, error_response(500, "InternalError"), times=None)
        assert sim.mirror(tmp_path, retry_for=timedelta(seconds=0.2)).exit_code == 6
        sim.faults[0].times = 0
        sim.clear_requests()
        assert sim.mirror(tmp_path).exit_code == 0
        assert sim.blob_requests() == []
    assert [p.name for p in (tmp_path / "versions").iterdir()] == [EXPORT]
