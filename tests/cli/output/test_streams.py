"""Test output streams that are closed, full or not read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.builders import IMODEL
from tests.support.commandline import (
    make_environment,
    start_tilesync,
)
from tests.support.simulator import Simulator


def test_a_closed_pipe_is_no_error(service: Simulator, tmp_path: Path) -> None:
    """`tilesync exports | head -0`: no traceback if nobody reads stdout."""
    running = start_tilesync("exports", IMODEL, "--json", sim=service)
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    shown = running.stderr.read()
    running.stderr.close()
    running.wait(20)
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("streams", "exit_code"),
    [(">&-", 8), (">&- 2>&-", 8), (">/dev/full", 8), ("2>/dev/full", 0), ("2>&-", 0), ("<&-", 0)],
)
def test_closed_or_full_streams_do_not_end_a_run(
    service: Simulator, tmp_path: Path, streams: str, exit_code: int
) -> None:
    """Without stdout, stderr or stdin, or with a full one, the export is still mirrored; exit 8 says that
    output on stdout was lost.
    """
    command = f'exec "{sys.executable}" -m tilesync mirror {IMODEL} "{tmp_path / "d"}" --json {streams}'
    done = subprocess.run(["sh", "-c", command], env=make_environment(service), timeout=60, check=False)
    assert done.returncode == exit_code
    assert (tmp_path / "d" / "tileset.json").is_file()
