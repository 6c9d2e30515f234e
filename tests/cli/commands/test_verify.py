"""Test `tilesync verify`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.builders import IMODEL
from tests.support.commandline import (
    FINISHED_FIELDS,
    run_tilesync,
)
from tests.support.simulator import EXPORT, Simulator


def test_verify_after_mirror(service: Simulator, tmp_path: Path) -> None:
    """`verify` ends with 0 if all files are intact, and with 10 and every finding if not; `mirror` repairs."""
    run_tilesync("mirror", IMODEL, tmp_path, sim=service)
    last = run_tilesync("verify", tmp_path, "--json").last_line
    assert last.keys() == FINISHED_FIELDS
    assert last["verified"] == len(service.containers[EXPORT])
    (tmp_path / "versions" / EXPORT / "tiles/001.glb").unlink()
    (tmp_path / "versions" / EXPORT / "tiles/002.glb").write_bytes(b"")
    done = run_tilesync("verify", tmp_path, "--json")
    done.assert_failed(10, "VerifyFailed")
    findings = [json.loads(line) for line in done.stdout.splitlines() if '"finding"' in line]
    assert {(row["name"], row["problem"]) for row in findings} == {
        ("tiles/001.glb", "missing"),
        ("tiles/002.glb", "size"),
    }
    assert run_tilesync("mirror", IMODEL, tmp_path, sim=service).exit_code == 0
    assert run_tilesync("verify", tmp_path).exit_code == 0
