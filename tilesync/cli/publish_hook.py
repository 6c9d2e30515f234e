"""Run the command of --on-publish after the pointer has moved."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from tilesync.errors import DestinationError
from tilesync.events import Warned
from tilesync.protocols import Observer
from tilesync.runtime.threads import run_in_thread

FAILURE_HINT: Final = "the pointer has moved; the next run with --on-publish runs the command again"

WARN_AFTER_S: Final = 60
"""Seconds after which a warning says that the command is still running."""


async def run_publish_command(command: list[str], report: dict[str, Any], observe: Observer) -> None:
    """Run a command with the report as JSON on its standard input; its output goes to standard error.

    Raises DestinationError when it fails.
    """
    await run_in_thread(_run_blocking, command, report, observe)


def _run_blocking(command: list[str], report: dict[str, Any], observe: Observer) -> None:
    from tilesync.runtime.subprocess import CommandCancelled, run_command

    warnings: list[str] = []

    def warn_if_slow(seconds: float) -> None:
        if seconds > WARN_AFTER_S and not warnings:
            warnings.append(
                f"the command of --on-publish is still running after {WARN_AFTER_S} s; DEST stays locked until it ends"
            )
            observe(Warned(warnings[0]))

    data = json.dumps(report, ensure_ascii=False).encode(errors="surrogatepass") + b"\n"
    try:
        code, _ = run_command(command, data, stdout=sys.stderr, on_poll=warn_if_slow)
    except (OSError, ValueError) as error:
        raise DestinationError(f"the command of --on-publish cannot be run ({error})", hint=FAILURE_HINT) from error
    except CommandCancelled:
        raise DestinationError("the command of --on-publish was stopped", hint=FAILURE_HINT) from None
    if code != 0:
        raise DestinationError(f"the command of --on-publish failed with exit code {code}", hint=FAILURE_HINT)
