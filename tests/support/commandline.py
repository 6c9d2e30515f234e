"""Run tilesync as a process with a minimal environment; parse its JSON lines and `doctor` checks."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tests.support.fork_server import run_forked
from tests.support.simulator import Simulator


@dataclass(frozen=True)
class CommandResult:
    """Result of a process: exit code, stdout and stderr."""

    exit_code: int
    stdout: str
    stderr: str

    @cached_property
    def lines(self) -> list[dict[str, Any]]:
        """Return the JSON lines of stdout."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def last_line(self) -> dict[str, Any]:
        """Return the last JSON line."""
        assert self.lines[-1]["exit"] == self.exit_code, (self.stdout, self.stderr)
        return self.lines[-1]

    @cached_property
    def checks(self) -> dict[str, dict[str, Any]]:
        """Return the checks of `doctor` by name."""
        return {line["name"]: line for line in self.lines if line["kind"] == "check"}

    @property
    def failed_checks(self) -> dict[str, str]:
        """Return the results of the checks that are not ok."""
        return {name: line["result"] for name, line in self.checks.items() if line["result"] != "ok"}


def run_tilesync(*arguments: object, sim: Simulator | None = None, stdin: str = "", **more: str) -> CommandResult:
    """Run tilesync with these arguments."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH", "VIRTUAL_ENV") if name in os.environ}
    service = {} if sim is None else {"TILESYNC_API_URL": sim.url, "TILESYNC_TOKEN": sim.token}
    done = run_forked(
        [*map(str, arguments)], {**kept, "LC_ALL": "C.UTF-8", **service, **more}, stdin=stdin, timeout_s=120
    )
    assert "Traceback" not in done.stderr, done.stderr
    return CommandResult(done.returncode, done.stdout, done.stderr)
