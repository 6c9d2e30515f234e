"""Links that expire, or that the storage refuses, during a run."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.builders import export
from tests.support.faults import (
    call_before,
    error_response,
    is_blob,
    is_listing,
    is_storage,
)
from tests.support.simulator import Simulator, read_version
from tilesync.errors import (
    NotAuthorised,
)
from tilesync.events import (
    LinkRenewed,
)


def test_an_expired_link_is_renewed_in_mid_run(tmp_path: Path) -> None:
    """Links that live one second, and slow responses: renewed as often as needed, nothing lost."""
    with Simulator(link_lifetime=timedelta(seconds=1), delay_s=0.1, page_size=4) as sim:
        files = sim.offer_export(export(40))
        run = sim.mirror(tmp_path, transfers=4)
    assert run.exit_code == 0
    assert read_version(tmp_path) == files
    assert run.stats.renewals == len(run.events_of(LinkRenewed)) >= 1


def test_links_that_expire_between_two_pages_keep_the_marker(tmp_path: Path) -> None:
    """A link revoked between pages is renewed, and the listing continues at its marker."""
    with Simulator(page_size=3) as sim:
        files = sim.offer_export()
        sim.run_before_request(3, is_listing, sim.revoke_links)
        run = sim.mirror(tmp_path)
        markers = [request.query.get("marker") for request in sim.listing_requests]
    assert run.exit_code == 0
    assert read_version(tmp_path) == files
    assert markers.count(None) == 1
    assert markers[2] == markers[3]


def test_a_link_revoked_in_mid_run_is_renewed_once_for_all(tmp_path: Path) -> None:
    """Many concurrent transfers get 403: one API request replaces the link."""
    with Simulator() as sim:
        files = sim.offer_export(export(60))
        everyone, count = threading.Event(), [0]

        def arrive() -> None:
            count[0] += 1
            if count[0] == 16:
                sim.revoke_links()
                everyone.set()
            everyone.wait(5)

        sim.add_fault(is_blob, call_before(arrive), times=16)
        run = sim.mirror(tmp_path, transfers=16)
        assert len(sim.api_requests) == 2 + (run.stats.renewals - 1)
        assert run.stats.renewals == 1
    assert run.exit_code == 0
    assert read_version(tmp_path) == files


@pytest.mark.parametrize("ahead", [timedelta(hours=-3), timedelta(hours=3)])
def test_a_skewed_clock_does_not_matter(tmp_path: Path, ahead: timedelta) -> None:
    """The server's clock is hours away from ours: its time decides about links, and none is renewed needlessly."""
    with Simulator() as sim:
        sim.clock_offset = ahead
        files = sim.offer_export()
        run = sim.mirror(tmp_path)
        assert len(sim.api_requests) == 1
    assert run.exit_code == 0
    assert read_version(tmp_path) == files


def test_a_refused_identity_at_the_storage_ends_with_5(tmp_path: Path) -> None:
    """403 for every fresh link: not authorised, after few requests."""
    with Simulator() as sim:
        sim.offer_export()
        sim.add_fault(is_storage, error_response(403, "AuthorizationFailure"), times=None)
        run = sim.mirror(tmp_path)
        assert len(sim.requests) < 20
    assert isinstance(run.error, NotAuthorised)
    assert run.exit_code == 5
