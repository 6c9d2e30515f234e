"""Running a program and saying what it cost."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock, seconds of CPU in user and system mode, and the most memory held, in MB."""

    seconds: float
    cpu: float
    memory: float


@dataclass
class Costs:
    """The rounds of one program; each figure is the median of them, but memory, which is the most of any."""

    rounds: list[Cost] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Median of the seconds on the clock."""
        return statistics.median(each.seconds for each in self.rounds)

    @property
    def cpu(self) -> float:
        """Median of the seconds of CPU."""
        return statistics.median(each.cpu for each in self.rounds)

    @property
    def memory(self) -> float:
        """The most memory of any round, in MB."""
        return max(each.memory for each in self.rounds)


def run(command: Sequence[str], env: Mapping[str, str], log: Path) -> Cost:
    """Run a program to its end; what it printed is in `log`. Exits where it failed: no figure of a failed run."""
    with log.open("wb") as out:
        began = time.monotonic()
        process = subprocess.Popen(command, env={**os.environ, **env}, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command[0]} ended with {process.returncode}:\n{log.read_text(errors='replace')[-3000:]}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
