"""A fleet that is killed at random and run again: nothing is lost, and no destination is ever broken."""

from __future__ import annotations

import random
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.faults import delay, is_blob
from tests.support.fleet_service import fill_fleet, make_small_export
from tests.support.fleets import FleetFolder
from tests.support.killed_runs import assert_pointer_complete
from tests.support.simulator import Simulator, read_latest

MAX_KILLS = 12


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2))
def test_a_killed_fleet_continues(tmp_path: Path, sim: Simulator, seed: int) -> None:
    """After SIGKILL at random moments, each pointer leads to a complete version, and the last run completes all."""
    dice = random.Random(seed)
    fleet, folder = fill_fleet(sim, 12, itwins=2), FleetFolder(tmp_path, sim)
    folder.write_itwins(fleet)
    sim.add_fault(is_blob, delay(0.1), times=None)
    dests = [folder.dest(f"p{number % 2}", model.name.replace(" ", "-")) for number, model in enumerate(fleet.models)]
    kills = 0
    for edition in (1, 2):
        for number, model in enumerate(fleet.models):
            sim.regenerate(make_small_export(number, edition=edition), export_id=model.export_id)
        for _ in range(MAX_KILLS):
            running = folder.start_program()
            try:
                running.wait(dice.uniform(0.3, 1.2))
            except subprocess.TimeoutExpired:
                running.send_signal(signal.SIGKILL)
            running.communicate()
            kills += running.returncode == -signal.SIGKILL
            for dest in dests:
                assert_pointer_complete(dest)
            if running.returncode == 0:
                break
        code, lines, errors = folder.run_program()
        assert code == 0, errors
        assert lines[-1]["mirrors"] == 12
        for number, dest in enumerate(dests):
            version = dest / "versions" / read_latest(dest)["version"]
            assert (version / "0.glb").read_bytes() == make_small_export(number, edition=edition)["0.glb"]
    assert kills, "at least one run was killed"
