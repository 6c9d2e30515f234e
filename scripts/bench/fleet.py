"""Benchmark an unchanged night of many iModels: `tilesync fleet` beside a loop of `tilesync mirror`.

The service runs in a process of its own and takes 50 ms for each answer. Both ways run the same mirrors, in turn, in
fresh processes; medians of seconds and CPU seconds and the peak memory are printed, with API calls and requests to the
storage as the server counts them. A run with the default number of iModels goes to RESULTS.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from measure import RunCosts, run_measured
from results import FLEET, record_table

PROJECT = Path(__file__).parents[2]
sys.path.insert(0, str(PROJECT))

from tests.support.fleet_service import FleetProcess, make_id  # noqa: E402 - needs the path above

ANSWER_S = 0.05
"""Seconds that the service takes for an answer."""

DEFAULT_COUNT = 1000

LOOP = 'xargs -P {jobs} -I ID {tilesync} mirror ID "$DEST/ID" -q < "$IDS"'
"""The loop that `tilesync fleet` replaces: a process for each iModel, so many at the same time."""

TABLE_HEADER = """### A night without changes, {count:,} iModels

The service answers in 50 ms; `api-rate = 5000`. The loop starts a process for each iModel, {jobs} at the same time.

| way | seconds | fleet is so many times as fast | CPU seconds | peak memory, MB | API calls | storage requests |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
"""


@dataclass
class Way:
    """One way to run all mirrors, with the costs of its rounds and the requests that the server counted."""

    name: str
    command: list[str]
    env: dict[str, str]
    costs: RunCosts = field(default_factory=RunCosts)
    counts: dict[str, int] = field(default_factory=dict)

    def run(self, service: FleetProcess, folder: Path, *, is_measured: bool) -> None:
        """Run all mirrors once."""
        service.clear()
        cost = run_measured(self.command, self.env, folder / "log")
        if is_measured:
            self.costs.rounds.append(cost)
            self.counts = service.counts()

    def format_row(self, fleet: RunCosts) -> str:
        """Format the row of the table."""
        ratio = "" if self.costs is fleet else f"{self.costs.seconds / fleet.seconds:.1f}"
        memory = f"{self.costs.memory_mb:.0f}" if self.costs is fleet else ""  # that of the loop is its shell's
        calls, requests = f"{self.counts['api_calls']:,}", f"{self.counts['storage_requests']:,}"
        cells = (
            self.name,
            f"{self.costs.seconds:.1f}",
            ratio,
            f"{self.costs.cpu_seconds:.1f}",
            memory,
            calls,
            requests,
        )
        return f"| {' | '.join(cells)} |"


def write_fleet(folder: Path, count: int, url: str) -> None:
    """Write the fleet file, and the list of ids for the loop; both use the same destinations."""
    ids = [make_id("imodel", number) for number in range(count)]
    tables = "".join(
        f'[[mirror]]\nname = "m{n}"\nimodel = "{each}"\ndest = "tiles/{each}"\n' for n, each in enumerate(ids)
    )
    head = f'[fleet]\napi-rate = 5000\nstate-dir = "state"\n[defaults]\napi-url = "{url}"\n'
    (folder / "fleet.toml").write_text(head + tables)
    (folder / "ids").write_text("\n".join(ids) + "\n")


def main() -> None:
    """Compare both ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--imodels", type=int, default=DEFAULT_COUNT)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1), help="processes of the loop")
    asked = parser.parse_args()
    tilesync = str(Path(sys.executable).with_name("tilesync"))
    with tempfile.TemporaryDirectory() as name, FleetProcess(asked.imodels, api_delay_s=ANSWER_S) as service:
        folder = Path(name)
        write_fleet(folder, asked.imodels, service.url)
        env = {"TILESYNC_TOKEN": service.token, "TILESYNC_API_URL": service.url}
        loop_env = {**env, "DEST": str(folder / "tiles"), "IDS": str(folder / "ids")}
        fleet = Way("tilesync fleet", [tilesync, "fleet", str(folder / "fleet.toml"), "--no-progress"], env)
        loop = Way("a loop of tilesync mirror", ["sh", "-c", LOOP.format(jobs=asked.jobs, tilesync=tilesync)], loop_env)
        fleet.run(service, folder, is_measured=False)  # the first night mirrors everything
        for number in range(asked.rounds):
            for way in (fleet, loop) if number % 2 == 0 else (loop, fleet):
                way.run(service, folder, is_measured=True)
                print(f"{way.name}: {way.costs.rounds[-1].seconds:.1f} s, {way.counts}", flush=True)
    table = TABLE_HEADER.format(count=asked.imodels, jobs=asked.jobs)
    table += "".join(f"{way.format_row(fleet.costs)}\n" for way in (fleet, loop))
    print(table)
    if asked.imodels == DEFAULT_COUNT:
        record_table(FLEET, table)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
