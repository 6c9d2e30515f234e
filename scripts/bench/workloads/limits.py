"""The small and large files where the client is the limit, and where the line is."""

from __future__ import annotations

import json
import subprocess
import sys

from bench import Bench, Column, Runner
from exports import LARGE_FILE_BYTES, LARGE_FILE_COUNT, MEDIAN_TILE_BYTES
from measure import RunCost, measure_cpu_seconds
from peers import Peers
from service import SAS
from shaping import LINE_BITS_PER_S, ROUND_TRIP_S

from workloads.downloads import bytes_of, fastest_clients, large_clients, rate_column
from workloads.uploads import PUT_TITLE, copy_and_download, put_clients

LARGE_TITLE = f"{LARGE_FILE_COUNT} files of {LARGE_FILE_BYTES >> 20} MiB"
SMALL_TITLE = f"20,201 files of median {MEDIAN_TILE_BYTES // 1000} KB"
CHECKED_FILES = 12
"""Large files that curl fetches to prove the line: six seconds, of which the connections take 0.1."""


def pinned(bench: Bench) -> str:
    """Measure with one process of the service on one core, and the client on the other."""
    note = "One process of nginx on core 0, each client on core 1: there the client is the limit."
    columns = [_busy_column(bench, "service", "core of the service busy, %")]
    tables = [
        (SMALL_TITLE, fastest_clients(bench, "small")),
        (LARGE_TITLE, large_clients(bench)),
        (PUT_TITLE, put_clients(bench)),
        ("20,201 small files, container to container", copy_and_download(bench)),
    ]
    return "\n".join(bench.measure(f"{title}, pinned to cores", runners, note, columns) for title, runners in tables)


def shaped(bench: Bench) -> str:
    """Measure over a line of 1 Gbit/s with 30 ms."""
    note = (
        f"A line of {LINE_BITS_PER_S // 10**9} Gbit/s in each direction, with a round trip of"
        f" {ROUND_TRIP_S * 1000:.0f} ms ({_prove_line(bench)}). The service and the line have core 0, each client has"
        " core 1 alone."
    )
    columns = [_busy_column(bench, name, f"core 0 busy with the {name}, %") for name in ("service", "line")]
    tables = list[str]()
    for title, container in ((SMALL_TITLE, "small"), (LARGE_TITLE, "large")):
        runners = fastest_clients(bench, "small") if container == "small" else large_clients(bench)
        rate = rate_column(bytes_of(bench, container))
        tables.append(bench.measure(f"{title}, over a shaped line", runners, note, [rate, *columns]))
    return "\n".join(tables)


def _busy_column(bench: Bench, process: str, title: str) -> Column:
    """Return a column with the CPU time of a process of the service as a share of the run."""
    before = 0.0

    def start() -> None:
        nonlocal before
        before = measure_cpu_seconds(bench.pids[process])

    def read(_: Runner, cost: RunCost) -> float:
        return 100 * (measure_cpu_seconds(bench.pids[process]) - before) / cost.seconds

    return Column(title, read, start, digits=0)


def _prove_line(bench: Bench) -> str:
    """Measure the line with curl. Exits if it is not what the tables say."""
    links = [f"{bench.peers.url}/account/large/{number:03d}.glb?{SAS}" for number in range(CHECKED_FILES)]
    seconds = min(bench.run(_curl_together(links)).seconds for _ in range(2))
    rate = CHECKED_FILES * LARGE_FILE_BYTES * 8 / seconds
    round_trip_s = _first_byte_s(bench.peers) - _first_byte_s(Peers(bench.service_url, bench.peers.state, bench.tools))
    found = f"proved with curl: {rate / 1e6:.0f} Mbit/s, and the first byte {round_trip_s * 1000:.1f} ms later"
    if not (0.95 <= rate / LINE_BITS_PER_S <= 1.01 and 0.9 <= round_trip_s / ROUND_TRIP_S <= 1.2):
        sys.exit(f"the shaped line is not what it says ({found}): is another program using this machine?")
    print(found, flush=True)
    return found


def _curl_together(links: list[str]) -> list[str]:
    outputs = [part for link in links for part in ("--output", "/dev/null", link)]
    return ["curl", "--silent", "--fail", "--parallel", "--parallel-immediate", *outputs]


def _first_byte_s(peers: Peers) -> float:
    """Return the least time from a request to its first byte, of ten on one open connection."""
    link = f"{peers.url}/account/tiny/tileset.json?{SAS}"
    command = ["curl", "--silent", "--fail", "--cacert", peers.env["CURL_CA_BUNDLE"], "--write-out", "%{json}\n"]
    outputs = ["--output", "/dev/null", link] * 10
    said = subprocess.run([*command, *outputs], capture_output=True, text=True, check=True).stdout
    times = [json.loads(line) for line in said.splitlines()]
    return min(float(each["time_starttransfer"]) - float(each["time_pretransfer"]) for each in times[1:])
