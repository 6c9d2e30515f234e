"""Test how options become arguments of the Python API: identity and source."""

from __future__ import annotations

from pathlib import Path

from tests.support.builders import IMODEL
from tests.support.commandline import (
    run_tilesync,
)
from tests.support.simulator import EXPORT, Simulator


def test_a_bad_link_is_not_repeated(tmp_path: Path) -> None:
    """An invalid link is not printed: it may contain a signature."""
    done = run_tilesync("mirror", "-", tmp_path, "--json", stdin="ftp://account/container?sig=HUSH\n")
    assert done.exit_code == 2
    assert "HUSH" not in done.stdout + done.stderr


def test_a_token_file_and_a_token_command(service: Simulator, tmp_path: Path) -> None:
    """--token-file and --token-command replace TILESYNC_TOKEN."""
    (tmp_path / "token").write_text("demo\n")
    for number, option in enumerate(
        (("--token-file", tmp_path / "token"), ("--token-command", f"cat {tmp_path / 'token'}"))
    ):
        done = run_tilesync("mirror", IMODEL, tmp_path / str(number), *option, TILESYNC_API_URL=service.url)
        assert done.exit_code == 0, done.stderr


def test_a_link_has_no_history(service: Simulator, tmp_path: Path) -> None:
    """--all-exports with a container link is a usage error."""
    link = service.create_link(EXPORT)
    done = run_tilesync("mirror", "-", tmp_path, "--all-exports", "--json", stdin=link, sim=service)
    done.assert_failed(2, "UsageError")
