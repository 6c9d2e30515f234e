"""Benchmark tilesync against its peers: `make bench`, or `scripts/bench/compare.py [--only NAME …] [--rounds N]`.

A service is set up on loopback (nginx, TLS, 30 ms to the first byte) over generated exports, and every program does the
same work against it, in rounds that alternate. The tables hold medians, and go to RESULTS.md beside this file, unless
the rounds are given: such a table is only printed. The workloads are in `workloads/`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from bench import ROOT, Bench, Setup, compile_modules, open_bench
from exports import generate_exports
from peers import BIN, install_peers
from results import WORKLOADS, record_table
from service import ServiceOptions
from workloads import changed, downloads, inside_store, limits, reading, tail, uploads


@dataclass(frozen=True)
class Workload:
    """Function that measures, and the machine that it needs."""

    run: Callable[[Bench], str]
    setup: Setup = field(default_factory=Setup)


LOGGING = Setup(ServiceOptions(logs_requests=True))
PINNED = Setup(ServiceOptions(workers=1), service_cores="0", client_cores="1")
SHAPED = Setup(ServiceOptions(workers=1, delay_s=0), service_cores="0", client_cores="1", shaped=True)

RUNS = {
    "start": Workload(reading.start),
    "large": Workload(downloads.large),
    "small": Workload(downloads.small),
    "tail": Workload(tail.tail, LOGGING),
    "uploads": Workload(uploads.uploads),
    "growth": Workload(uploads.growth),
    "changed": Workload(changed.changed),
    "changed_many": Workload(changed.changed_many),
    "inside_container": Workload(inside_store.inside_container, LOGGING),
    "inside_bucket": Workload(inside_store.inside_bucket, LOGGING),
    "unchanged": Workload(changed.unchanged),
    "listing": Workload(reading.listing),
    "verify": Workload(reading.verify),
    "pinned": Workload(limits.pinned, PINNED),
    "shaped": Workload(limits.shaped, SHAPED),
}
"""All workloads, by their names in RESULTS.md."""


def describe_peer_versions() -> str:
    """Describe the versions of the peers."""
    curl = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout
    rclone = subprocess.run([str(BIN / "rclone"), "version"], capture_output=True, text=True, check=True).stdout
    return f"{curl.split(' (')[0]}, {rclone.splitlines()[0]}, azcopy 10.32.2"


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=WORKLOADS, default=WORKLOADS)
    parser.add_argument("--rounds", type=int, help="of each program; nothing is recorded then")
    asked = parser.parse_args()
    if sys.platform != "linux":
        sys.exit("the bench runs on Linux")
    install_peers(ROOT / "tools")
    generate_exports(ROOT / "data")
    compile_modules()
    for name in asked.only:
        workload = RUNS[name]
        with open_bench(workload.setup, rounds=asked.rounds) as bench:
            table = workload.run(bench)
        print(table)
        if not asked.rounds:
            record_table(name, table, f"; {describe_peer_versions()}")


if __name__ == "__main__":
    main()
