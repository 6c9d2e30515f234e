"""Test the entry point of the command line."""

from __future__ import annotations

from tests.support.commandline import (
    run_tilesync,
)


def test_help_and_version() -> None:
    """--help names the commands and --version the version; both end fast with 0."""
    from tilesync import __version__

    for flag in ("--help", "-h"):
        done = run_tilesync(flag)
        assert done.exit_code == 0
        assert all(command in done.stdout for command in ("mirror", "verify", "exports", "link", "demo"))
    assert __version__ in run_tilesync("--version").stdout
    assert run_tilesync("mirror", "--help").exit_code == 0
