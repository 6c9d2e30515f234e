"""Test `tilesync versions`."""

from __future__ import annotations

from pathlib import Path

from tests.support.builders import IMODEL
from tests.support.commandline import (
    run_tilesync,
)
from tests.support.simulator import EXPORT, Simulator


def test_sha256sums_are_piped(service: Simulator, tmp_path: Path) -> None:
    """--sha256sums prints only the list on stdout, so that sha256sum can read it."""
    run_tilesync("mirror", IMODEL, tmp_path, sim=service)
    done = run_tilesync("versions", tmp_path, "--sha256sums", EXPORT)
    assert (done.exit_code, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len(service.containers[EXPORT])
    assert run_tilesync("versions", tmp_path, "--sha256sums", "nope").exit_code == 2
    assert run_tilesync("versions", tmp_path, "--sha256sums", EXPORT, "--json").exit_code == 2
    assert run_tilesync("versions", tmp_path / "missing").exit_code == 8
