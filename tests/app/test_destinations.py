"""Opening of destinations: modes, threads, and the end of a cancelled run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.azure_destination import ignore_event
from tilesync.app import destinations
from tilesync.app.backends import Backend, Opening
from tilesync.app.destinations import open_destination
from tilesync.app.locations import Location
from tilesync.app.requests import Target
from tilesync.model import Layout
from tilesync.runtime.threads import STOP_EVENT, THREAD_POOL
from tilesync.stores.opening import Mode


class FakeBackend(Backend):
    """Backend that records how it is opened and closed."""

    max_threads = 64
    identity = "fake"

    def __init__(self) -> None:
        self.closed: list[bool] = []

    def open(self, opening: Opening) -> AbstractContextManager[Any]:
        """Open nothing."""
        return self._open(opening)

    @contextmanager
    def _open(self, opening: Opening) -> Iterator[Any]:
        try:
            yield opening
        finally:
            stop = STOP_EVENT.get()
            self.closed.append(stop is not None and stop.is_set())

    def refuse_source(self, source: Location, identity: str) -> None:
        """Refuse nothing."""


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    found = FakeBackend()
    monkeypatch.setattr(destinations, "make_backend", lambda target: found)
    return found


@pytest.mark.parametrize("mode", list(Mode))
def test_a_store_gets_threads_of_its_own(backend: FakeBackend, mode: Any) -> None:
    """A store that waits gets threads of its own while it is open; a source shares those of the run."""

    async def run() -> None:
        async with open_destination(Target(Path("x")), mode, ignore_event) as opening:
            assert opening.mode is mode
            assert (THREAD_POOL.get() is not None) == (mode is not Mode.READ)
        assert THREAD_POOL.get() is None

    asyncio.run(run())
    assert backend.closed == [False]


def test_a_cancelled_run_closes_without_retries(backend: FakeBackend) -> None:
    """A cancelled run does not wait for retries while the destination closes, and closes it once."""

    async def run() -> None:
        opened = asyncio.Event()

        async def work() -> None:
            async with open_destination(Target(Path("x")), Mode.WRITE, ignore_event):
                opened.set()
                await asyncio.sleep(60)

        task = asyncio.create_task(work())
        await opened.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(run())
    assert backend.closed == [True]


def test_a_folder_in_each_mode(tmp_path: Path) -> None:
    """A plan needs no destination and writes nothing, a run creates it, an audit has its catalog, a source has none."""
    target = Target(tmp_path / "d")

    async def run() -> None:
        async with open_destination(target, Mode.PLAN, ignore_event, layout=Layout.VERSIONED) as planned:
            assert planned.catalog is not None
        assert not (tmp_path / "d").exists()
        async with open_destination(target, Mode.WRITE, ignore_event, layout=Layout.VERSIONED) as written:
            assert written.layout is Layout.VERSIONED
            assert written.files.worker_target_finder() is not None
        async with open_destination(target, Mode.AUDIT, ignore_event) as audited:
            assert audited.catalog is not None
            assert audited.files.worker_reader() is not None
        async with open_destination(target, Mode.READ, ignore_event) as source:
            assert source.catalog is None

    asyncio.run(run())
