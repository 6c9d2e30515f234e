"""Run tilesync as a process with a minimal environment; parse its JSON lines and `doctor` checks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.support.fork_server import run_forked
from tilesync.demo.fake_service import FakeBackend

RUN_FIELDS = {"started", "finished", "source", "dest", "host", "tilesync"}
FINISHED_FIELDS = RUN_FIELDS | {
    "kind", "exit", "owner", "imodel", "export", "version", "newest", "behind", "listed", "fetched", "reused",
    "reused_bytes", "kept", "excluded", "failed", "deleted", "retired", "gzip_files", "referenced", "missing",
    "orphans", "unfollowed", "verified", "looked", "bytes", "renewals", "retries", "seconds", "published",
}  # fmt: skip
"""Fields of the last JSON line of a run that ended well."""
FAILED_FIELDS = FINISHED_FIELDS | {"error", "message", "hint"}


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
        """Return the last JSON line. Each line must be a flat object with a kind; only the last one ends the run."""
        assert self.lines, self.stderr
        for line in self.lines:
            assert isinstance(line["kind"], str)
            assert not any(isinstance(value, dict | list) for value in line.values()), line
        last = self.lines[-1]
        assert last["exit"] == self.exit_code, (self.stdout, self.stderr)
        assert [line["kind"] for line in self.lines if line["kind"] in {"finished", "failed"}] == [last["kind"]]
        return last

    def lines_of_kind(self, kind: str) -> list[dict[str, Any]]:
        """Return the JSON lines of one kind."""
        return [line for line in self.lines if line["kind"] == kind]

    def assert_failed(self, exit_code: int, error: str) -> dict[str, Any]:
        """Assert how a run failed; return its last line."""
        last = self.last_line
        assert (self.exit_code, last["kind"], last["error"]) == (exit_code, "failed", error), (self.stdout, self.stderr)
        assert last.keys() == FAILED_FIELDS
        assert last["message"]
        assert last["hint"]
        assert last["message"] in self.stderr
        return last

    @cached_property
    def checks(self) -> dict[str, dict[str, Any]]:
        """Return the checks of `doctor` by name."""
        return {line["name"]: line for line in self.lines if line["kind"] == "check"}

    @property
    def failed_checks(self) -> dict[str, str]:
        """Return the results of the checks that are not ok."""
        return {name: line["result"] for name, line in self.checks.items() if line["result"] != "ok"}


def make_environment(sim: FakeBackend | None = None, **more: str) -> dict[str, str]:
    """Return a minimal environment, as cron has it, with the address of a simulator and a token for it.

    The config file of the person who runs the tests is not read.
    """
    names = ("PATH", "HOME", "PYTHONPATH", "VIRTUAL_ENV")
    inherited = {name: os.environ[name] for name in names if name in os.environ}
    service = {} if sim is None else {"TILESYNC_API_URL": sim.url, "TILESYNC_TOKEN": sim.token}
    return {**inherited, "LC_ALL": "C.UTF-8", "XDG_CONFIG_HOME": "/nonexistent", **service, **more}


def run_tilesync(
    *arguments: object, sim: FakeBackend | None = None, stdin: str = "", cwd: str | Path | None = None, **more: str
) -> CommandResult:
    """Run tilesync with these arguments; `more` is added to its environment."""
    done = run_forked(
        [*map(str, arguments)],
        make_environment(sim, **more),
        stdin=stdin,
        cwd=None if cwd is None else Path(cwd),
    )
    assert "Traceback" not in done.stderr, done.stderr
    return CommandResult(done.returncode, done.stdout, done.stderr)


def start_tilesync(*arguments: object, sim: FakeBackend | None = None, **more: str) -> subprocess.Popen[str]:
    """Start tilesync with pipes for its output; `more` is added to its environment."""
    return subprocess.Popen(
        [sys.executable, "-m", "tilesync", *map(str, arguments)],
        env=make_environment(sim, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
