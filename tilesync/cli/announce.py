"""The command that is run when the pointer has moved."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from typing import Any

from tilesync.errors import DestinationError, UsageError

HINT = "the pointer has moved all the same; the next run runs the command again"


def words_of(command: str) -> list[str]:
    """The words of a command, which no shell sees. Raises UsageError for what is none."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"the command of --on-publish cannot be read ({error})") from None
    if not words:
        raise UsageError("--on-publish names no command")
    return words


async def announce(words: list[str], report: dict[str, Any]) -> None:
    """Run a command with a report, as JSON, on its standard input; what it prints goes to standard error.

    Raises DestinationError when it fails.
    """
    data = json.dumps(report, ensure_ascii=False).encode(errors="surrogatepass") + b"\n"
    try:
        process = await asyncio.create_subprocess_exec(*words, stdin=asyncio.subprocess.PIPE, stdout=sys.stderr)
    except (OSError, ValueError) as error:
        raise DestinationError(f"the command of --on-publish cannot be run ({error})", hint=HINT) from error
    await process.communicate(data)
    if process.returncode != 0:
        raise DestinationError(f"the command of --on-publish failed with exit code {process.returncode}", hint=HINT)
