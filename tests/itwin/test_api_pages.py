"""Pages of the service's lists: their address, and how they share one pace.

test_mesh_export.py and test_imodels.py assert loops of pages, and errors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.support.clock import FakeClock
from tests.support.faults import error_response, is_api
from tests.support.fleet_service import Fleet, fill_fleet
from tests.support.simulator import JobOutcome, Simulator
from tilesync.demo.api_rate import RateLimit
from tilesync.errors import ExportReplaced, Unavailable
from tilesync.events import Notice, Retried
from tilesync.itwin.api_pages import DEFAULT_PAUSE_S, MAX_PAUSE_S, endpoint_url
from tilesync.itwin.auth import BearerTokenProvider, read_environment_token
from tilesync.itwin.mesh_export import MeshExports
from tilesync.model import Export, Secret, Selector
from tilesync.transport.api_client import open_api_client
from tilesync.transport.api_pace import WINDOW_S, ApiPace

RATE = 400


@pytest.mark.parametrize("suffix", ["", "/", "/mesh-export", "/mesh-export/", "/imodels/", "/itwins"])
@pytest.mark.parametrize("prefix", ["https://api.bentley.com", "https://gateway.example.com/bentley"])
def test_the_address_of_a_list(prefix: str, suffix: str) -> None:
    """The address of the API may be written with or without the path of one of its lists."""
    assert endpoint_url(prefix + suffix, "imodels") == f"{prefix}/imodels/"


def run(
    sim: Simulator, work: Callable[[MeshExports, ApiPace, FakeClock], Awaitable[Any]], *,
    rate: int = RATE, budget: float = 60, outcome: JobOutcome | None = None,
) -> Any:  # fmt: skip
    """Run a coroutine with a paced client; client and server count calls by one fake clock."""
    clock = FakeClock()
    sim.api_calls.read_clock = clock.monotonic
    observe = outcome if outcome is not None else JobOutcome()

    async def main() -> Any:
        pace = ApiPace(rate, clock)
        async with open_api_client(clock, observe, budget=timedelta(seconds=budget)) as api_client:
            token = BearerTokenProvider(lambda: read_environment_token(Secret(sim.token)), clock)
            async with asyncio.timeout(60):
                return await work(MeshExports(sim.url, token, api_client, clock, observe, pace=pace), pace, clock)

    return asyncio.run(main())


def resolve(exports: MeshExports, fleet: Fleet, number: int) -> Awaitable[Any]:
    selector = Selector(imodel=fleet.models[number].id, export_type="3DTiles")
    return exports.find_latest(selector, wait=timedelta(), poll=timedelta())


def test_the_rate_held_as_counted_by_the_server(service: Simulator) -> None:
    """A thousand resolves at once are a thousand calls, never more than the rate in any minute that the server sees."""
    fleet = fill_fleet(service, 1000)
    service.rate_limit = RateLimit(RATE)

    async def work(exports: MeshExports, pace: ApiPace, clock: FakeClock) -> None:
        found = await asyncio.gather(*(resolve(exports, fleet, number) for number in range(1000)))
        assert [each.export.id for each in found] == [model.export_id for model in fleet.models]
        assert pace.calls == 1000
        assert clock.monotonic() < 3 * WINDOW_S

    run(service, work)
    assert (service.api_calls.total, service.api_calls.refused) == (1000, 0)
    assert RATE * 0.9 <= service.api_calls.most_calls_in_window() <= RATE


def test_a_429_makes_all_calls_wait(service: Simulator) -> None:
    """Where the service allows less than the pace, few calls are refused, and all succeed after its Retry-After."""
    fleet = fill_fleet(service, 120)
    service.rate_limit = RateLimit(50)

    async def work(exports: MeshExports, pace: ApiPace, clock: FakeClock) -> None:
        await asyncio.gather(*(resolve(exports, fleet, number) for number in range(120)))
        assert pace.calls == service.api_calls.total
        assert clock.monotonic() >= 60

    run(service, work)
    assert 0 < service.api_calls.refused <= 24


def test_a_429_without_retry_after(service: Simulator) -> None:
    """A 429 that names no time makes all calls wait for some seconds."""
    fleet, outcome = fill_fleet(service, 1), JobOutcome()
    service.add_fault(is_api, error_response(429, body=b"{}"))

    async def work(exports: MeshExports, _: ApiPace, clock: FakeClock) -> None:
        await resolve(exports, fleet, 0)
        assert clock.monotonic() >= DEFAULT_PAUSE_S

    run(service, work, outcome=outcome)
    assert [event.reason for event in outcome.events_of(Retried)] == [
        "the service answered 429; all API calls wait 5 s"
    ]
    assert [event.message for event in outcome.events_of(Notice)] == [
        f"the Mesh Export API ({service.url.removeprefix('http://')}): the service answered 429; all API calls wait 5 s"
    ]


def test_a_429_that_asks_for_too_long_ends_all_calls(service: Simulator) -> None:
    """A wait of more than five minutes, or the longer retry budget, ends each call, also those in the queue."""
    fleet = fill_fleet(service, 60)
    service.add_fault(is_api, error_response(429, body=b"{}", Retry_After="3600"))

    async def work(exports: MeshExports, _: ApiPace, clock: FakeClock) -> None:
        results = await asyncio.gather(
            *(resolve(exports, fleet, number) for number in range(60)), return_exceptions=True
        )
        refused = [str(each) for each in results if isinstance(each, BaseException)]
        assert any("answered 429; it asks to wait 3600 s" in each for each in refused)
        assert all("429" in each and "it asks to wait 3" in each for each in refused)
        assert clock.monotonic() < MAX_PAUSE_S
        with pytest.raises(Unavailable, match="it asks to wait 3"):
            await resolve(exports, fleet, 0)

    run(service, work, budget=3)
    assert len(service.api_requests) < 60


def test_a_long_retry_budget_waits_out_a_long_429(service: Simulator) -> None:
    """A call that may be retried for two hours waits the hour that the service asks for."""
    fleet = fill_fleet(service, 1)
    service.add_fault(is_api, error_response(429, body=b"{}", Retry_After="3600"))

    async def work(exports: MeshExports, _: ApiPace, clock: FakeClock) -> None:
        await resolve(exports, fleet, 0)
        assert clock.monotonic() >= 3600

    run(service, work, budget=7200)


def test_waiting_for_a_turn_is_no_failure(service: Simulator) -> None:
    """A retry that waits longer in the queue than the retry budget still gets its turn."""
    fleet = fill_fleet(service, 1)
    service.add_fault(is_api, error_response(503), times=2)

    async def work(exports: MeshExports, pace: ApiPace, clock: FakeClock) -> None:
        await resolve(exports, fleet, 0)
        assert clock.monotonic() >= 2 * WINDOW_S
        assert pace.calls == 3

    run(service, work, rate=1, budget=5)


def test_a_service_that_always_throttles_ends_the_call(service: Simulator) -> None:
    """429 to every attempt: Unavailable after some attempts, each of which has waited as asked."""
    fleet = fill_fleet(service, 1)
    service.add_fault(is_api, error_response(429, body=b"{}", Retry_After="30"), times=None)

    async def work(exports: MeshExports, _: ApiPace, clock: FakeClock) -> None:
        with pytest.raises(Unavailable):
            await resolve(exports, fleet, 0)
        assert clock.monotonic() >= 30 * (len(service.api_requests) - 1)

    run(service, work)
    assert 3 <= len(service.api_requests) <= 12


def test_a_link_goes_before_waiting_resolves(service: Simulator) -> None:
    """A link that transfers wait for is requested before hundreds of resolves that came earlier."""
    fleet = fill_fleet(service, 200)
    model = fleet.models[7]

    async def work(exports: MeshExports, pace: ApiPace, _: FakeClock) -> None:
        resolves = [asyncio.ensure_future(resolve(exports, fleet, number)) for number in range(200)]
        while pace.waiting < 150:
            await asyncio.sleep(0)
        link, _server_time = await exports.fetch_link(Export(model.export_id, "Complete", imodel=model.id))
        assert model.export_id in link.base
        assert sum(task.done() for task in resolves) < 100
        await asyncio.gather(*resolves)
        with pytest.raises(ExportReplaced):
            await exports.fetch_link(Export("gone", "Complete", imodel=model.id))

    run(service, work)


def test_token_requests_and_storage_do_not_count(service: Simulator) -> None:
    """Only calls of the API take a turn: one for each page, whatever else is requested."""
    fleet = fill_fleet(service, 1)

    async def work(exports: MeshExports, pace: ApiPace, _: FakeClock) -> None:
        await resolve(exports, fleet, 0)
        assert pace.calls == len(service.api_requests) == 1

    run(service, work)
