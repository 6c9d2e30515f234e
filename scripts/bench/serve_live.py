"""Benchmark `tilesync serve IMODEL_ID`, beside requests to the container itself.

nginx is the service and the storage, with 30 ms to the first byte. `wrk` asks for tiles in random order over 16
connections: at the container with its link, at a server with a cache far too small for the tiles, and at a server that
has all of them in memory. Requests per second and latencies are printed, and the peak memory of the server. A run with
the default options goes to RESULTS.md. It needs `wrk` and `nginx` with its Lua module (Debian packages).
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data import tile_name, write_small_files
from measure import measure_peak_memory_mb
from results import LIVE, record_table
from service import SAS, imodel_id, run_nginx, write_export_response

BIN = Path(sys.executable).parent
CONTAINER, TILES, MEDIAN_BYTES, CONNECTIONS = "live", 2000, 20_000, 16

WRK_SCRIPT = """
local urls, count, next_url = {}, 0, 0
for line in io.lines(os.getenv("URLS")) do count = count + 1; urls[count] = line end
function request() next_url = next_url % count + 1; return wrk.format("GET", urls[next_url]) end
"""

TABLE_HEADER = f"""### Small tiles of a live export, over HTTP

{TILES:,} tiles of median 20 KB in a container with 30 ms to the first byte; wrk with {CONNECTIONS} connections shares
the cores with both servers.

| requests to | requests/s | p50, ms | p99, ms | peak memory of the server, MB |
| --- | ---: | ---: | ---: | ---: |
"""


def measure(url: str, paths: list[str], scratch: Path, seconds: int) -> str:
    """Request paths for some seconds; return the cells of a row. Exits if a request fails."""
    urls, script = scratch / "urls", scratch / "requests.lua"
    urls.write_text("\n".join(paths) + "\n")
    script.write_text(WRK_SCRIPT)
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}", "--latency", "-s", str(script), url]
    done = subprocess.run(command, env={**os.environ, "URLS": str(urls)}, capture_output=True, text=True, check=True)
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        sys.exit(f"{url}: requests failed:\n{done.stdout}")
    rate, middle, slow = (
        re.search(pattern, done.stdout) for pattern in (r"Requests/sec: +([\d.]+)", r"50% +(\S+)", r"99% +(\S+)")
    )
    assert rate is not None
    assert middle is not None
    assert slow is not None
    return f"{float(rate[1]):,.0f} | {_milliseconds(middle[1]):.1f} | {_milliseconds(slow[1]):.1f}"


def _milliseconds(text: str) -> float:
    """Convert a latency as wrk prints it."""
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]  # wrk prints no other
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


@contextmanager
def serve(environment: dict[str, str], cache: str) -> Iterator[tuple[str, int]]:
    """Run the server while the context is open; yield its URL and process id."""
    command = [str(BIN / "tilesync"), "serve", imodel_id(CONTAINER), "--port", "0", "--cache-size", cache]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            lines = iter(process.stderr.readline, "")
            yield next(found[1] for line in lines if (found := re.search(r"viewer: (\S+)", line))), process.pid
        finally:
            process.terminate()


def main() -> None:
    """Compare the server with its container."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=10)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        data, state = scratch / "data", scratch / "state"
        write_small_files(data / "containers" / CONTAINER, tiles=TILES, median=MEDIAN_BYTES)
        with run_nginx(state, data, scratch / "uploads") as service:
            url = service.url
            write_export_response(
                state, url, imodel_id(CONTAINER), container=CONTAINER, modified="2026-03-01T08:30:00Z", size=0
            )
            tiles = [tile_name(number) for number in range(TILES)]
            random.Random(1).shuffle(tiles)
            environment = {
                **os.environ, "TILESYNC_API_URL": url, "TILESYNC_TOKEN": "bench", "SSL_CERT_FILE": str(state / "ca.pem")
            }  # fmt: skip
            signed = [f"/account/{CONTAINER}/{tile}?{SAS}" for tile in tiles]
            table = TABLE_HEADER + f"| the container | {measure(url, signed, scratch, seconds)} | |\n"
            for label, cache in (
                ("tilesync serve, a cache of 16 MB", "16M"),
                ("tilesync serve, all in memory", "256M"),
            ):
                with serve(environment, cache) as (served, pid):
                    paths = [f"/{tile}" for tile in tiles]
                    measure(served, paths, scratch, seconds)
                    figures = measure(served, paths, scratch, seconds)
                    table += f"| {label} | {figures} | {measure_peak_memory_mb(pid):.0f} |\n"
    print(table)
    if seconds == 10:
        record_table(LIVE, table, f", load {os.getloadavg()[0]:.1f}")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
