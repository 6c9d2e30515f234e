"""Run programs in turn against a service, and make tables of their costs; the workloads are built on this."""

from __future__ import annotations

import compileall
import itertools
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from exports import CONTAINERS, set_newest_export
from measure import RunCost, RunCosts, run_measured
from peers import Peers
from service import ServiceOptions, run_nginx
from shaping import run_shaped_line

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1] / ".bench"
MEMORY_FOLDER = Path("/dev/shm")

Command = Sequence[str]


@dataclass
class Runner:
    """One program of a table: `command` is built for each round; `rounds`: number of runs, if none is asked for."""

    name: str
    command: Callable[[], Command]
    rounds: int = 3
    max_rounds: int = 99
    setup: Callable[[], None] = lambda: None
    costs: RunCosts = field(default_factory=RunCosts)


@dataclass(frozen=True)
class Column:
    """Further column of a table: `read` returns the figure of the run that just ended; the table shows the median.

    A program that has no such figure returns NaN. `start` is called before each run.
    """

    title: str
    read: Callable[[Runner, RunCost], float]
    start: Callable[[], None] = lambda: None
    digits: int = 2

    def show(self, figure: float) -> str:
        """Return the figure as text."""
        return "" if math.isnan(figure) else f"{figure:,.{self.digits}f}"


@dataclass(frozen=True)
class Setup:
    """Machine that a workload needs: the service, the cores of all programs, and the line between them.

    `service_cores`, `client_cores`: as `taskset --cpu-list` takes them; None: all. `shaped`: behind a shaped line.
    """

    service: ServiceOptions = field(default_factory=ServiceOptions)
    service_cores: str | None = None
    client_cores: str | None = None
    shaped: bool = False


class Bench:
    """Service that runs, the programs that use it, and the folders that they fill.

    `uploads`: folder of the containers that can be written. `memory`: a folder in memory, if there is one. `rounds`:
    the number of rounds of all programs, if it is given. `service_url`: the service itself, where the programs use it
    through a shaped line. `pids`: the processes of the service and the line.
    """

    def __init__(
        self, peers: Peers, out: Path, uploads: Path, memory: Path | None, rounds: int | None, client_cores: str | None
    ) -> None:
        self.peers = peers
        self.out = out
        self.uploads = uploads
        self.memory = memory
        self.service_url = peers.url
        self.pids: dict[str, int] = {}
        self._rounds = rounds
        self._prefix = ["taskset", "--cpu-list", client_cores] if client_cores else []
        self._log = ROOT / "last.log"
        self._numbers = itertools.count()

    @property
    def data(self) -> Path:
        """Folder of the generated exports."""
        return ROOT / "data"

    @property
    def tools(self) -> Path:
        """Folder of the installed peers."""
        return ROOT / "tools"

    @property
    def access_log(self) -> Path:
        """Log of the requests, if the service writes one."""
        return self.peers.state / "access.log"

    def run(self, command: Command) -> RunCost:
        """Run a program."""
        return run_measured([*self._prefix, *command], self.peers.env, self._log)

    def measure(self, title: str, runners: list[Runner], note: str = "", columns: Sequence[Column] = ()) -> str:
        """Run the programs in rounds, every other one in reverse order; return a table of their costs."""
        for runner in runners:
            runner.rounds = min(self._rounds or runner.rounds, runner.max_rounds)
        for number in range(max(runner.rounds for runner in runners)):
            for runner in runners[:: -1 if number % 2 else 1]:
                if number < runner.rounds:
                    self._measure_run(title, runner, columns)
        ours = runners[0].costs
        titles = "".join(f" {column.title} |" for column in columns)
        lines = [f"### {title}", "", note, ""] if note else [f"### {title}", ""]
        lines += [f"| program | seconds | tilesync is so many times as fast | CPU seconds | peak memory, MB |{titles}"]
        lines += ["| --- | ---: | ---: | ---: | ---: |" + " ---: |" * len(columns)]
        for runner in runners:
            costs = runner.costs
            ratio = "" if runner is runners[0] else f"{costs.seconds / ours.seconds:.2f}"
            once = "" if len(costs.rounds) > 1 else " (one round)"
            figures = f"{costs.seconds:.2f} | {ratio} | {costs.cpu_seconds:.2f} | {costs.memory_mb:.0f} |"
            more = "".join(f" {column.show(costs.median_of(column.title))} |" for column in columns)
            lines.append(f"| {runner.name}{once} | {figures}{more}")
        return "\n".join(lines) + "\n"

    def _measure_run(self, title: str, runner: Runner, columns: Sequence[Column]) -> None:
        runner.setup()
        command = list(runner.command())
        os.sync()
        for column in columns:
            column.start()
        cost = self.run(command)
        runner.costs.rounds.append(cost)
        for column in columns:
            runner.costs.figures.setdefault(column.title, []).append(column.read(runner, cost))
        print(f"{title}: {runner.name}: {cost.seconds:.2f} s, {cost.cpu_seconds:.2f} s CPU", flush=True)

    def fastest(self, counts: Sequence[int], make_runner: Callable[[int], Runner]) -> Runner:
        """Return the program with the number of transfers that is fastest here; in a trial of one round, the last."""
        if self._rounds == 1:
            return make_runner(counts[-1])
        times = dict[int, float]()
        for count in counts:
            runner = make_runner(count)
            times[count] = self.run(runner.command()).seconds
            print(f"trying {runner.name}: {times[count]:.2f} s", flush=True)
        return make_runner(min(counts, key=times.__getitem__))

    def new_folder(self, out: Path | None = None) -> Path:
        """A folder that was never there. On the disk nothing is deleted before the end: ext4 passes over inodes that
        were in use within the last minutes, which would cost the next program more than its own work.
        """
        if out is not None:
            shutil.rmtree(out, ignore_errors=True)
        return (out or self.out) / str(next(self._numbers))

    def filled_folder(self, imodel: str, peers: Peers | None = None) -> Path:
        """Return a new folder into which an iModel is mirrored."""
        folder = self.new_folder()
        self.run((peers or self.peers).tilesync(imodel, folder))
        return folder

    def prepare_upload_folder(self) -> Path:
        """Prepare a folder with the files to upload, once."""
        held = ROOT / "put"
        if not (held / "latest.json").exists():
            self.run(self.peers.tilesync("put", held))
        return held

    def prepare_many_files(self) -> Path:
        """Prepare a folder with a mirror of a million files, once; what that took is in held.txt."""
        held = ROOT / "held"
        if not (held / "latest.json").exists():
            print("mirroring a million files first, once", flush=True)
            cost = self.run(self.peers.tilesync("many", held))
            (ROOT / "held.txt").write_text(
                f"{cost.seconds:.0f} s, {cost.cpu_seconds:.0f} s of CPU, {cost.memory_mb:.0f} MB at most"
            )
        return held

    def new_container(self, kind: str = "up") -> str:
        """Make an empty container for uploads, or a bucket."""
        name = f"{kind}{next(self._numbers)}"
        (self.uploads / name).mkdir()
        return name

    def only_container(self) -> str:
        """Make an empty container for uploads, and delete the others: memory is short."""
        for other in self.uploads.glob("up*"):
            shutil.rmtree(other)
        return self.new_container()

    def set_newest_export(self, imodel: str, container: str, day: int) -> None:
        """Set a container as the newest export of an iModel, as of a day."""
        modified = f"2026-03-{day:02}T08:30:00Z"
        listings, url = self.data / "lists", self.peers.url
        set_newest_export(self.peers.state, listings, url, imodel, container=container, modified=modified)


