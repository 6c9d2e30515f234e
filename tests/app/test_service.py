"""API clients of a service: one identity and one pace for several of them. test_hints.py asserts the hints for each."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.fleet_service import fill_fleet, make_id
from tests.support.simulator import JobOutcome, Simulator
from tilesync.app.service import (
    Identity,
    Service,
    list_imodels,
    list_itwins,
    make_mesh_exports,
    make_token_provider,
    open_clients,
)
from tilesync.errors import UsageError
from tilesync.model import Secret, Selector
from tilesync.runtime.clock import WallClock
from tilesync.transport.api_pace import ApiPace


def test_lists_and_exports_share_the_pace_of_the_clients(sim: Simulator) -> None:
    """Each call of a client that is made from the same open clients takes a turn of their pace."""
    fleet = fill_fleet(sim, 3, itwins=2)
    options = Service(sim.url, Identity(token=Secret(sim.token)))

    async def main() -> int:
        pace = ApiPace(400, WallClock())
        async with open_clients(options, JobOutcome(), pace=pace) as clients:
            assert [row.id for row in await list_itwins(options, clients)] == fleet.itwins
            imodels = [row for itwin in fleet.itwins for row in await list_imodels(options, itwin, clients)]
            assert {row.name for row in imodels} == {model.name for model in fleet.models}
            for row in imodels:
                selector = Selector(imodel=row.id, export_type="3DTiles")
                await make_mesh_exports(options, clients).find_latest(selector, wait=timedelta(), poll=timedelta())
        return pace.calls

    assert asyncio.run(main()) == len(sim.api_requests) == 6


def test_a_shared_token_is_fetched_once(sim: Simulator, tmp_path: Path) -> None:
    """Clients with a token provider use it instead of one of their own: one command serves a whole fleet."""
    fleet = fill_fleet(sim, 1)
    marks = tmp_path / "marks"
    command = f"sh -c 'echo run >> {marks}; echo {sim.token}'"
    options = Service(sim.url, Identity(token_command=command))

    async def main() -> None:
        async with open_clients(options, JobOutcome()) as opened:
            clients = replace(opened, token=make_token_provider(options.identity, opened))
            for _ in range(3):
                await list_imodels(options, fleet.itwins[0], clients)

    asyncio.run(main())
    assert marks.read_text() == "run\n"


def test_an_address_without_tls_is_refused() -> None:
    """A token is not sent over plain http to another machine."""
    options = Service("http://api.example.com", Identity(token=Secret("demo")))

    async def main() -> None:
        async with open_clients(options, JobOutcome()) as clients:
            await list_imodels(options, make_id("itwin", 0), clients)

    with pytest.raises(UsageError):
        asyncio.run(main())
