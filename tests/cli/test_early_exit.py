"""Test errors before a session exists: exit code, message and JSON line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.builders import IMODEL
from tests.support.commandline import (
    FAILED_FIELDS,
    run_tilesync,
)


@pytest.mark.parametrize(
    "arguments",
    [
        ["mirror"],
        ["mirror", IMODEL],
        ["mirror", IMODEL, "d", "--no-such-option"],
        ["mirror", IMODEL, "d", "--wait", "soon"],
        ["mirror", IMODEL, "d", "--wait", "99999999999d"],
        ["mirror", IMODEL, "d", "--keep-for", "999999999d"],
        ["mirror", IMODEL, "d", "--keep-versions", "0"],
        ["mirror", IMODEL, "d", "--transfers", "0"],
        ["mirror", IMODEL, "d", "--transfers", "²"],
        ["mirror", IMODEL, "d", "--delete", "--max-delete", "9" * 5000],
        ["mirror", "https://example.com/container", "d"],
        ["mirror", "http://example.com/container?sig=x", "d"],
        ["mirror", IMODEL, "az://account/c"],
        ["mirror", "two words", "d"],
        ["mirror", IMODEL, "d", "--api-url", "http://example.com"],
        ["mirror", IMODEL, "d", "--state-dir", "az://account/container"],
        ["demo", "s3://bucket/prefix"],
        ["mirror", "s3://bucket/a", "s3://bucket/a/versions"],
        ["mirror", "az://account/box/a", "az://account/box"],
        ["mirror", IMODEL, "s3://bucket/a", "--create-container"],
        ["mirror", IMODEL, "s3://bucket/a", "--cache-control", "a\nb"],
        ["mirror", IMODEL, "s3://bucket/a", "--pointer-cache-control", "ä"],
        ["mirror", IMODEL, "s3://bucket/a", "--endpoint-url", "127.0.0.1:9000"],
        ["mirror", IMODEL, "s3://bucket/a", "--endpoint-url", "https://127.0.0.1:9000?x=1"],
        ["verify"],
        ["no-such-command"],
        ["mirror", IMODEL, "d", "--log-file", "/nowhere/at/all"],
        ["mirror", IMODEL, "d", "--report", "-"],
        ["verify", "d", "--log-file=-"],
    ],
)
def test_usage_errors_end_with_2(arguments: list[str], tmp_path: Path) -> None:
    """A usage error: exit 2, a sentence on stderr, with --json the last line too, and nothing is written."""
    for more in ([], ["--json"]):
        done = run_tilesync(*arguments, *more, cwd=tmp_path, TILESYNC_TOKEN="x")
        assert done.exit_code == 2, done.stderr
        assert done.stderr
    last = done.last_line
    assert (last["kind"], last["error"]) == ("failed", "UsageError")
    assert {"kind", "exit", "error", "message", "hint"} <= last.keys() <= FAILED_FIELDS
    assert (
        list(tmp_path.iterdir()) == []
        or arguments[-2:] == ["--api-url", "http://example.com"]
        or "sig=x" in arguments[1]
    )


def test_the_json_variable_applies_to_usage_errors(tmp_path: Path) -> None:
    """TILESYNC_JSON=1 works as --json, also for usage errors."""
    done = run_tilesync("mirror", IMODEL, tmp_path, "--no-such-option", TILESYNC_JSON="1")
    assert done.last_line["exit"] == 2
