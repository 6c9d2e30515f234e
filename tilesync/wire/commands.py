"""Secrets that a command prints."""

from __future__ import annotations

import shlex
import subprocess

from tilesync.errors import NotAuthorised


def words_of(command: str, option: str) -> list[str]:
    """The words of a command, which no shell sees. Raises NotAuthorised when there are none."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise NotAuthorised(f"the command of {option} cannot be run ({error})", hint=hint_of(option)) from error
    if not words:
        raise NotAuthorised(f"{option} names no command", hint=hint_of(option))
    return words


def hint_of(option: str) -> str:
    """What to do about a command that fails."""
    return f"run the command of {option} by hand; it must print the secret on stdout and exit 0"


def printed(command: str, option: str) -> str:
    """What a command prints on stdout; it blocks. Raises NotAuthorised when it fails."""
    words = words_of(command, option)
    try:
        ended = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)  # noqa: S603 - it is the user's own
    except OSError as error:
        raise NotAuthorised(f"the command of {option} cannot be run ({error})", hint=hint_of(option)) from error
    if ended.returncode != 0:
        said = f"the command of {option} failed with exit code {ended.returncode}"
        raise NotAuthorised(said, hint=hint_of(option))
    return ended.stdout.decode(errors="replace").strip()
