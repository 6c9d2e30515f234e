"""Output on a terminal fits its width, also after a resize; other output is complete."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import IMODEL, export
from tests.support.commandline import run_tilesync
from tests.support.simulator import EXPORT, Simulator
from tests.support.terminal import resize, run_in_terminal

NAME = "A bridge over a river, seen from the north in the morning, with every bolt and cable that it has"


@pytest.fixture
def service() -> Iterator[Simulator]:
    """Start a simulator with a long export name, and an export that failed with a long reason."""
    with Simulator() as sim:
        sim.offer_export(export(40), displayName=NAME)
        sim.offer_export(export_id=EXPORT[::-1], status="Invalid", error={"message": "the model has no geometry " * 6})
        yield sim


def run_at_width(*words: object, sim: Simulator, columns: int, **how: Any) -> str:
    """Run a command that succeeds on a terminal of this width; return its output."""
    exit_code, output = run_in_terminal(*words, sim=sim, size=(24, columns), **how)
    assert exit_code == 0, output
    return output


def split_bar_frames(shown: str) -> list[str]:
    """Split the output into the frames of the bar."""
    return [line for line in re.split(r"[\r\n]+", shown) if re.search(r"\d% ", line) or "% |" in line or "%," in line]


@pytest.mark.parametrize("columns", [20, 60, 80, 200])
def test_the_bar_fits(service: Simulator, tmp_path: Path, columns: int) -> None:
    """No frame of the bar reaches the last column, where a terminal would wrap; the last frame is erased."""
    service.delay_s = 0.1
    shown = run_at_width("mirror", IMODEL, tmp_path, "--transfers", "2", sim=service, columns=columns)
    bars = split_bar_frames(shown)
    assert len(bars) > 3
    assert max(map(len, bars)) < columns
    assert ("% |" in bars[-1]) == (columns >= 80)
    assert max(map(len, bars)) > 90 or columns < 200


@pytest.mark.scale
def test_the_bar_follows_a_terminal_that_shrinks(service: Simulator, tmp_path: Path) -> None:
    """After a resize, the next frame has the new width, blanks included."""
    service.delay_s = 0.1
    at: list[int] = []

    def look(terminal: int, shown: bytes) -> None:
        if not at and shown.count(b"% |") > 2:
            resize(terminal, 24, 60)
            at.append(len(shown))

    shown = run_at_width("mirror", IMODEL, tmp_path, "--transfers", "2", sim=service, columns=200, on_output=look)
    states = re.split(r"\r\n|\r", shown)
    wide = [number for number, state in enumerate(states) if len(state) > 59 and "/" in state and "%" in state]
    assert wide
    after = states[wide[-1] + 2 :]  # one that blanks what was there may still be under way
    assert len(split_bar_frames("\r".join(after))) > 2
    assert all(len(state) < 60 for state in after if "%" in state or not state.strip())


@pytest.mark.parametrize(
    "words", [["exports", IMODEL], ["exports"], ["exports", IMODEL, "--held", "{d}"], ["versions", "{d}"]]
)
def test_tables_fit_80_columns(service: Simulator, tmp_path: Path, words: list[str]) -> None:
    """On a terminal lines fit and ids are complete; a pipe gets everything, one line per row."""
    assert run_tilesync("mirror", IMODEL, tmp_path, sim=service).exit_code == 0
    named = [word.format(d=tmp_path) for word in words]
    shown = run_at_width(*named, "-q", sim=service, columns=80)
    lines = shown.replace("\r\n", "\n").splitlines()
    assert max(map(len, lines)) <= 80
    assert EXPORT in shown
    piped = run_tilesync(*named, sim=service).stdout
    assert EXPORT in piped
    assert NAME in piped or words[0] == "versions"
    assert max(map(len, piped.splitlines())) > 80


def test_a_plan_fits(service: Simulator, tmp_path: Path) -> None:
    """A long name keeps its end, followed by the reason."""
    service.offer_export({**export(2), f"tiles/{'deep/' * 30}leaf.glb": b"x"}, export_id="b" * 8 + EXPORT[8:])
    words = ("mirror", IMODEL, tmp_path / "d", "-n", "--exclude", "nothing")
    shown = run_at_width(*words, sim=service, columns=80)
    plan = [line for line in shown.replace("\r\n", "\n").splitlines() if line.startswith(("fetch ", "keep "))]
    assert any("…" in line and "leaf.glb  (" in line for line in plan)
    assert max(map(len, plan)) <= 80
    assert f"tiles/{'deep/' * 30}leaf.glb" in run_tilesync(*words, sim=service).stdout


def test_doctor_fits(service: Simulator) -> None:
    """Long findings and hints are wrapped between words."""
    shown = run_at_width("doctor", "--source", IMODEL, sim=service, columns=80)
    assert max(map(len, shown.replace("\r\n", "\n").splitlines())) <= 80
    assert EXPORT in shown
