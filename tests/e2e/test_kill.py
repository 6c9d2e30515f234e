"""kill -9 at any moment: the next run continues, and publishes the same bytes."""

from __future__ import annotations

import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import export, glb, read_tree
from tests.support.faults import blob_name, call_before, is_blob, is_blob_named, is_listing
from tests.support.killed_runs import assert_pointer_complete, kill_after, read_stored_rows, start_mirror
from tests.support.simulator import EXPORT, OTHER_EXPORT, Simulator, read_latest, verify


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_runs_killed_at_random_moments_end_byte_for_byte_right(tmp_path: Path, seed: int) -> None:
    """Files stored a quarter second before each kill are not fetched again, and nothing partial is ever published."""
    dice = random.Random(seed)
    with Simulator(delay_s=0.05, page_size=40) as sim:
        files = sim.offer_export({**export(150, seed=seed), "tiles/big.glb": glb(dice.randbytes(3_000_000))})
        killed = 0
        for _ in range(4):
            ready = threading.Event()
            sim.faults.clear()
            sim.run_before_request(1, is_blob, ready.set).optional = True
            before = read_stored_rows(tmp_path)
            sim.clear_requests()
            running = start_mirror(sim, tmp_path)
            if not kill_after(running, ready, dice.uniform(0.0, 0.6)):
                break
            killed += 1
            again = {blob_name(request) for request in sim.blob_requests()} & {name for _, name in before}
            assert not again
            assert_pointer_complete(tmp_path)
            assert not (tmp_path / "tileset.json").exists() or read_latest(tmp_path)["version"] == EXPORT
            assert before <= read_stored_rows(tmp_path)
        sim.faults.clear()
        sim.delay_s = 0
        stored_names = {name for _, name in read_stored_rows(tmp_path)}
        sim.clear_requests()
        run = sim.mirror(tmp_path)
        assert run.exit_code == 0
        assert not {blob_name(request) for request in sim.blob_requests()} & stored_names
    assert killed >= 1
    assert read_tree(tmp_path / "versions" / EXPORT) == files
    assert verify(tmp_path).exit_code == 0
    assert list((tmp_path / ".tilesync/parts").iterdir()) == []


def test_files_stored_well_before_the_kill_are_kept(tmp_path: Path) -> None:
    """Files that were stored well before the kill are in the catalog, and are not fetched again."""
    with Simulator(page_size=60) as sim:
        files = sim.offer_export(export(200))
        release, stuck = threading.Event(), threading.Event()

        def hang() -> None:
            stuck.set()
            release.wait(30)

        sim.add_fault(is_blob, call_before(hang), times=None, skip=100)
        running = start_mirror(sim, tmp_path)
        assert stuck.wait(20)
        deadline = time.monotonic() + 10
        placed: set[str] = set()
        while len(placed) < 100 and time.monotonic() < deadline:
            placed = set(read_tree(tmp_path / "versions" / EXPORT))
        assert len(placed) == 100
        while len(read_stored_rows(tmp_path)) < 100 and time.monotonic() < deadline:
            stuck.wait(0.01)
        running.send_signal(signal.SIGKILL)
        running.communicate()
        release.set()
        assert {name for _, name in read_stored_rows(tmp_path)} == placed
        sim.faults.clear()
        sim.clear_requests()
        run = sim.mirror(tmp_path)
        assert (run.exit_code, len(sim.blob_requests())) == (0, len(files) - 100)
    assert read_tree(tmp_path / "versions" / EXPORT) == files


def test_half_a_large_file_survives_a_kill(tmp_path: Path) -> None:
    """The next run continues a partial large file from its last recorded position."""
    with Simulator() as sim:
        data = glb(random.Random(4).randbytes(6_000_000))
        sim.offer_export({**export(2), "tiles/big.glb": data})
        stuck, release = threading.Event(), threading.Event()

        def half_then_silence(_: Any, proceed: Any) -> Any:
            answer = proceed()
            answer.sent_bytes = 4_500_000
            return answer

        sim.add_fault(is_blob_named("tiles/big.glb"), half_then_silence)
        sim.add_fault(is_blob_named("tiles/big.glb"), call_before(stuck.set, lambda: release.wait(30)))
        running = start_mirror(sim, tmp_path)
        assert stuck.wait(20)
        running.send_signal(signal.SIGKILL)
        running.communicate()
        release.set()
        sim.faults.clear()
        sim.clear_requests()
        assert sim.mirror(tmp_path).exit_code == 0
        (asked,) = sim.range_headers("tiles/big.glb")
        assert asked is not None
        assert int(asked.removeprefix("bytes=").rstrip("-")) >= 3_000_000
    assert read_tree(tmp_path / "versions" / EXPORT)["tiles/big.glb"] == data


def test_killed_during_a_second_export_the_first_stays_reachable(tmp_path: Path) -> None:
    """At every kill before the second export is published, the pointer leads to a complete version."""
    dice = random.Random(9)
    with Simulator(page_size=40) as sim:
        first = sim.offer_export(export(60))
        assert sim.mirror(tmp_path).exit_code == 0
        second = sim.offer_export(export(90, seed=9), export_id=OTHER_EXPORT)
        sim.delay_s = 0.03
        for _ in range(3):
            ready = threading.Event()
            sim.faults.clear()
            sim.run_before_request(1, is_blob, ready.set).optional = True
            if not kill_after(start_mirror(sim, tmp_path), ready, dice.uniform(0.0, 0.4)):
                break
            assert_pointer_complete(tmp_path)
            version = read_latest(tmp_path)["version"]
            assert read_tree(tmp_path / "versions" / version) == (first if version == EXPORT else second)
        sim.faults.clear()
        sim.delay_s = 0
        assert sim.mirror(tmp_path).exit_code == 0
    assert read_latest(tmp_path)["version"] == OTHER_EXPORT
    assert read_tree(tmp_path / "versions" / OTHER_EXPORT) == second
    assert read_tree(tmp_path / "versions" / EXPORT) == first


def test_a_listing_continues_after_a_kill(tmp_path: Path) -> None:
    """Listing pages that were stored before the kill are not requested again; two may be on their way."""
    with Simulator(page_size=3) as sim:
        files = sim.offer_export(export(60))
        release, stuck = threading.Event(), threading.Event()

        sim.add_fault(is_listing, call_before(stuck.set, lambda: release.wait(30)), skip=10)
        running = start_mirror(sim, tmp_path)
        assert stuck.wait(20)
        running.send_signal(signal.SIGKILL)
        running.communicate()
        release.set()
        sim.faults.clear()
        sim.clear_requests()
        assert sim.mirror(tmp_path).exit_code == 0
        assert sim.listing_requests[0].query.get("marker") in {"2!24", "2!27", "2!30"}
    assert read_tree(tmp_path / "versions" / EXPORT) == files
