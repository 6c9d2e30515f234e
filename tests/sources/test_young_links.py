"""Links that are not valid yet: wait for them, and use the previous link while it is valid."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.builders import export, read_tree
from tests.support.faults import error_response, is_storage
from tests.support.simulator import EXPORT, Simulator
from tilesync.errors import NotAuthorised
from tilesync.events import Notice

HOUR = timedelta(hours=1)


@pytest.mark.parametrize("ahead", [-HOUR, timedelta(), HOUR], ids=["late", "right", "early"])
@pytest.mark.parametrize("bare", [True, False], ids=["link", "iModel"])
def test_link_that_is_not_valid_yet(tmp_path: Path, ahead: timedelta, bare: bool) -> None:
    """A run waits until the link is valid by the server's clock, reports it once, and continues."""
    with Simulator() as sim:
        sim.clock_offset = ahead
        sim.link_start_delay = timedelta(seconds=2)
        files = sim.offer_export()
        run = sim.mirror(tmp_path, **({"link": sim.create_link(EXPORT)} if bare else {}))
        refused = len(sim.listing_requests) - 1
    assert run.error is None
    assert read_tree(tmp_path / "versions" / EXPORT) == files
    assert refused in {1, 2}
    messages = [event.message for event in run.events_of(Notice) if "becomes valid at" in event.message]
    assert len(messages) == 1


@pytest.mark.parametrize("bare", [True, False], ids=["link", "iModel"])
def test_a_link_that_is_refused_in_its_first_seconds_is_tried_again(tmp_path: Path, bare: bool) -> None:
    """A fresh link that the storage does not know yet is retried for some seconds."""
    with Simulator() as sim:
        files = sim.offer_export()
        until = time.monotonic() + 3
        sim.add_fault(
            lambda request: is_storage(request) and time.monotonic() < until,
            error_response(403, "AuthenticationFailed"),
            times=None,
        )
        run = sim.mirror(tmp_path, **({"link": sim.create_link(EXPORT)} if bare else {}))
    assert run.error is None
    assert read_tree(tmp_path / "versions" / EXPORT) == files


def test_link_that_is_valid_much_later(tmp_path: Path) -> None:
    """A start beyond the budget ends the run at once, with the time at which the link becomes valid."""
    with Simulator() as sim:
        sim.link_start_delay = HOUR
        sim.offer_export()
        started_at = time.monotonic()
        run = sim.mirror(tmp_path, link=sim.create_link(EXPORT), retry_for=timedelta(minutes=2))
    assert time.monotonic() - started_at < 60
    assert isinstance(run.error, NotAuthorised)
    assert "the link becomes valid at" in str(run.error)
    assert "--retry-for" in run.error.hint


def test_a_link_that_is_valid_much_later_is_replaced_if_possible(tmp_path: Path) -> None:
    """A fresh link is fetched, if possible, before a run fails for one that is valid too late."""
    with Simulator() as sim:
        files = sim.offer_export()
        valid = sim.create_link(EXPORT)
        command = f"printf %s '{valid}'"
        late = f"{valid}&st={datetime.now(UTC) + HOUR:%Y-%m-%dT%H:%M:%SZ}"
        run = sim.mirror(tmp_path, link=late, link_command=command, retry_for=timedelta(seconds=5))
    assert run.error is None
    assert read_tree(tmp_path / "versions" / EXPORT) == files


def test_permanent_refusal_is_final(tmp_path: Path) -> None:
    """A wrong signature or a missing permission is not waited for."""
    with Simulator() as sim:
        sim.offer_export()
        started_at = time.monotonic()
        run = sim.mirror(
            tmp_path, link=sim.create_link(EXPORT).replace("sig=", "sig=x"), retry_for=timedelta(minutes=2)
        )
    assert isinstance(run.error, NotAuthorised)
    assert time.monotonic() - started_at < 60


@pytest.mark.scale
def test_a_run_uses_the_old_link_until_the_new_one_is_valid(tmp_path: Path) -> None:
    """Links that are renewed ahead of time and become valid later are never used too early."""
    with Simulator(link_lifetime=timedelta(seconds=4), delay_s=0.05) as sim:
        files = sim.offer_export(export(120))

        def rows(look: int) -> list[dict[str, object]]:
            sim.link_start_delay = timedelta(seconds=0.5 if look > 1 else 0)
            return sim.exports

        sim.list_exports = rows
        run = sim.mirror(tmp_path, transfers=1)
    assert run.error is None
    assert run.stats.renewals >= 2
    assert read_tree(tmp_path / "versions" / EXPORT) == files
