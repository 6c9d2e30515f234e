"""Test the list of versions while requests for it are abandoned; test_site.py has how it follows other processes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from tests.support.fake_destination import FakeDestination
from tilesync.protocols import ReadOnlyPublication
from tilesync.runtime.threads import run_abandonable
from tilesync.serving.version_list import VersionList


class RewrittenManifest(FakeDestination):
    """Destination whose manifest is first read when the test says so, and then has another changeset."""

    def __init__(self) -> None:
        super().__init__()
        self.is_reading, self.may_end = threading.Event(), threading.Event()
        self.changesets = ["new", "old"]
        self.finished: list[str] = []

    def manifest(self, version: str) -> Iterator[Mapping[str, Any]]:
        """Yield the first line."""
        header, changeset = next(super().manifest(version)), self.changesets.pop()
        if changeset == "old":
            self.is_reading.set()
            assert self.may_end.wait(30)
        self.finished.append(changeset)
        yield {**header, "changeset": changeset}


async def read_no_document() -> None:
    """Return None: the publication is asked for the current version."""


def test_a_list_that_nobody_waits_for_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a cancelled request read before a version was published again does not come into a later list."""
    monkeypatch.setattr("tilesync.serving.version_list.REFRESH_S", 0.0)

    async def check() -> None:
        publication, pools = RewrittenManifest(), [ThreadPoolExecutor(2), ThreadPoolExecutor(1)]
        publication.add_version("v", {"a.txt": b"text"})

        async def run(work: Callable[[], Any]) -> Any:
            return await run_abandonable(pools[0], work)

        versions = VersionList(cast("ReadOnlyPublication", publication), read_no_document, run, str)
        first = asyncio.ensure_future(versions.read())
        assert await asyncio.to_thread(publication.is_reading.wait, 30)
        first.cancel()
        await asyncio.wait({first})
        publication.set_latest("v")
        assert [row.changeset for row in (await versions.read())[1]] == ["new"]
        publication.may_end.set()
        pools.pop(0).shutdown()  # so the abandoned reading is over
        assert publication.finished == ["new", "old"]
        assert [row.changeset for row in (await versions.read())[1]] == ["new"]
        pools[0].shutdown()

    asyncio.run(check())
