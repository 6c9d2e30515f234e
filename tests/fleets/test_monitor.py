"""Test the JSON lines and the report of a fleet: their documentation and their schema describe each field."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from tests.support.commandline import FAILED_FIELDS, FINISHED_FIELDS, CommandResult, run_tilesync
from tests.support.fleet_service import Fleet, fill_fleet
from tests.support.simulator import Simulator

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA = json.loads((DOCS / "schemas/fleet-report.schema.json").read_text())

ERROR_FIELDS = FAILED_FIELDS - FINISHED_FIELDS


@dataclass
class FleetRun:
    """A run of a fleet: its JSON lines, and its report."""

    done: CommandResult
    report: dict[str, Any]

    def outcomes(self) -> list[dict[str, Any]]:
        """Return the lines of its mirrors."""
        return [line for line in self.done.lines if line["kind"] in {"mirror-finished", "mirror-failed"}]

    def outcome(self, end_of_name: str) -> dict[str, Any]:
        """Return the outcome of one mirror in the report."""
        (found,) = [each for each in self.report["outcomes"] if each["mirror"].endswith(end_of_name)]
        return dict(found)


def run_fleet(folder: Path, fleet: Fleet, *options: str, head: str = "") -> FleetRun:
    """Run the fleet of an iTwin, with two destinations for each iModel."""
    file = folder / "fleet.toml"
    file.write_text(
        f'{head}[defaults]\nwait = "0s"\nretry-for = "1s"\n[[mirror]]\nname = "campus"\nitwin = "{fleet.itwins[0]}"\n'
        'dest = ["tiles/{name}", "copies/{name}"]\n'
    )
    done = run_tilesync(
        "fleet", file, "--json", "--report", folder / "report.json", *options, sim=fleet.sim, XDG_STATE_HOME=str(folder)
    )
    return FleetRun(done, json.loads((folder / "report.json").read_text()))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FleetRun]:
    """Run fleets that end well, plan, fail, and stop at the end of the window."""
    folder = tmp_path_factory.mktemp("fleet")
    with Simulator() as sim:
        fleet = fill_fleet(sim, 3)
        found = {"planned": run_fleet(folder, fleet, "-n"), "good": run_fleet(folder, fleet)}
        found["unchanged"] = run_fleet(folder, fleet)
        fleet.invalidate(1)
        (folder / "copies/Bridge-0002").rename(folder / "copies/moved")
        (folder / "copies/Bridge-0002").write_text("a file where a folder is expected")
        found["failed"] = run_fleet(folder, fleet)
        fleet.hang_container(fleet.models.index(fleet.add()))
        found["stopped"] = run_fleet(folder, fleet, "--max-duration", "2s")
        fleet.release_hanging()
    return found


def test_the_runs_end_as_their_names_say(runs: dict[str, FleetRun]) -> None:
    """Each run has the results and the exit code that the tests below rely on."""
    results = {
        name: (
            run.done.exit_code,
            [run.report[each] for each in ("updated", "unchanged", "planned", "failed", "stopped")],
        )
        for name, run in runs.items()
    }
    assert results == {
        "planned": (0, [0, 0, 3, 0, 0]),
        "good": (0, [3, 0, 0, 0, 0]),
        "unchanged": (0, [0, 3, 0, 0, 0]),
        "failed": (8, [0, 2, 0, 1, 0]),
        "stopped": (8, [0, 2, 0, 1, 1]),
    }
    assert runs["stopped"].outcome("0003")["exit"] == 14


def test_the_report_is_the_last_line_with_the_outcomes(runs: dict[str, FleetRun]) -> None:
    """The report has the last line of --json, the line of each mirror, and the problems first."""
    for run in runs.values():
        last = run.done.lines[-1]
        assert last["kind"] == "fleet-finished"
        assert {name: run.report[name] for name in last} == last
        by_name = {line["mirror"]: line for line in run.outcomes()}
        assert {line["mirror"]: line for line in run.report["outcomes"]} == by_name
    assert [each["exit"] for each in runs["stopped"].report["outcomes"]] == [8, 4, 14, 0]


def read_fields(heading: str) -> set[str]:
    """Return the names in the first column of the table with this heading, in the page of formats."""
    table = (DOCS / "formats.md").read_text().partition(f"| {heading} |")[2].partition("\n\n")[0]
    return {name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}


def test_the_page_of_formats_names_each_field(runs: dict[str, FleetRun]) -> None:
    """Lines of mirrors have the fields of `finished` or `failed` and of their table, that of the fleet its own."""
    for run in runs.values():
        assert run.done.lines[-1].keys() == {"kind"} | read_fields("field of a fleet")
        for line in run.outcomes():
            is_failed = line["kind"] == "mirror-failed"
            expected = (FAILED_FIELDS if is_failed else FINISHED_FIELDS) | read_fields("field of a mirror")
            assert line.keys() - {"dry_run"} == expected
            assert "dry_run" not in line or line["dry_run"] is True
            for copy in line["copies"]:
                assert copy.keys() == (FAILED_FIELDS if copy["kind"] == "failed" else FINISHED_FIELDS)


def test_events_have_the_name_of_their_mirror(runs: dict[str, FleetRun]) -> None:
    """Each event of a mirror names it; only what concerns the whole fleet has no name. All but outcomes are flat."""
    for run in runs.values():
        assert {line["kind"] for line in run.done.lines[:-1] if "mirror" not in line} <= {"forecast", "notice"}
        for line in run.done.lines:
            if line["kind"] not in {"mirror-finished", "mirror-failed"}:
                assert not any(isinstance(value, dict | list) for value in line.values())


def test_a_copy_that_fails_makes_its_mirror_fail(runs: dict[str, FleetRun]) -> None:
    """The download is good, the mirror has failed with the code of the copy, whose line says why."""
    line = runs["failed"].outcome("0002")
    assert (line["kind"], line["result"], line["exit"]) == ("mirror-failed", "unchanged", 8)
    assert [(copy["kind"], copy["exit"]) for copy in line["copies"]] == [("failed", 8)]


def test_reports_fit_the_schema(runs: dict[str, FleetRun]) -> None:
    """Reports of runs that end well, plan, fail and stop fit the schema, which describes each of their fields."""
    outcome, copy = (SCHEMA["$defs"][name]["properties"].keys() for name in ("outcome", "copy"))
    for run in runs.values():
        Draft202012Validator(SCHEMA).validate(run.report)
        assert run.report.keys() <= SCHEMA["properties"].keys()
        for line in run.report["outcomes"]:
            assert line.keys() <= outcome
            assert all(each.keys() <= copy for each in line["copies"])


def test_the_schema_is_valid_and_describes_each_field() -> None:
    """The schema is one of draft 2020-12, and has the fields of the page of formats, each with a description."""
    Draft202012Validator.check_schema(SCHEMA)
    found = {"": SCHEMA, **{name: SCHEMA["$defs"][name] for name in ("outcome", "copy")}}
    fields = {name: set(each["properties"]) for name, each in found.items()}
    assert fields[""] == ERROR_FIELDS | {"kind", "warnings", "outcomes"} | read_fields("field of a fleet")
    assert fields["outcome"] == FAILED_FIELDS | {"dry_run"} | read_fields("field of a mirror")
    assert fields["copy"] == FAILED_FIELDS | {"dry_run"}
    for name, each in found.items():
        assert set(each["required"]) == fields[name] - ERROR_FIELDS - {"dry_run"}
        assert all(field["description"] for field in each["properties"].values())


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "finished"},
        {"exit": -1},
        {"mirrors": "3"},
        {"error": "Interrupted"},
        {"started": "yesterday"},
        {"warnings": None},
        {"outcomes": [{"mirror": "a"}]},
    ],
)
def test_the_schema_refuses_other_reports(runs: dict[str, FleetRun], change: dict[str, Any]) -> None:
    """A report with a wrong field does not fit the schema, so that the tests above can fail."""
    with pytest.raises(ValidationError):
        Draft202012Validator(SCHEMA).validate(runs["good"].report | change)


@pytest.mark.parametrize("change", [{"exit": 3}, {"result": "failed"}, {"kind": "finished"}, {"copies": [{}]}])
def test_the_schema_refuses_other_outcomes(runs: dict[str, FleetRun], change: dict[str, Any]) -> None:
    """A mirror with a wrong field does not fit the schema."""
    report = runs["good"].report
    with pytest.raises(ValidationError):
        Draft202012Validator(SCHEMA).validate(report | {"outcomes": [report["outcomes"][0] | change]})


def test_a_file_with_mistakes_has_a_report_that_fits_the_schema(tmp_path: Path) -> None:
    """A run that ends before its first mirror has the same last line, with its error, and no outcomes."""
    (tmp_path / "fleet.toml").write_text('[[mirror]]\nname = "campus"\n')
    done = run_tilesync("fleet", tmp_path / "fleet.toml", "--json", "--report", tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    Draft202012Validator(SCHEMA).validate(report)
    assert (done.exit_code, report["error"], report["outcomes"]) == (2, "InvalidFleetFile", [])
    assert report["kind"] == done.lines[-1]["kind"] == "fleet-finished"
