"""Resolvers: container links as SOURCE, with and without a command that renews them."""

from __future__ import annotations

from pathlib import Path

from tests.support.faults import (
    is_blob,
)
from tests.support.simulator import EXPORT, Simulator, read_version
from tilesync.errors import (
    NotAuthorised,
)
from tilesync.events import (
    Notice,
)


def test_a_container_link_is_a_source(tmp_path: Path) -> None:
    """A bare link mirrors its container without any API request; a second run fetches nothing."""
    with Simulator() as sim:
        files = sim.offer_export()
        assert sim.mirror(tmp_path, link=sim.create_link(EXPORT)).exit_code == 0
        assert read_version(tmp_path) == files
        sim.clear_requests()
        run = sim.mirror(tmp_path, link=sim.create_link(EXPORT).replace("?", "/tileset.json?"))
        assert (run.exit_code, sim.blob_requests(), sim.api_requests) == (0, [], [])
    assert [p.name for p in (tmp_path / "versions").iterdir()] == [EXPORT]


def test_a_dead_container_link_ends_with_5_and_the_next_one_resumes(tmp_path: Path) -> None:
    """A bare link that is revoked cannot be renewed: exit 5; with a fresh link the run continues."""
    with Simulator() as sim:
        files = sim.offer_export()
        sim.run_before_request(8, is_blob, sim.revoke_links)
        run = sim.mirror(tmp_path, link=sim.create_link(EXPORT), transfers=1)
        assert run.exit_code == 5
        assert not (tmp_path / "tileset.json").exists()
        sim.clear_requests()
        assert sim.mirror(tmp_path, link=sim.create_link(EXPORT)).exit_code == 0
        assert len(sim.blob_requests()) == len(files) - 7
    assert read_version(tmp_path) == files


def test_a_link_command_renews_a_container_link(tmp_path: Path) -> None:
    """With --link-command a revoked bare link is replaced by the output of the command."""
    with Simulator() as sim:
        files = sim.offer_export()
        fresh, secret = sim.create_link(EXPORT), tmp_path / "link"
        stale = sim.create_link(EXPORT)

        def rotate() -> None:
            sim.revoke_links()
            secret.write_text(sim.create_link(EXPORT))

        secret.write_text(fresh)
        sim.run_before_request(5, is_blob, rotate)
        run = sim.mirror(tmp_path / "d", link=stale, link_command=f"cat {secret}", transfers=1)
    assert run.exit_code == 0
    assert run.stats.renewals == 1
    assert read_version(tmp_path / "d") == files


def test_a_failed_link_command_does_not_start_a_walk(tmp_path: Path) -> None:
    """Without a link a walk would fail as well."""
    with Simulator() as sim:
        sim.offer_export()
        stale = sim.create_link(EXPORT)
        sim.revoke_links()
        run = sim.mirror(tmp_path / "d", link=stale, link_command="false")
    assert isinstance(run.error, NotAuthorised)
    assert "--link-command" in str(run.error)
    assert not [event for event in run.events_of(Notice) if "walking" in event.message]
