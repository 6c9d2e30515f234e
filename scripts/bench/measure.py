"""Run a program and measure time, CPU and memory."""

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
    """Cost of a run: elapsed seconds, CPU seconds (user and system), peak memory in MB; and its end, as Unix time."""

    seconds: float
    cpu_seconds: float
    memory_mb: float
    ended_at: float


@dataclass
class RunCosts:
    """Costs of the rounds of one program; each figure is the median, except memory, which is the maximum.

    `figures`: further figures of each round, by the title of their column.
    """

    rounds: list[RunCost] = field(default_factory=list)
    figures: dict[str, list[float]] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Return the median of the elapsed seconds."""
        return statistics.median(each.seconds for each in self.rounds)

    @property
    def cpu_seconds(self) -> float:
        """Return the median of the CPU seconds."""
        return statistics.median(each.cpu_seconds for each in self.rounds)

    @property
    def memory_mb(self) -> float:
        """Return the maximum memory of all rounds, in MB."""
        return max(each.memory_mb for each in self.rounds)

    def median_of(self, title: str) -> float:
        """Return the median of a further figure."""
        return statistics.median(self.figures[title])


def run_measured(command: Sequence[str], env: Mapping[str, str], log: Path) -> RunCost:
    """Run a program with its output in `log`. Exits if it fails: a failed run gives no figure.

    Python may write its compiled modules: where the environment forbids that, each process would compile them again.
    """
    everything = {**os.environ, **env}
    everything.pop("PYTHONDONTWRITEBYTECODE", None)
    with log.open("wb") as out:
        began = time.monotonic()
        process = subprocess.Popen(command, env=everything, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        with _watch_memory(process.pid) as watch:
            _, status, usage = os.wait4(process.pid, 0)
        seconds, ended_at = time.monotonic() - began, time.time()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command[0]} ended with {process.returncode}:\n{log.read_text(errors='replace')[-3000:]}")
    return RunCost(seconds, usage.ru_utime + usage.ru_stime, watch.max_kb / 1024, ended_at)


class _MemoryWatcher(threading.Thread):
    """Samples the peak memory of a process and its children, in KB, twenty times a second; of the
    operating system's own count that of the program before it was started would be a part.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._stopped = threading.Event()
        self.max_kb = 0

    def run(self) -> None:
        """Sample until stopped."""
        while not self._stopped.wait(0.05):
            self.max_kb = max(self.max_kb, sum(map(_peak_memory_kb, [self._pid, *_children(self._pid)])))

    def stop(self) -> None:
        """Stop sampling."""
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


def measure_cpu_seconds(pid: int) -> float:
    """Return the CPU seconds (user and system) of a running process and its children. Source: proc(5)."""
    ticks = 0
    for each in (pid, *_children(pid)):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure_peak_memory_mb(pid: int) -> float:
    """Return the peak memory of a running process and its children, in MB."""
    return sum(map(_peak_memory_kb, (pid, *_children(pid)))) / 1024
