"""Test options: variables of the environment, and combinations that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.builders import IMODEL, tileset
from tests.support.commandline import (
    run_tilesync,
)
from tests.support.simulator import EXPORT, OTHER_EXPORT, Simulator, read_latest


def test_source_and_destination_are_read_from_the_environment(service: Simulator, tmp_path: Path) -> None:
    """TILESYNC_SOURCE, TILESYNC_DEST and TILESYNC_JSON replace the arguments; options on the command line win."""
    done = run_tilesync(
        "mirror", sim=service, TILESYNC_SOURCE=IMODEL, TILESYNC_DEST=str(tmp_path / "d"), TILESYNC_JSON="1",
        TILESYNC_EXPORT_TYPE="3dtiles", TILESYNC_WAIT="0s",
    )  # fmt: skip
    assert done.last_line["published"] is True
    assert (tmp_path / "d/tileset.json").is_file()
    options = ("--export-type", "3DTiles")
    done = run_tilesync("mirror", IMODEL, tmp_path / "e", *options, sim=service, TILESYNC_EXPORT_TYPE="X")
    assert done.exit_code == 0


def test_itp_api_url_is_read_too(service: Simulator, tmp_path: Path) -> None:
    """ITP_API_URL names the service if TILESYNC_API_URL is not set."""
    done = run_tilesync("mirror", IMODEL, tmp_path, ITP_API_URL=service.url, TILESYNC_TOKEN="demo")
    assert done.exit_code == 0, done.stderr


def test_other_options_have_variables(service: Simulator, tmp_path: Path) -> None:
    """Options that neither delete nor lift a guard have environment variables, in all commands."""
    service.offer_changed_export(OTHER_EXPORT, 2)
    run_tilesync("mirror", IMODEL, tmp_path, sim=service, TILESYNC_ALL_EXPORTS="1")
    assert read_latest(tmp_path)["version"] == OTHER_EXPORT
    sums = run_tilesync("versions", tmp_path, TILESYNC_SHA256SUMS=EXPORT)
    assert len(sums.stdout.splitlines()) == len(service.containers[EXPORT])
    run_tilesync("rollback", tmp_path)
    assert run_tilesync("rollback", tmp_path, "--json", TILESYNC_LATEST="1").last_line["version"] == OTHER_EXPORT
    exports = run_tilesync("exports", IMODEL, "--json", sim=service, TILESYNC_HELD=str(tmp_path))
    assert [row["held"] for row in exports.lines_of_kind("export")] == ["held", "held"]


@pytest.mark.parametrize(
    "wrong",
    [
        ("--layout", "flat", "--all-exports"),
        ("--layout", "flat", "--no-publish"),
        ("--layout", "flat", "--keep-versions", "3"),
        ("--delete",),
        ("--layout", "flat", "--max-delete", "3"),
        ("--keep-versions", "0"),
        ("--keep-versions", "some"),
        ("--layout", "flat", "--delete", "--max-delete", "101%"),
        ("--layout", "flat", "--delete", "--max-delete", "1.5"),
        ("--layout", "deep"),
    ],
)
def test_options_that_conflict(service: Simulator, tmp_path: Path, wrong: tuple[str, ...]) -> None:
    """Each usage error ends with 2 and a sentence, before any request or write."""
    done = run_tilesync("mirror", IMODEL, tmp_path / "d", *wrong, "--json", sim=service)
    assert done.exit_code == 2
    assert done.last_line["error"] == "UsageError"
    assert wrong[-1 if wrong[-1].startswith("--") else -2] in done.stderr
    assert service.requests == []
    assert not (tmp_path / "d").exists()


def test_options_that_delete_have_no_variable(service: Simulator, tmp_path: Path) -> None:
    """No environment variable deletes, retires or lifts a limit; the layout and other options have variables."""
    more = {"TILESYNC_DELETE": "1", "TILESYNC_KEEP_VERSIONS": "0", "TILESYNC_MAX_DELETE": "x", "TILESYNC_KEEP_FOR": "x"}
    done = run_tilesync("mirror", IMODEL, tmp_path, sim=service, TILESYNC_LAYOUT="flat", **more)
    assert done.exit_code == 0
    assert (tmp_path / "tiles").is_dir()


def test_allow_missing_has_no_variable(service: Simulator, tmp_path: Path) -> None:
    """--allow-missing has no environment variable."""
    service.offer_export({"tileset.json": tileset("gone.glb")}, export_id=OTHER_EXPORT)
    assert run_tilesync("mirror", IMODEL, tmp_path, sim=service, TILESYNC_ALLOW_MISSING="1").exit_code == 3
