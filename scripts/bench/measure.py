"""Running a program and saying what it cost."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class RunCost:
    """Seconds on the clock, seconds of CPU in user and system mode, and the most memory held, in MB."""

    seconds: float
    cpu_seconds: float
    memory_mb: float


@dataclass
class RunCosts:
    """The rounds of one program; each figure is the median of them, but memory, which is the most of any."""

    rounds: list[RunCost] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Median of the seconds on the clock."""
        return statistics.median(each.seconds for each in self.rounds)

    @property
    def cpu_seconds(self) -> float:
        """Median of the seconds of CPU."""
        return statistics.median(each.cpu_seconds for each in self.rounds)

    @property
    def memory_mb(self) -> float:
        """The most memory of any round, in MB."""
        return max(each.memory_mb for each in self.rounds)


def run_measured(command: Sequence[str], env: Mapping[str, str], log: Path) -> RunCost:
    """Run a program to its end; what it printed is in `log`. Exits where it failed: no figure of a failed run."""
    with log.open("wb") as out:
        began = time.monotonic()
        process = subprocess.Popen(command, env={**os.environ, **env}, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        with _watch_memory(process.pid) as watch:
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command[0]} ended with {process.returncode}:\n{log.read_text(errors='replace')[-3000:]}")
    return RunCost(seconds, usage.ru_utime + usage.ru_stime, watch.max_kb / 1024)


class _MemoryWatcher(threading.Thread):
    """Looks, twenty times a second, at how much memory a process and its children have held at most, in KB; of the
    operating system's own count that of the program before it was started would be a part.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._stopped = threading.Event()
        self.max_kb = 0

    def run(self) -> None:
        """Look until told to stop."""
        while not self._stopped.wait(0.05):
            self.max_kb = max(self.max_kb, sum(map(_peak_memory_kb, [self._pid, *_children(self._pid)])))

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        self.join()


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _peak_memory_kb(pid: int) -> int:
    try:
        said = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return int(said.partition("VmHWM:")[2].split()[0]) if "VmHWM:" in said else 0


@contextmanager
def _watch_memory(pid: int) -> Iterator[_MemoryWatcher]:
    watch = _MemoryWatcher(pid)
    watch.start()
    try:
        yield watch
    finally:
        watch.stop()
