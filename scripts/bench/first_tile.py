"""Benchmark the viewer page of `tilesync serve`: the time from navigation to the first tile on screen.

A headless Chromium without a graphics card opens the page for the demo city. In each round it does so twice: cold, of a
server that was started just before and whose address it does not know yet, and warm, the same page again. Medians are
printed, and the time that a server takes to start. A picture proves that a tile is on screen when the page says so. A
run with the default options goes to RESULTS.md. It needs what `make viewers` installs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from results import FIRST_TILE, record_table

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.tile_server import mirror_files, server_process
from tests.support.viewer_page import drawn_share, open_viewer
from tests.support.viewers import Browser, find_browser, start_browser
from tilesync.demo.city import build_city

ROUNDS, SIZE_PX, SKY_RGB = 9, (1100, 700), (230, 235, 241)

TABLE_HEADER = f"""### The first tile of the demo city in the viewer page

Headless Chromium, which draws by software, at {SIZE_PX[0]} x {SIZE_PX[1]} pixels. Cold: a server that was just started;
warm: the same page again.

| | median, s | slowest, s |
| --- | ---: | ---: |
"""


@dataclass
class Timings:
    """Seconds of all rounds: of the start of the server, and of its page, cold and warm."""

    start: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)


def measure_first_tile(browser: Browser, url: str) -> float:
    """Return the seconds from navigation to the first tile on screen. Exits if the picture does not have it."""
    with open_viewer(browser, url, SIZE_PX, waits=False) as viewer:
        viewer.wait_until("window.tilesyncViewer?.state().firstTileMs != null")
        if drawn_share(viewer.picture_now(), SKY_RGB) < 0.02:
            sys.exit("the page says that a tile is drawn, but its picture has none")
        seconds: float = viewer.state()["firstTileMs"] / 1000
    return seconds


def measure_round(browser: Browser, city: Path, timings: Timings) -> None:
    """Start a server, and open its page twice."""
    began = time.monotonic()
    with server_process(city) as server:
        timings.start.append(time.monotonic() - began)
        timings.cold.append(measure_first_tile(browser, server.url))
        timings.warm.append(measure_first_tile(browser, server.url))


def format_table(timings: Timings) -> str:
    """Return the table of RESULTS.md."""
    table = TABLE_HEADER
    for label, seconds in (
        ("start of the server", timings.start),
        ("navigation to the first tile, cold", timings.cold),
        ("navigation to the first tile, warm", timings.warm),
    ):
        table += f"| {label} | {statistics.median(seconds):.2f} | {max(seconds):.2f} |\n"
    return table


def main() -> None:
    """Measure, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    program = find_browser()
    if program is None:
        sys.exit("there is no browser: run `make viewers`")
    timings = Timings()
    with tempfile.TemporaryDirectory() as folder, start_browser(program) as browser:
        city = mirror_files(Path(folder, "city"), build_city())
        measure_round(browser, city, Timings())  # the first pages of a new browser are no measure
        for _ in range(rounds):
            measure_round(browser, city, timings)
    table = format_table(timings)
    print(table)
    if rounds == ROUNDS:
        record_table(FIRST_TILE, table, f", load {os.getloadavg()[0]:.1f}")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