@contextmanager
def open_bench(setup: Setup, *, rounds: int | None = None) -> Iterator[Bench]:
    """Run the service, and the line if it is shaped, while the context is open."""
    out = ROOT / "out"
    shutil.rmtree(out, ignore_errors=True)
    with ExitStack() as stack:
        memory = stack.enter_context(memory_folder())
        state, uploads = ROOT / "state", (memory or ROOT) / "uploads"
        service = stack.enter_context(
            run_nginx(state, ROOT / "data", uploads, options=setup.service, cores=setup.service_cores)
        )
        url, pids = service.url, {"service": service.pid}
        if setup.shaped:
            line = stack.enter_context(run_shaped_line(url, cores=setup.service_cores))
            url, pids = line.url, {**pids, "line": line.pid}
        bench = Bench(Peers(url, state, ROOT / "tools"), out, uploads, memory, rounds, setup.client_cores)
        bench.service_url, bench.pids = service.url, pids
        for container in CONTAINERS:
            bench.set_newest_export(container, container, 1)
        stack.callback(shutil.rmtree, ROOT / "uploads", ignore_errors=True)
        stack.callback(shutil.rmtree, out, ignore_errors=True)
        yield bench


def compile_modules() -> None:
    """Compile the modules of tilesync: a fresh checkout, or a change, would cost its first process 0.3 s."""
    compileall.compile_dir(HERE.parents[1] / "tilesync", quiet=2)


@contextmanager
def memory_folder() -> Iterator[Path | None]:
    """Make a folder in memory, if the system has one that is large enough; delete it at the end."""
    if not MEMORY_FOLDER.is_dir() or shutil.disk_usage(MEMORY_FOLDER).free < 4 << 30:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="tilesync-bench-", dir=MEMORY_FOLDER) as folder:
        yield Path(folder)
