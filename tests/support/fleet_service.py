"""Fleets of the simulator: many small iModels in several iTwins, faults by name, and a service in its own process."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from tests.support.builders import glb, make_stored_blobs, tileset
from tests.support.faults import call_before, is_blob, wait_for
from tests.support.simulator import Simulator
from tilesync.demo.api_rate import RateLimit
from tilesync.demo.faults import Fault, RequestMatcher
from tilesync.demo.loopback_server import FakeRequest

PROJECT = Path(__file__).parents[2]

HANG_S = 120.0
"""Longest time that a hanging container keeps a request; it ends earlier with `release_hanging`."""


@dataclass(frozen=True, slots=True)
class FleetModel:
    """An iModel of the fleet when it was filled, and the id of its Complete export."""

    id: str
    itwin: str
    name: str
    export_id: str


@dataclass
class Fleet:
    """iModels of a simulator, and the faults that can be spread over them. `number`: the place of an iModel, from 0."""

    sim: Simulator
    itwins: list[str] = field(default_factory=list)
    models: list[FleetModel] = field(default_factory=list)
    _released: threading.Event = field(default_factory=threading.Event)

    def models_of(self, itwin: str) -> list[FleetModel]:
        """Return the iModels of one iTwin, in the order of the service."""
        return [model for model in self.models if model.itwin == itwin]

    # --- faults by name ---

    def refuse_itwin(self, number: int, status: Literal[401, 403] = 401) -> list[FleetModel]:
        """Refuse each call for one iTwin; return its iModels."""
        self.sim.forbid(self.itwins[number], status)
        return self.models_of(self.itwins[number])

    def add_invalid_newest(self, number: int) -> FleetModel:
        """Add an Invalid export as the newest one of an iModel; the Complete one stays."""
        model = self.models[number]
        error = {"code": "ExportFailed", "message": "Export failed, see linked zipped logs"}
        self.sim.add_export(
            make_id("invalid", number), model.id, {}, status="Invalid", error=error, lastModified="2026-03-02T08:30:00Z"
        )
        return model

    def invalidate(self, number: int) -> FleetModel:
        """Make the only export of an iModel Invalid: nothing can be mirrored."""
        model = self.models[number]
        self._row(model).update(status="Invalid", error={"code": "ExportFailed", "message": "Export failed"})
        return model

    def hang_container(self, number: int) -> FleetModel:
        """Let every request for a container wait until `release_hanging`."""
        model = self.models[number]
        self.sim.add_fault(
            is_for_container(model.export_id), wait_for(self._released, at_most=HANG_S), times=None, optional=True
        )
        return model

    def release_hanging(self) -> None:
        """Answer what waits in hanging containers, and all later requests at once."""
        self._released.set()

    def regenerate_under_run(self, number: int, *, blob: int = 1) -> Fault:
        """Give an export other content just before the nth (from 1) request for one of its blobs."""
        model = self.models[number]
        in_container = is_for_container(model.export_id)
        change = call_before(
            lambda: self.sim.regenerate(make_small_export(number, edition=2), export_id=model.export_id)
        )
        return self.sim.add_fault(lambda r: in_container(r) and is_blob(r), change, skip=blob - 1)

    def give_same_name(self, first: int, second: int) -> tuple[FleetModel, FleetModel]:
        """Give the second iModel the display name of the first."""
        self.sim.rename_imodel(self.models[second].id, self.models[first].name)
        return self.models[first], self.models[second]

    def rename(self, number: int, display_name: str) -> FleetModel:
        """Change the display name of an iModel."""
        self.sim.rename_imodel(self.models[number].id, display_name)
        return self.models[number]

    def remove(self, number: int) -> FleetModel:
        """Remove an iModel with its exports; the numbers of the others stay."""
        self.sim.remove_imodel(self.models[number].id)
        return self.models[number]

    def add(self, itwin: int = 0) -> FleetModel:
        """Add one more iModel with one Complete export to an iTwin."""
        return _add_model(self, len(self.models), self.itwins[itwin])

    def _row(self, model: FleetModel) -> dict[str, Any]:
        return next(row for row in self.sim.exports if row["id"] == model.export_id)


def fill_fleet(sim: Simulator, count: int, *, itwins: int = 1) -> Fleet:
    """Fill a simulator with `count` small iModels, in turn in each iTwin, each with one Complete export.

    Ids and contents depend only on the numbers: two fleets of one size are the same.
    """
    fleet = Fleet(sim)
    for number in range(itwins):
        itwin = sim.add_itwin(make_id("itwin", number), f"Project {number:02d}")
        fleet.itwins.append(itwin.id)
    for number in range(count):
        _add_model(fleet, number, fleet.itwins[number % itwins])
    return fleet


def _add_model(fleet: Fleet, number: int, itwin: str) -> FleetModel:
    model = FleetModel(make_id("imodel", number), itwin, f"Bridge {number:04d}", make_id("export", number))
    fleet.sim.add_imodel(model.id, itwin, model.name)
    blobs = make_stored_blobs(make_small_export(number))
    fleet.sim.add_export(model.export_id, model.id, blobs, displayName=model.name)
    fleet.models.append(model)
    return model


def make_id(kind: str, number: int) -> str:
    """Make the id of the nth thing of a kind."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"tilesync-fleet/{kind}/{number}"))


