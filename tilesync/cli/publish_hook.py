"""The command that is run when the pointer has moved."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from tilesync.errors import DestinationError
from tilesync.events import Warned
from tilesync.protocols import Observer
from tilesync.runtime.threads import run_in_thread

FAILURE_HINT: Final = "the pointer has moved all the same; the next run with --on-publish runs the command again"

WARN_AFTER_S: Final = 60
"""Seconds after which it is told that a command is waited for."""


async def run_publish_command(command: list[str], report: dict[str, Any], observe: Observer) -> None:
    """Run a command with a report, as JSON, on its standard input; what it prints goes to standard error.

    Raises DestinationError when it fails.
    """
    await run_in_thread(_run_blocking, command, report, observe)


def _run_blocking(command: list[str], report: dict[str, Any], observe: Observer) -> None:
    from tilesync.runtime.subprocess import CommandCancelled, run_command

    told: list[str] = []

    def look(seconds: float) -> None:
        if seconds > WARN_AFTER_S and not told:
            told.append(
                f"the command of --on-publish has not ended for {WARN_AFTER_S} s; until it does DEST stays locked"
            )
            observe(Warned(told[0]))

    data = json.dumps(report, ensure_ascii=False).encode(errors="surrogatepass") + b"\n"
    try:
        code, _ = run_command(command, data, stdout=sys.stderr, on_poll=look)
    except (OSError, ValueError) as error:
        raise DestinationError(f"the command of --on-publish cannot be run ({error})", hint=FAILURE_HINT) from error
    except CommandCancelled:
        raise DestinationError("the command of --on-publish was ended", hint=FAILURE_HINT) from None
    if code != 0:
        raise DestinationError(f"the command of --on-publish failed with exit code {code}", hint=FAILURE_HINT)
