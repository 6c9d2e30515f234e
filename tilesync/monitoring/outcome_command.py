"""Commands that run after a run: --on-success and --on-failure."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, TextIO

from tilesync.errors import UsageError
from tilesync.runtime.subprocess import CommandCancelled, OutputTooLarge, run_command, split_command

COMMAND_TIME_LIMIT: Final = timedelta(seconds=60)
"""Longest time that a command may take; then it is ended."""


def parse_command(command: str, option: str) -> list[str]:
    """Split the command of an option into words. Raises UsageError if it cannot be read, or its program is missing."""
    words = split_command(command, option)
    if shutil.which(words[0]) is None:
        raise UsageError(
            f"the command of {option} cannot be run: there is no program {words[0]}",
            hint="give the whole path of the program; no shell runs it",
        )
    return words


def run_outcome_command(
    words: list[str],
    option: str,
    report: Mapping[str, Any],
    *,
    output: TextIO | None,
    time_limit: timedelta = COMMAND_TIME_LIMIT,
) -> str:
    """Run a command with the report as JSON on its standard input; its output goes to `output`.

    Return its failure as a sentence for a warning; empty if it ended well.
    """
    limit_s = time_limit.total_seconds()

    def end_if_slow(seconds: float) -> None:
        if seconds > limit_s:
            raise CommandCancelled

    data = json.dumps(report, ensure_ascii=False).encode(errors="surrogatepass") + b"\n"
    try:
        code, _ = run_command(words, data, stdout=output, on_poll=end_if_slow)
    except (OSError, ValueError) as error:
        return f"the command of {option} cannot be run ({error})"
    except OutputTooLarge:
        return f"the command of {option} was ended: it printed too much"
    except CommandCancelled:
        return f"the command of {option} was ended: it took longer than {limit_s:.0f} s"
    return f"the command of {option} failed with exit code {code}" if code else ""
