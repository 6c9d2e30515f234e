"""Test `tilesync exports`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.builders import IMODEL
from tests.support.commandline import (
    run_tilesync,
)
from tests.support.simulator import EXPORT, OTHER_EXPORT, Simulator


def test_exports_are_listed_newest_first(service: Simulator, tmp_path: Path) -> None:
    """`exports` lists the newest first: a table for people, a JSON line each with the same facts for programs."""
    service.offer_export(export_id=OTHER_EXPORT, status="Invalid", error={"code": "X", "message": "no geometry"})
    done = run_tilesync("exports", IMODEL, sim=service)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ID")
    assert [line.split()[0] for line in lines[1:]] == [OTHER_EXPORT, EXPORT]
    done = run_tilesync("exports", "--json", sim=service)
    rows = [json.loads(line) for line in done.stdout.splitlines() if '"export"' in line and '"id"' in line]
    assert [(row["id"], row["status"], row["type"]) for row in rows] == [
        (OTHER_EXPORT, "Invalid", "3DTiles"),
        (EXPORT, "Complete", "3DTiles"),
    ]
    assert done.last_line["kind"] == "finished"


def test_stored_exports_are_marked(service: Simulator, tmp_path: Path) -> None:
    """--held marks the stored exports in the table and the JSON, and warns of the one that is deleted next."""
    service.offer_changed_export(OTHER_EXPORT, 2)
    run_tilesync("mirror", IMODEL, tmp_path, sim=service)
    done = run_tilesync("exports", IMODEL, "--held", tmp_path, "--json", sim=service)
    assert [row["held"] for row in done.lines_of_kind("export")] == ["held", None]
    assert done.lines_of_kind("warning") == []
    for day in (3, 4, 5):
        service.offer_changed_export(f"cccccccc-0000-4000-8000-00000000000{day}", day)
    done = run_tilesync("exports", IMODEL, "--held", tmp_path, sim=service)
    assert "HELD" in done.stdout.splitlines()[0]
    assert EXPORT in done.stderr
    assert "the service deletes it when" in done.stderr
    assert run_tilesync("exports", IMODEL, "--held", tmp_path / "new", sim=service).exit_code == 0
    assert not (tmp_path / "new").exists()