def make_small_export(number: int, *, edition: int = 1) -> dict[str, bytes]:
    """Make an export of three blobs, different for each number and edition."""
    tiles = {f"{tile}.glb": glb(f"{number}/{edition}/{tile}".encode() * 8) for tile in range(2)}
    return {"tileset.json": tileset(*tiles), **tiles}


def is_for_container(container: str) -> RequestMatcher:
    """Match requests for a container: its listing and its blobs."""

    def matches(request: FakeRequest) -> bool:
        return not request.is_api and request.container_and_name[0] == container

    return matches


class FleetProcess:
    """Fleet service in a process of its own, so that it does not share the interpreter with the run that is measured.

    `counts` are those of the server. `token`: the identity that it accepts.
    """

    token = "demo"

    def __init__(
        self, count: int, *, itwins: int = 1, api_delay_s: float = 0.0, limit: RateLimit | None = None
    ) -> None:
        words = ["--imodels", count, "--itwins", itwins, "--api-delay", api_delay_s]
        words += [] if limit is None else ["--calls", limit.calls, "--seconds", limit.seconds]
        self._words = [str(word) for word in words]
        self.url = ""
        self.itwins: list[str] = []

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fleet_service", *self._words],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started = self._read()
        self.url, self.itwins = started["url"], started["itwins"]
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()  # the service ends with its input
        self._process.wait(30)
        self._process.stdout.close()

    def counts(self) -> dict[str, int]:
        """Return `api_calls`, `most_calls_in_window`, `refused` and `storage_requests` since the last `clear`."""
        return self._send("counts")

    def clear(self) -> None:
        """Forget the requests so far."""
        self._send("clear")

    def _send(self, command: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


def count_requests(sim: Simulator) -> dict[str, int]:
    """Return the counts of a simulator's requests, as FleetProcess does."""
    return {
        "api_calls": sim.api_calls.total,
        "most_calls_in_window": sim.api_calls.most_calls_in_window(),
        "refused": sim.api_calls.refused,
        "storage_requests": sum(not request.is_api for request in sim.requests),
    }


def _serve() -> None:
    parser = argparse.ArgumentParser(description="Serve a fleet until the standard input ends.")
    parser.add_argument("--imodels", type=int, default=1000)
    parser.add_argument("--itwins", type=int, default=1)
    parser.add_argument("--api-delay", type=float, default=0.0)
    parser.add_argument("--calls", type=int)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    with Simulator(api_delay_s=options.api_delay) as sim:
        fleet = fill_fleet(sim, options.imodels, itwins=options.itwins)
        sim.rate_limit = None if options.calls is None else RateLimit(options.calls, options.seconds)
        _write_line({"url": sim.url, "itwins": fleet.itwins})
        for line in sys.stdin:
            if line.strip() == "clear":
                sim.clear_requests()
            _write_line(count_requests(sim))


def _write_line(answer: dict[str, Any]) -> None:
    sys.stdout.write(f"{json.dumps(answer)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _serve()
