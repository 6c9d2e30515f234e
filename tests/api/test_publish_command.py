"""Test --on-publish: a command that runs after the pointer has moved."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from tests.support.builders import export
from tests.support.simulator import EXPORT, OTHER_EXPORT, Simulator


def write_hook_program(out: Path, *, exit_code: int = 0) -> str:
    """Write a program that appends its input to a file, prints a word and exits with a code."""
    code = f"import sys; print('purged'); open({str(out)!r}, 'a').write(sys.stdin.read()); sys.exit({exit_code})"
    return shlex.join([sys.executable, "-c", code])


def read_hook_reports(out: Path) -> list[dict[str, object]]:
    """Read the reports that the program received."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def test_the_hook_runs_once_per_move(tmp_path: Path) -> None:
    """The command gets the report of the run that moved the pointer; a run that moves nothing does not start it."""
    out, dest = tmp_path / "out", tmp_path / "dest"
    with Simulator() as sim:
        sim.offer_export(export(3))
        for _ in range(2):
            assert sim.mirror_program(dest, "--on-publish", write_hook_program(out)).exit_code == 0
        (first,) = read_hook_reports(out)
        assert (first["kind"], first["published"], first["pointer"], first["fetched"]) == ("finished", True, EXPORT, 8)
        assert first["failures"] == []
        sim.offer_export(export(4, seed=2), export_id=OTHER_EXPORT)
        assert sim.mirror_program(dest, "--on-publish", write_hook_program(out)).exit_code == 0
    assert [each["pointer"] for each in read_hook_reports(out)] == [EXPORT, OTHER_EXPORT]


def test_a_failed_hook_is_repeated_by_the_next_run(tmp_path: Path) -> None:
    """A failed command gives exit 8, but the pointer has moved; the next run repeats it, even with nothing to do."""
    out, dest = tmp_path / "out", tmp_path / "dest"
    with Simulator() as sim:
        sim.offer_export(export(3))
        failed = sim.mirror_program(dest, "--on-publish", write_hook_program(out, exit_code=4))
        assert (failed.exit_code, failed.last_line["error"], failed.last_line["published"]) == (
            8,
            "DestinationError",
            True,
        )
        assert (dest / "tileset.json").exists()
        assert sim.mirror_program(dest, "--on-publish", write_hook_program(out)).exit_code == 0
        assert sim.mirror_program(dest, "--on-publish", write_hook_program(out)).exit_code == 0
    assert [each["pointer"] for each in read_hook_reports(out)] == [EXPORT, EXPORT]


@pytest.mark.parametrize("words", ["", "'"])
def test_a_hook_that_cannot_be_parsed_is_a_usage_error(tmp_path: Path, words: str) -> None:
    """An empty command is ignored; one that cannot be parsed is a usage error, before anything is done."""
    with Simulator() as sim:
        sim.offer_export(export(3))
        assert sim.mirror_program(tmp_path, "--on-publish", words).exit_code == (2 if words else 0)
    assert (tmp_path / "tileset.json").exists() == (not words)
