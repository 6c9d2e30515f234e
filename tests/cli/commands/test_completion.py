"""`tilesync completion`: completion of commands, options and paths in real shells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commandline import make_environment, run_tilesync
from tests.support.shells import CompletionShell

LINES = {
    "command": ("tilesync mirr", "mirror"),
    "option": ("tilesync mirror --keep-v", "--keep-versions"),
    "value": ("tilesync mirror --layout fl", "flat"),
    "file": ("tilesync mirror --report rep", "report.json"),
    "folder of DEST": ("tilesync verify ti", "tiles/"),
    "folder of the second argument": ("tilesync mirror x ti", "tiles/"),
    "folder of an option": ("tilesync verify --state-dir ti", "tiles/"),
    "folder of the demo": ("tilesync demo ti", "tiles/"),
    "name of a command": ("tilesync config mirr", "mirror"),
    "shell": ("tilesync completion zs", "zsh"),
}
"""Each kind of word: a line, and the text that the shell makes of its last word."""

HEAVY = {"asyncio", "httpx", "cloup", "tomllib", "platformdirs", "tilesync.api.aio", "tilesync.api.locations"}
"""Modules that no completion needs."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with a file and a folder to complete."""
    folder = tmp_path / "work"
    (folder / "tiles").mkdir(parents=True)
    (folder / "report.json").touch()
    (folder / "tick.txt").touch()
    return folder


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_words_are_completed(shell: str, line: str, folder: Path) -> None:
    """Each shell completes commands, options, values and local paths; where a folder is needed, only folders."""
    text, expected = LINES[line]
    shown = CompletionShell(shell, folder).complete(text, expected)
    assert expected in shown
    assert "tick.txt" not in shown


FOLDERS = {
    "zsh": (
        "mkdir ~/.zfunc; tilesync completion zsh > ~/.zfunc/_tilesync;"
        " fpath+=(~/.zfunc); autoload -Uz compinit; compinit -D -u"
    ),
    "fish": (
        "set -g fish_complete_path ~/.config/fish/completions $fish_complete_path; mkdir -p ~/.config/fish/completions;"
        " tilesync completion fish > ~/.config/fish/completions/tilesync.fish"
    ),
}
"""Commands of --help for shells that load a script from a folder when it is needed."""


@pytest.mark.parametrize("shell", FOLDERS)
def test_the_script_works_in_the_folder_of_the_shell(shell: str, folder: Path) -> None:
    """A script that stands where --help says is loaded by the shell itself."""
    assert "--keep-versions" in CompletionShell(shell, folder, setup=FOLDERS[shell]).complete(*LINES["option"])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_does_not_read_the_config(shell: str, folder: Path) -> None:
    """A config file with a mistake, and variables with wrong values, do not disturb completion."""
    (folder / "c.toml").write_text("not toml")
    broken = {"TILESYNC_CONFIG": str(folder / "c.toml"), "TILESYNC_RETRY_FOR": "soon", "TILESYNC_DEST": "az://"}
    assert "--keep-versions" in CompletionShell(shell, folder, **broken).complete(*LINES["option"])


def list_completions(words: str, index: int) -> tuple[list[str], list[str]]:
    """Complete as the script of zsh does; return the words, and the modules that were loaded."""
    code = (
        "import atexit, json, sys; atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr));"
        "from tilesync.__main__ import main; main()"
    )
    request = {"_TILESYNC_COMPLETE": "zsh_complete", "COMP_WORDS": words, "COMP_CWORD": str(index)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=make_environment() | request, capture_output=True, text=True, check=True
    )
    return done.stdout.split("\n")[1::3], json.loads(done.stderr)


def test_completion_loads_little() -> None:
    """Completion after SOURCE and DEST loads no module that only a run needs."""
    words, modules = list_completions("tilesync mirror x az://account/c --", 4)
    assert {"--keep-versions", "--json", "--help"} <= set(words)
    assert not HEAVY & set(modules)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_help_says_where_the_script_belongs(shell: str) -> None:
    """--help has the command that puts the script where the shell finds it, in one line."""
    lines = run_tilesync("completion", "--help").stdout.splitlines()
    assert any(line.strip().startswith(f"tilesync completion {shell} > ~/.") for line in lines)


def test_an_unknown_shell() -> None:
    """A shell that has no completion is a usage error that names those that have."""
    done = run_tilesync("completion", "tcsh")
    assert done.exit_code == 2
    assert "'bash', 'zsh', 'fish'" in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_script_that_cannot_be_written() -> None:
    """If standard output is full, the command fails: a script that is cut off would break the shell."""
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "tilesync", "completion", "zsh"]
        done = subprocess.run(command, env=make_environment(), stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 8
    assert b"standard output cannot be written" in done.stderr
