"""Watch over a live export: when it checks, and that requests can make it check at once."""

from __future__ import annotations

import asyncio

from tests.support.live_exports import (
    FakeContainer,
    FakeResolver,
    ManualClock,
    make_context,
    make_files,
    make_resolution,
    run,
)
from tests.support.simulator import JobOutcome
from tilesync.events import Warned
from tilesync.model import Resolution
from tilesync.serving.live.follower import ExportFollower
from tilesync.serving.live.open_exports import OpenExport, OpenExports


class WatchFixture:
    """A watch over one export, on a clock that the test moves. `checks`: the seconds at which it checked."""

    def __init__(self, *, follow: bool = True) -> None:
        self.clock = ManualClock()
        self.outcome = JobOutcome()
        context = make_context(clock=self.clock, outcome=self.outcome)
        resolution = make_resolution("e1")
        container = FakeContainer({"tileset.json": b"{}"})
        self.checks: list[float] = []
        self.resolver = FakeResolver(resolution, {"e1": container})
        self.exports = OpenExports()
        opened = OpenExport("e1", resolution.export, make_files(container, context), container_url="")
        self.exports.replace_current(opened, 0)
        self.follower = ExportFollower(
            self.resolver, self.exports, context, self.refuse_to_open, poll_s=60, follow=follow
        )
        resolve = self.resolver.resolve

        async def record(*, is_replacement: bool = False) -> Resolution:
            self.checks.append(self.clock.monotonic())
            return await resolve(is_replacement=is_replacement)

        self.resolver.resolve = record  # type: ignore[method-assign]  # notes each check

    async def refuse_to_open(self, resolution: Resolution) -> OpenExport:
        raise AssertionError("no export is new")

    async def advance_to(self, seconds: float) -> None:
        """Move the clock second by second, and let the watch work between them."""
        while self.clock.monotonic() < seconds:
            self.clock.advance(1)
            for _ in range(20):
                await asyncio.sleep(0)


def test_it_looks_at_each_poll() -> None:
    """It checks every 60 s, not at once, and asks the service once each time."""

    async def work() -> None:
        watch = WatchFixture()
        task = asyncio.create_task(watch.follower.run())
        await watch.advance_to(200)
        task.cancel()
        assert len(watch.checks) == 3
        assert all(
            60 <= later - earlier <= 63 for earlier, later in zip([0, *watch.checks], watch.checks, strict=False)
        )

    run(work)


def test_it_looks_when_woken() -> None:
    """However many requests wake it, it checks at most every 2 s, and a waiting request goes on after the check."""

    async def work() -> None:
        watch = WatchFixture()
        task = asyncio.create_task(watch.follower.run())
        await watch.advance_to(10)
        waiting = [asyncio.create_task(watch.follower.wait_for_check(30)) for _ in range(50)]
        await watch.advance_to(12)
        await asyncio.gather(*waiting)
        assert len(watch.checks) == 1
        for _ in range(10):
            watch.follower.wake()
            await watch.advance_to(watch.clock.monotonic() + 1)
        task.cancel()
        assert len(watch.checks) <= 6

    run(work)


def test_without_follow_it_only_checks() -> None:
    """Without follow it never asks for other exports, and asks the container only if somebody uses the export."""

    async def work() -> None:
        watch = WatchFixture(follow=False)
        checks: list[float] = []
        files = watch.exports.current.files

        async def check() -> None:
            checks.append(watch.clock.monotonic())

        files.check_unchanged = check  # type: ignore[method-assign]  # notes each check
        task = asyncio.create_task(watch.follower.run())
        watch.follower.wake()
        await watch.advance_to(130)
        assert checks == []
        files.is_used = True
        await watch.advance_to(260)
        task.cancel()
        assert len(checks) == 1
        assert watch.checks == []

    run(work)


def test_an_unexpected_error_does_not_end_the_watch() -> None:
    """An error that nobody expected is reported, and the watch checks again at the next poll."""

    async def work() -> None:
        watch = WatchFixture()

        async def fail(*, is_replacement: bool = False) -> Resolution:
            watch.checks.append(watch.clock.monotonic())
            raise KeyError("status")

        watch.resolver.resolve = fail  # type: ignore[method-assign]  # a bug
        task = asyncio.create_task(watch.follower.run())
        await watch.advance_to(130)
        task.cancel()
        assert len(watch.checks) == 2
        (told,) = watch.outcome.events
        assert isinstance(told, Warned)
        assert "KeyError: 'status'; please report this bug" in told.message

    run(work)
