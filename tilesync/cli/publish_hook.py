"""The command that is run when the pointer has moved."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from tilesync.errors import DestinationError
from tilesync.events import Warned
from tilesync.protocols import Observer
from tilesync.runtime.threads import in_thread

HINT: Final = "the pointer has moved all the same; the next run with --on-publish runs the command again"

LONG: Final = 60
"""Seconds after which it is told that a command is waited for."""


async def announce(words: list[str], report: dict[str, Any], observe: Observer) -> None:
    """Run a command with a report, as JSON, on its standard input; what it prints goes to standard error.

    Raises DestinationError when it fails.
    """
    await in_thread(_run, words, report, observe)


def _run(words: list[str], report: dict[str, Any], observe: Observer) -> None:
    from tilesync.runtime.subprocess import Abandoned, ended

    told: list[str] = []

    def look(seconds: float) -> None:
        if seconds > LONG and not told:
            told.append(f"the command of --on-publish has not ended for {LONG} s; until it does DEST stays locked")
            observe(Warned(told[0]))

    data = json.dumps(report, ensure_ascii=False).encode(errors="surrogatepass") + b"\n"
    try:
        code, _ = ended(words, data, into=sys.stderr, look=look)
    except (OSError, ValueError) as error:
        raise DestinationError(f"the command of --on-publish cannot be run ({error})", hint=HINT) from error
    except Abandoned:
        raise DestinationError("the command of --on-publish was ended", hint=HINT) from None
    if code != 0:
        raise DestinationError(f"the command of --on-publish failed with exit code {code}", hint=HINT)
