"""Fleets of the simulator, run in this process or as a program."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.fleet_service import Fleet
from tests.support.fork_server import run_forked
from tests.support.simulator import Simulator
from tilesync.events import Event
from tilesync.fleets.aio import check_fleet
from tilesync.fleets.monitor import FleetMonitor, OnOutcome
from tilesync.fleets.night.run import Night, NightRequest
from tilesync.fleets.outcome import MirrorOutcome
from tilesync.protocols import Clock
from tilesync.runtime.clock import WallClock


@dataclass
class NightResult:
    """Result of one run of a fleet: its monitor, and its events with the names of the mirrors."""

    monitor: FleetMonitor
    events: list[tuple[str, Event]] = field(default_factory=list)
    error: BaseException | None = None

    @property
    def exit_code(self) -> int:
        """Return the exit code that the command line would give."""
        return self.monitor.exit_code

    @property
    def outcomes(self) -> dict[str, MirrorOutcome]:
        """Return the outcomes by the names of the mirrors."""
        return {outcome.name: outcome for outcome in self.monitor.outcomes}

    def exits(self) -> dict[str, int]:
        """Return the exit codes that are not 0, by the names of the mirrors."""
        return {name: outcome.exit_code for name, outcome in self.outcomes.items() if outcome.exit_code}

    def events_of(self, kind: type[Event]) -> list[tuple[str, Any]]:
        """Return the events of one kind, with the names of the mirrors."""
        return [(name, event) for name, event in self.events if isinstance(event, kind)]


@dataclass
class FleetFolder:
    """A folder with a fleet file, its state and its destinations."""

    path: Path
    sim: Simulator

    @property
    def file(self) -> Path:
        """Path of the fleet file."""
        return self.path / "fleet.toml"

    def write(self, mirrors: str, *, settings: str = "", defaults: str = "") -> None:
        """Write the fleet file: the `[[mirror]]` tables, and further lines of the two other tables."""
        head = f'[fleet]\nstate-dir = "state"\napi-rate = 50000\n{settings}\n'
        service = (
            f'[defaults]\napi-url = "{self.sim.url}"\ntoken = {{ env = "FLEET_TOKEN" }}\nretry-for = "3s"\n{defaults}\n'
        )
        self.file.write_text(head + service + mirrors, encoding="utf-8")

    def write_itwins(self, fleet: Fleet, **lines: str) -> None:
        """Write a fleet file with an entry for each iTwin: `p0`, `p1` and so on."""
        self.write(
            "".join(
                f'[[mirror]]\nname = "p{number}"\nitwin = "{itwin}"\ndest = "tiles/p{number}/{{name}}"\n'
                for number, itwin in enumerate(fleet.itwins)
            ),
            **lines,
        )

    def write_models(self, fleet: Fleet, **lines: str) -> None:
        """Write a fleet file with an entry for each iModel, named after its number."""
        self.write(
            "".join(
                f'[[mirror]]\nname = "m{number}"\nimodel = "{model.id}"\ndest = "tiles/{{name}}"\n'
                for number, model in enumerate(fleet.models)
            ),
            **lines,
        )

    def run(
        self,
        *,
        clock: Clock | None = None,
        time_limit_s: float = 120,
        on_outcome: OnOutcome | None = None,
        **request: Any,
    ) -> NightResult:
        """Run the fleet in this process."""
        os.environ["FLEET_TOKEN"] = self.sim.token
        events: list[tuple[str, Event]] = []
        monitor = FleetMonitor(
            str(self.file), on_event=lambda name, event: events.append((name, event)), on_outcome=on_outcome
        )
        result = NightResult(monitor, events)

        async def work() -> None:
            async with asyncio.timeout(time_limit_s):
                night = Night(NightRequest(check_fleet(self.file), **request), monitor, clock or WallClock())
                await night.run()

        asyncio.run(work())
        return result

    def start_program(self, *options: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start `tilesync fleet` as a program with `--json`."""
        return subprocess.Popen(
            [sys.executable, "-m", "tilesync", "fleet", str(self.file), "--json", *options],
            env={"PATH": os.environ["PATH"], "FLEET_TOKEN": self.sim.token, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run_program(self, *options: str, env: Mapping[str, str] | None = None) -> tuple[int, list[dict[str, Any]], str]:
        """Run `tilesync fleet` as a program; return its exit code, its JSON lines, and its standard error."""
        env = {"PATH": os.environ["PATH"], "FLEET_TOKEN": self.sim.token, **(env or {})}
        done = run_forked(["fleet", str(self.file), "--json", *options], env)
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr

    def dest(self, *parts: str) -> Path:
        """Return a destination below `tiles`."""
        return self.path.joinpath("tiles", *parts)
