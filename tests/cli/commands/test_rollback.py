"""Test `tilesync rollback`, with the commands that a history of versions needs."""

from __future__ import annotations

from pathlib import Path

from tests.support.builders import IMODEL
from tests.support.commandline import (
    run_tilesync,
)
from tests.support.simulator import EXPORT, OTHER_EXPORT, Simulator, read_latest


def test_the_message_says_that_the_version_is_current_already(service: Simulator, tmp_path: Path) -> None:
    """A rollback to the current version, by its name or by `current`, says that the pointer names it already."""
    assert run_tilesync("mirror", IMODEL, tmp_path, sim=service).exit_code == 0
    for version in ("current", EXPORT):
        done = run_tilesync("rollback", tmp_path, version)
        assert (done.exit_code, done.stdout) == (0, "")
        assert f"already names version {EXPORT}; it is pinned" in done.stderr


def test_all_exports_versions_and_rollback(service: Simulator, tmp_path: Path) -> None:
    """--all-exports, versions, rollback, verify --all and retention: messages, exit codes and JSON."""
    service.offer_changed_export(OTHER_EXPORT, 2)
    done = run_tilesync("mirror", IMODEL, tmp_path, "--all-exports", "--json", sim=service)
    last = done.last_line
    assert (last["exit"], last["version"], last["published"], last["behind"]) == (0, OTHER_EXPORT, True, False)
    assert last["reused_bytes"] > 0
    assert last["listed"] == last["referenced"] - last["missing"] + last["orphans"]

    shown = run_tilesync("versions", tmp_path, "--json")
    rows = shown.lines_of_kind("version")
    assert shown.last_line["exit"] == 0
    assert [row["version"] for row in rows] == [OTHER_EXPORT, EXPORT]
    assert rows[0].keys() == {
        "kind", "version", "export", "imodel", "changeset", "modified", "finished", "files", "bytes", "shared_bytes",
        "state", "current", "pinned", "content", "owner", "checked",
    }  # fmt: skip
    assert rows[0]["shared_bytes"] == rows[1]["shared_bytes"] == last["reused_bytes"]
    assert [(row["current"], row["pinned"]) for row in rows] == [(True, False), (False, False)]

    back = run_tilesync("rollback", tmp_path, EXPORT[:8], "--json")
    assert back.last_line["version"] == EXPORT
    assert read_latest(tmp_path)["version"] == EXPORT
    table = run_tilesync("versions", tmp_path).stdout.splitlines()
    assert [line.split()[0] for line in table] == ["VERSION", OTHER_EXPORT, "*"]
    assert table[2].endswith("held, pinned")
    stays = run_tilesync("mirror", IMODEL, tmp_path, sim=service)
    assert stays.exit_code == 0
    assert "pinned" in stays.stderr
    assert "rollback DEST --latest" in stays.stderr
    assert run_tilesync("rollback", tmp_path, "--latest", "--json").last_line["version"] == OTHER_EXPORT

    assert "intact" in run_tilesync("verify", tmp_path, "--all").stderr
    keep = ("--keep-versions", "1", "--keep-for", "0s")
    plan = run_tilesync("mirror", IMODEL, tmp_path, *keep, "-n", sim=service)
    assert [line.split()[0] for line in plan.stdout.splitlines()] == ["keep", "retire"]
    assert "retire 1 version" in plan.stderr
    assert run_tilesync("mirror", IMODEL, tmp_path, *keep, "--json", sim=service).last_line["retired"] == 1
    assert [path.name for path in (tmp_path / "versions").iterdir()] == [OTHER_EXPORT]
