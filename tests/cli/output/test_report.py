"""Test the report file and the log file of a run."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from tests.support.builders import IMODEL
from tests.support.commandline import FAILED_FIELDS, run_tilesync, start_tilesync
from tests.support.faults import call_before, error_response, is_blob, is_blob_named
from tests.support.simulator import EXPORT, OTHER_EXPORT, Simulator

SCHEMA = json.loads((Path(__file__).parents[3] / "docs/schemas/mirror-report.schema.json").read_text())


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


def check_report(path: Path) -> dict[str, Any]:
    """Assert that a report fits its schema, which describes each of its fields; return it."""
    report: dict[str, Any] = json.loads(path.read_text())
    Draft202012Validator(SCHEMA).validate(report)
    assert report.keys() <= SCHEMA["properties"].keys()
    kinds = {"failures": ("failedExport", "failedFile"), "remarks": ("remark",)}
    for name, definitions in kinds.items():
        described = [SCHEMA["$defs"][each]["properties"].keys() for each in definitions]
        assert all(row.keys() in described for row in report[name])
    return report


def test_the_schema_is_valid_and_describes_each_field() -> None:
    """The schema is one of draft 2020-12, and each field of a report has a type and a description in it."""
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"].keys() == FAILED_FIELDS | {"dry_run", "failures", "remarks", "warnings"}
    assert set(SCHEMA["required"]) == SCHEMA["properties"].keys() - {"error", "message", "hint", "dry_run"}
    assert all(field["description"] for field in SCHEMA["properties"].values())


def test_reports_of_good_runs_fit_the_schema(service: Simulator, tmp_path: Path) -> None:
    """A run that publishes, one that finds nothing new, and a plan write reports that fit the schema."""
    report = tmp_path / "report.json"
    for options, published in (("-n",), False), ((), True), ((), False):
        done = run_tilesync("mirror", IMODEL, tmp_path / "d", "--report", report, *options, sim=service)
        assert done.exit_code == 0, done.stderr
        found = check_report(report)
        assert (found["published"], "dry_run" in found) == (published, bool(options))


def test_reports_of_failed_runs_fit_the_schema(service: Simulator, tmp_path: Path) -> None:
    """Failed files, failed exports, usage errors, also of a link, and warnings have reports that fit the schema."""
    report = tmp_path / "report.json"
    service.add_fault(is_blob_named("tiles/001.glb"), error_response(404, "BlobNotFound"), times=None)
    command = ("mirror", IMODEL, tmp_path / "d", "--report", report, "--retry-for", "1s", "--on-failure", "false")
    run_tilesync(*command, sim=service)
    found = check_report(report)
    assert (found["exit"], found["failures"][0]["name"], len(found["warnings"])) == (3, "tiles/001.glb", 1)
    service.offer_export(export_id=OTHER_EXPORT, lastModified="2026-03-03T08:30:00Z")
    run_tilesync(*command, "--all-exports", sim=service)
    assert EXPORT in {row.get("export") for row in check_report(report)["failures"]}
    for options in ("--bogus",), ("--include", ""), ("--export-id", "99999999-0000-4000-8000-000000000009"):
        done = run_tilesync(*command, *options, "--wait", "0s", sim=service)
        assert check_report(report)["exit"] == done.exit_code != 0
    run_tilesync("mirror", "-", tmp_path / "e", "--report", report, stdin=service.create_link(EXPORT), sim=service)
    assert "sig" not in check_report(report)["source"]


def test_the_report_of_an_interrupted_run_fits_the_schema(service: Simulator, tmp_path: Path) -> None:
    """A run that a signal ended writes a report that fits the schema."""
    inside, release = threading.Event(), threading.Event()
    service.add_fault(is_blob, call_before(inside.set, lambda: release.wait(30)), times=None)
    process = start_tilesync("mirror", IMODEL, tmp_path / "d", "--report", tmp_path / "report.json", sim=service)
    try:
        assert inside.wait(20)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    finally:
        release.set()
    assert (process.returncode, check_report(tmp_path / "report.json")["error"]) == (143, "Terminated")


@pytest.mark.parametrize(
    "change",
    [
        {"exit": 3},
        {"kind": "done"},
        {"fetched": -1},
        {"seconds": "4"},
        {"error": "DiskFull"},
        {"started": "yesterday"},
        {"failures": [{"name": "a.glb"}]},
        {"warnings": None},
    ],
)
def test_the_schema_refuses_other_documents(service: Simulator, tmp_path: Path, change: dict[str, Any]) -> None:
    """A report with a wrong field does not fit the schema, so that the tests above can fail."""
    report = tmp_path / "report.json"
    run_tilesync("mirror", IMODEL, tmp_path / "d", "-n", "--report", report, sim=service)
    with pytest.raises(ValidationError):
        Draft202012Validator(SCHEMA).validate(check_report(report) | change)
