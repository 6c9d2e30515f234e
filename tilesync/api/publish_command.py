"""Run the command of --on-publish after the pointer has moved."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from tilesync.api.call import OnPublish
from tilesync.errors import DestinationError
from tilesync.events import Warned
from tilesync.protocols import Observer
from tilesync.runtime.subprocess import CommandCancelled, run_command, split_command
from tilesync.runtime.threads import run_in_thread

FAILURE_HINT: Final = "the pointer has moved; the next run with --on-publish runs the command again"

WARN_AFTER_S: Final = 60
"""Seconds after which a warning says that the command is still running."""


def create_publish_hook(command: str, observe: Observer) -> OnPublish:
    """Create the function that runs a command with the report as JSON on its standard input. Raises UsageError.

    Its output goes to standard error. The function raises DestinationError when the command fails.
    """
    arguments = split_command(command, "--on-publish")

    async def run(report: dict[str, Any]) -> None:
        await run_in_thread(_run_blocking, arguments, report, observe)

    return run


def _run_blocking(command: list[str], report: dict[str, Any], observe: Observer) -> None:
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
