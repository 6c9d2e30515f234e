"""API clients of a service: one identity and one pace for several of them. test_hints.py asserts the hints for each."""

from __future__ import annotations

import asyncio
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
    open_clients,
)
from tilesync.app.shared import open_shared_resources
from tilesync.errors import UsageError
from tilesync.model import Secret, Selector


def test_lists_and_exports_share_the_pace_of_the_clients(sim: Simulator) -> None:
    """Each call of a client that is made from the same open clients takes a turn of their pace."""
    fleet = fill_fleet(sim, 3, itwins=2)
    options = Service(sim.url, Identity(token=Secret(sim.token)))

    async def main() -> int:
        run = JobOutcome()
        async with (
            open_shared_resources(run, max_transfers=8, calls_per_minute=400) as shared,
            open_clients(options, run, shared=shared) as clients,
        ):
            assert [row.id for row in await list_itwins(options, run, shared)] == fleet.itwins
            imodels = [row for itwin in fleet.itwins for row in await list_imodels(options, itwin, run, shared)]
            assert {row.name for row in imodels} == {model.name for model in fleet.models}
            for row in imodels:
                selector, exports = (
                    Selector(imodel=row.id, export_type="3DTiles"),
                    make_mesh_exports(options, clients, shared),
                )
                await exports.find_latest(selector, wait=timedelta(), poll=timedelta())
            return shared.pace.calls

    assert asyncio.run(main()) == len(sim.api_requests) == 6


def test_a_shared_token_is_fetched_once(sim: Simulator, tmp_path: Path) -> None:
    """Runs that share resources share the token of an identity: one command serves a whole fleet."""
    fleet = fill_fleet(sim, 1)
    marks = tmp_path / "marks"
    command = f"sh -c 'echo run >> {marks}; echo {sim.token}'"
    options = Service(sim.url, Identity(token_command=command))

    async def main() -> None:
        run = JobOutcome()
        async with open_shared_resources(run, max_transfers=8, calls_per_minute=400) as shared:
            for _ in range(3):
                await list_imodels(options, fleet.itwins[0], run, shared)

    asyncio.run(main())
    assert marks.read_text() == "run\n"


def test_an_address_without_tls_is_refused() -> None:
    """A token is not sent over plain http to another machine."""
    options = Service("http://api.example.com", Identity(token=Secret("demo")))

    async def main() -> None:
        await list_imodels(options, make_id("itwin", 0), JobOutcome())

    with pytest.raises(UsageError):
        asyncio.run(main())
