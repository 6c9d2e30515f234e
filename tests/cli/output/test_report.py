"""Test the report file and the log file of a run."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.builders import IMODEL
from tests.support.commandline import (
    run_tilesync,
)
from tests.support.faults import (
    error_response,
    is_blob_named,
)
from tests.support.simulator import Simulator


def test_report_and_log_file(service: Simulator, tmp_path: Path) -> None:
    """--report writes the last line with all failures; --log-file appends every event with its time."""
    fault = service.add_fault(
        is_blob_named("tiles/001.glb", "tiles/002.glb"), error_response(404, "BlobNotFound"), times=2
    )
    where = ("--report", tmp_path / "report.json", "--log-file", tmp_path / "log")
    done = run_tilesync("mirror", IMODEL, tmp_path / "d", "--json", *where, sim=service)
    assert fault.hits == 2
    report = json.loads((tmp_path / "report.json").read_text())
    assert {row["name"] for row in report["failures"]} == {"tiles/001.glb", "tiles/002.glb"}
    assert {key: report[key] for key in done.last_line} == done.last_line
    first = (tmp_path / "log").read_text().splitlines()
    assert all({"time", "kind"} <= json.loads(line).keys() for line in first)
    assert run_tilesync("mirror", IMODEL, tmp_path / "d", *where, sim=service).exit_code == 0
    assert (tmp_path / "log").read_text().splitlines()[: len(first)] == first
    assert json.loads((tmp_path / "report.json").read_text())["failures"] == []
