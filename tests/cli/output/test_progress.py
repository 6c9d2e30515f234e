"""Test where progress is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.builders import IMODEL
from tests.support.simulator import Simulator
from tests.support.terminal import run_in_terminal
from tilesync.api.monitor import RunStats
from tilesync.cli.output.progress import ProgressDisplay


def test_line_counts_verified_files() -> None:
    """The line of an audit, or of a pack, counts the files that were checked: it fetches none."""
    stats = RunStats(listed=440, verified=12, transferred_bytes=345_000, inventory_complete=True)
    line = ProgressDisplay(stats, bar=False, lines=True).format_line()
    assert line.startswith("12 of 440 files, 345.0 kB")


@pytest.mark.parametrize("size", [(24, 100), (0, 0)])
def test_a_bar_is_drawn_on_a_terminal(service: Simulator, tmp_path: Path, size: tuple[int, int]) -> None:
    """On a terminal a bar is drawn, also if it does not report its size."""
    service.delay_s = 0.15
    code, shown = run_in_terminal("mirror", IMODEL, tmp_path, "--transfers", "2", sim=service, size=size)
    assert code == 0
    assert "%" in shown
    assert "\r" in shown.replace("\r\n", "\n")


def test_no_bar_with_quiet_or_no_progress_or_a_dumb_terminal(service: Simulator, tmp_path: Path) -> None:
    """With --no-progress, with -q, and on a dumb terminal no bar is drawn."""
    service.delay_s = 0.1
    for number, (flag, term) in enumerate((("--no-progress", "xterm"), ("-q", "xterm"), ("-v", "dumb"))):
        code, shown = run_in_terminal("mirror", IMODEL, tmp_path / str(number), flag, sim=service, TERM=term)
        assert code == 0
        assert "\r" not in shown.replace("\r\n", "\n")
