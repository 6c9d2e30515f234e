"""Benchmark `--transfers auto` against fixed numbers, on servers of six shapes: `scripts/bench/concurrency.py`.

Each server (shapes.py) runs in a process of its own; runs of the same shape take turns, and medians are printed, with
how many times as long as the best fixed number `auto` takes; a run of all shapes goes to RESULTS.md. Most of the time
all wait: a busy machine disturbs the shape `fast` alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from measure import run_measured
from results import CONCURRENCY, record_table
from service import SAS
from shapes import SHAPES

FILE_COUNTS = {"slow": 6000, "capped": 4000, "refusing": 6000, "far": 6000, "lossy": 12000, "fast": 20000}
"""Files per shape: enough for about ten seconds with the best number, since a run needs time to adapt."""

FIXED_TRANSFERS = {"slow": [64, 128, 256], "far": [64, 128, 256]}
"""Fixed numbers per shape, without those that take minutes."""

DEFAULT_TRANSFERS = [8, 16, 32, 64, 128, 256]

TABLE_HEADER = """### `--transfers auto` on six kinds of servers

Seconds of a first run, the medians; the ratio is auto by the best fixed number (less than 1: auto is faster).

| server | auto | fixed numbers | ratio |
| --- | ---: | --- | ---: |
"""


@contextmanager
def run_server(shape: str, files: int) -> Iterator[str]:
    """Run a server of a shape until the context ends; yield the link of its container."""
    command = [sys.executable, str(Path(__file__).with_name("shapes.py")), shape, str(files)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield f"http://127.0.0.1:{int(server.stdout.readline())}/account/bench?{SAS}"
        finally:
            server.kill()


def time_mirror(link: str, transfers: str) -> float:
    """Measure the seconds of a first run with a number of transfers."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        dest = f"{folder}/dest"
        command = [f"{Path(sys.executable).parent}/tilesync", "mirror", link, dest, "--transfers", transfers, "--json"]
        return run_measured(command, {}, Path(folder, "log")).seconds


def compare_shape(shape: str, numbers: list[str], *, files: int, rounds: int) -> str:
    """Print the times of one shape and the ratio of auto to the best fixed number; return a table row."""
    seconds: dict[str, list[float]] = {number: [] for number in ["auto", *numbers]}
    with run_server(shape, files) as link:
        for _ in range(rounds):
            for number, taken in seconds.items():
                taken.append(time_mirror(link, number))
    medians = {number: statistics.median(taken) for number, taken in seconds.items()}
    best = min(numbers, key=medians.__getitem__)
    ratio = medians["auto"] / medians[best]
    times = "  ".join(f"{number}: {taken:.1f}" for number, taken in medians.items())
    print(f"{shape:9} {times}  seconds; auto takes {ratio:.2f} times as long as {best}", flush=True)
    shown = ", ".join(f"{number}: {taken:.1f}" for number, taken in medians.items() if number != "auto")
    return f"| {shape} | {medians['auto']:.1f} | {shown} | {ratio:.2f} |"


def main() -> None:
    """Compare the given shapes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=f"of {', '.join(SHAPES)}; all of them by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, help="of each container")
    parser.add_argument("--numbers", help="the fixed numbers, with commas between them")
    asked = parser.parse_args()
    rows = list[str]()
    for shape in asked.shapes or SHAPES:
        if shape not in SHAPES:
            parser.error(f"no shape {shape}")
        numbers = (
            asked.numbers.split(",") if asked.numbers else list(map(str, FIXED_TRANSFERS.get(shape, DEFAULT_TRANSFERS)))
        )
        rows.append(compare_shape(shape, numbers, files=asked.files or FILE_COUNTS[shape], rounds=asked.rounds))
    if not asked.shapes:
        record_table(CONCURRENCY, TABLE_HEADER + "\n".join(rows) + "\n")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
