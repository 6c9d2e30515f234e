"""Warn of unknown environment variables, and refuse invalid ids, before a run starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.builders import IMODEL
from tests.support.commandline import CommandResult, run_tilesync
from tests.support.simulator import EXPORT, Simulator
from tilesync.cli.environment import find_unknown_variables
from tilesync.cli.main import cli


def list_warnings(done: CommandResult) -> list[str]:
    """Return the warnings."""
    return [line["message"] for line in done.lines if line["kind"] == "warning"]


def test_misspelt_variables_cause_a_warning(tmp_path: Path) -> None:
    """The warning suggests the nearest variable; the run ignores the unknown one, and the report has the warning."""
    with Simulator() as sim:
        sim.offer_export()
        report = tmp_path / "r"
        done = run_tilesync(
            "mirror", IMODEL, tmp_path / "d", "--json", "--report", report,
            sim=sim, TILESYNC_TRANSFER="4", TILESYNC_UNHEARD_OF="1",
        )  # fmt: skip
    assert done.exit_code == 0
    assert list_warnings(done) == [
        "TILESYNC_TRANSFER is ignored: no option reads it; did you mean TILESYNC_TRANSFERS?",
        "TILESYNC_UNHEARD_OF is ignored: no option reads it",
    ]
    assert "did you mean TILESYNC_TRANSFERS" in report.read_text()


@pytest.mark.parametrize(
    ("variable", "option"),
    [
        ("TILESYNC_KEEP_VERSIONS", "--keep-versions"), ("TILESYNC_ALLOW_SHRINK", "--allow-shrink"),
        ("TILESYNC_ALLOW_MISSING", "--allow-missing"), ("TILESYNC_DELETE", "--delete"),
        ("TILESYNC_MAX_DELETE", "--max-delete"), ("TILESYNC_CREATE_CONTAINER", "--create-container"),
    ],
)  # fmt: skip
def test_options_that_delete_have_no_variable(variable: str, option: str) -> None:
    """The warning of a variable that is ignored on purpose gives the reason and the alternative."""
    (warning,) = find_unknown_variables(cli, {variable: "3"})
    assert warning.startswith(f"{variable} is ignored: options that delete or override a guard")
    assert option in warning


def test_variables_that_are_read(tmp_path: Path) -> None:
    """No command warns of variables of other commands, of the tests, or of empty ones."""
    names = (
        "TOKEN",
        "SHARE_KEY",
        "SOURCE",
        "DEST",
        "API_URL",
        "RETRY_FOR",
        "REPORT",
        "JSON",
        "SAMPLES",
        "REQUIRE",
        "QUICK",
    )
    known = {f"TILESYNC_{name}": "x" for name in names} | {"TILESYNC_NOTHING": "", "HOME": "/", "XTILESYNC_A": "b"}
    assert list(find_unknown_variables(cli, known)) == []


@pytest.mark.parametrize(
    "words",
    [["mirror", "nosuch", "{d}"], ["exports", "not-an-id"], ["link", "not-an-id"], ["doctor", "--source", "not-an-id"]],
)
def test_an_imodel_id_must_be_a_guid(words: list[str], tmp_path: Path) -> None:
    """An iModel id that is no GUID is a usage error that says where to find one; no request is sent."""
    with Simulator() as sim:
        sim.offer_export()
        done = run_tilesync(*(word.format(d=tmp_path / "d") for word in words), "--json", sim=sim)
        assert sim.requests == []
    assert (done.last_line["exit"], done.last_line["error"]) == (2, "UsageError")
    assert done.last_line["message"] in {
        "there is no folder nosuch, and it is not an iModel id",
        "'not-an-id' is not an iModel id",
    }
    assert "`tilesync exports` without an id" in done.last_line["hint"]
    assert "My iTwins" in done.last_line["hint"]
    assert not (tmp_path / "d").exists()


def test_the_url_of_a_portal(tmp_path: Path) -> None:
    """A URL copied from a browser is accepted for the id in it; an ambiguous one is refused with an explanation."""
    other_id = "0a1b2c3d-0000-4111-8222-333344445555"
    url = f"https://developer.bentley.com/my-itwins/{other_id}/{IMODEL}/view"
    with Simulator() as sim:
        sim.offer_export()
        done = run_tilesync("mirror", url, tmp_path / "d", "--json", sim=sim)
        assert (done.exit_code, done.last_line["export"], done.last_line["source"]) == (0, EXPORT, IMODEL)
        assert run_tilesync("exports", url, "--json", sim=sim).lines[0]["id"] == EXPORT
        assert run_tilesync("link", url, "--json", sim=sim).lines[0]["kind"] == "link"
        assert run_tilesync("doctor", "--source", url, "--json", sim=sim).exit_code == 0
        for command in ("mirror", "exports", "link"):
            more = [tmp_path / "e"] if command == "mirror" else []
            done = run_tilesync(
                command, f"https://developer.bentley.com/my-itwins/{other_id}", *more, "--json", sim=sim
            )
            assert done.last_line["exit"] == 2
            assert done.last_line["message"] == "cannot tell which iModel id the URL names"
    assert os.listdir(tmp_path) == ["d"]
