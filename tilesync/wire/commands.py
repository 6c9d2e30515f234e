"""Commands of the user's own: secrets that they print, and what they are told."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Final, TextIO

from tilesync.errors import NotAuthorised, UsageError
from tilesync.threads import STOP

LIMIT: Final = timedelta(minutes=5)
"""How long a secret may be on its way: all others wait for it."""

_LOOK: Final = 0.2
"""Seconds between two looks whether its end is waited for still."""

_PARTING: Final = 5.0
"""Seconds for a command that was asked to end."""

_QUOTE: Final = "give one program with its arguments; no shell sees them, so a pipe or a redirection wants a script"


class Abandoned(Exception):
    """The command was ended: nobody waits for it any more."""


def words_of(command: str, option: str) -> list[str]:
    """The words of a command, which no shell sees. Raises UsageError when there are none."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"the command of {option} cannot be read ({error})", hint=_QUOTE) from None
    if not words:
        raise UsageError(f"{option} names no command", hint=_QUOTE)
    return words


def printed(command: str, option: str) -> str:
    """What a command prints on stdout; it blocks. Raises UsageError, NotAuthorised when it fails or takes too long."""
    words, hint = words_of(command, option), f"run the command of {option} by hand; it must print the secret and exit 0"

    def look(seconds: float) -> None:
        if seconds > LIMIT.total_seconds():
            raise NotAuthorised(f"the command of {option} has not ended within {seconds:.0f} s", hint=hint)

    try:
        code, out = ended(words, look=look)
    except (OSError, ValueError) as error:
        raise NotAuthorised(f"the command of {option} cannot be run ({error})", hint=hint) from error
    except Abandoned:
        raise NotAuthorised(f"the command of {option} was ended", hint=hint) from None
    if code != 0:
        raise NotAuthorised(f"the command of {option} failed with exit code {code}", hint=hint)
    return out.decode(errors="replace").strip()


def ended(
    words: list[str], data: bytes = b"", *, into: TextIO | None = None, look: Callable[[float], None]
) -> tuple[int, bytes]:
    """Exit code of a command, and what it printed on stdout, unless that goes `into` a file; it blocks. `data` is its
    standard input. `look` is called with the seconds that it has run, again and again: what that raises ends it.

    Raises OSError and ValueError where it cannot be run, Abandoned where its end is waited for no more.
    """
    stop, began = STOP.get() or threading.Event(), time.monotonic()
    with tempfile.TemporaryFile() as giving:  # a pipe would want someone who writes while others wait
        giving.write(data)
        giving.seek(0)
        with subprocess.Popen(words, stdin=giving, stdout=into or subprocess.PIPE) as process:  # noqa: S603 - the user's own
            try:
                while True:
                    with suppress(subprocess.TimeoutExpired):
                        out, _ = process.communicate(timeout=_LOOK)
                        return process.returncode, out or b""
                    if stop.is_set():
                        raise Abandoned
                    look(time.monotonic() - began)
            except BaseException:
                _end(process)
                raise


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_PARTING)
    except subprocess.TimeoutExpired:
        process.kill()
