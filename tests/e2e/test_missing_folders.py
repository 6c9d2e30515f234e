"""A DEST that does not exist, as argument of commands that read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commandline import run_tilesync


@pytest.mark.parametrize("command", ["diff", "pack", "verify", "versions", "status", "rollback"])
def test_a_missing_folder_is_named(command: str, tmp_path: Path) -> None:
    """Exit 8; the message says that there is no such folder, and nothing is created."""
    done = run_tilesync(command, "nothere", *{"diff": ["current"], "pack": ["q.zip"]}.get(command, []), cwd=tmp_path)
    assert done.exit_code == 8
    assert "there is no folder nothere\n" in done.stderr
    assert list(tmp_path.iterdir()) == []
