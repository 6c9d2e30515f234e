"""Benchmark tilesync against its peers: `make bench`, or `python scripts/bench/compare.py [--only NAME …]`.

A service is set up on loopback (nginx, TLS, 30 ms to the first byte) over generated exports, and every program does the
same work against it, in rounds that alternate. The tables hold medians, and go to RESULTS.md beside this file.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import data
from measure import RunCosts, run_measured
from peers import BIN, Peers, install_peers
from results import WORKLOADS, record_table
from service import imodel_id, run_nginx, write_export_response

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1] / ".bench"
MEMORY_FOLDER = Path("/dev/shm")
TILE_COUNT, MEDIAN_TILE_BYTES = 20_000, 20_000
LARGE_FILE_COUNT, LARGE_FILE_BYTES = 24, 64 << 20
MANY_FILE_COUNT, FEWER_FILE_COUNT = 1_000_000, 100_000
CHANGED_EXPORT_COUNT = 3
PUT_COUNT, PUT_BYTES = 10_000, 32 << 10

Command = Sequence[str]


@dataclass
class Runner:
    """One program of a table: `command` is built for each round; `rounds`: number of runs; `work`: number of items."""

    name: str
    command: Callable[[], Command]
    rounds: int = 3
    setup: Callable[[], None] = lambda: None
    costs: RunCosts = field(default_factory=RunCosts)


class Bench:
    """Workloads; each returns a table."""

    def __init__(self, peers: Peers, out: Path, url: str, uploads: Path) -> None:
        self._peers = peers
        self._out = out
        self._url = url
        self._uploads = uploads
        self._log = ROOT / "last.log"
        self._numbers = itertools.count()

    def measure(self, title: str, runners: list[Runner], note: str = "") -> str:
        """Run the programs in rounds, every other one in reverse order; return a table of their costs."""
        for number in range(max(runner.rounds for runner in runners)):
            for runner in runners[:: -1 if number % 2 else 1]:
                if number < runner.rounds:
                    runner.setup()
                    os.sync()
                    cost = run_measured(list(runner.command()), self._peers.env, self._log)
                    runner.costs.rounds.append(cost)
                    print(f"{title}: {runner.name}: {cost.seconds:.2f} s, {cost.cpu_seconds:.2f} s CPU", flush=True)
        ours = runners[0].costs
        lines = [f"### {title}", "", note, ""] if note else [f"### {title}", ""]
        lines += ["| program | seconds | tilesync is so many times as fast | CPU seconds | peak memory, MB |"]
        lines += ["| --- | ---: | ---: | ---: | ---: |"]
        for runner in runners:
            costs = runner.costs
            ratio = "" if runner is runners[0] else f"{costs.seconds / ours.seconds:.2f}"
            once = "" if len(costs.rounds) > 1 else " (one round)"
            figures = f"{costs.seconds:.2f} | {ratio} | {costs.cpu_seconds:.2f} | {costs.memory_mb:.0f}"
            lines.append(f"| {runner.name}{once} | {figures} |")
        return "\n".join(lines) + "\n"

    # --- downloads ---

    def small(self, out: Path | None = None, *, where: str = "onto the disk") -> str:
        """Download many small files."""
        names = [blob.name for blob in data.list_folder(ROOT / "data/containers/small")]
        runners = [
            self._tilesync("small", out),
            self._fastest((64, 128, 256), lambda count: self._curl("small", names, count, out)),
            self._fastest((64, 128, 200), lambda count: self._rclone("small", count, out)),
        ]
        if out is None:
            runners += [self._azcopy("small"), self._python("obstore", "small")]
            runners += [self._rclone("small", 4, rounds=1), self._python("azure", "small", rounds=1)]
        title = f"{len(names):,} files of median {MEDIAN_TILE_BYTES // 1000} KB, {where}"
        return self.measure(title, runners, "Of curl and rclone the best number at once; curl verifies nothing.")

    def large(self) -> str:
        """Download a few large files."""
        names = [blob.name for blob in data.list_folder(ROOT / "data/containers/large")]
        runners = [
            self._tilesync("large"),
            self._curl("large", names, LARGE_FILE_COUNT),
            self._rclone("large", 16),
            self._azcopy("large"),
            self._python("obstore", "large"),
            self._python("azure", "large"),
        ]
        note = "tilesync computes SHA-256 and MD5, rclone and azcopy MD5, the others nothing."
        return self.measure(f"{LARGE_FILE_COUNT} files of {LARGE_FILE_BYTES >> 20} MiB", runners, note)

    def _fastest(self, counts: Sequence[int], make_runner: Callable[[int], Runner]) -> Runner:
        """Return the program with the number of transfers that is fastest here."""
        times = dict[int, float]()
        for count in counts:
            runner = make_runner(count)
            times[count] = run_measured(list(runner.command()), self._peers.env, self._log).seconds
            print(f"trying {runner.name}: {times[count]:.2f} s", flush=True)
        return make_runner(min(counts, key=times.__getitem__))

    def new_folder(self, out: Path | None = None) -> Path:
        """A folder that was never there. On the disk nothing is deleted before the end: ext4 passes over inodes that
        were in use within the last minutes, which would cost the next program more than its own work.
        """
        if out is not None:
            shutil.rmtree(out, ignore_errors=True)
        return (out or self._out) / str(next(self._numbers))

    def filled_folder(self, peers: Peers, imodel: str) -> Path:
        """Return a new folder into which an iModel is mirrored."""
        folder = self.new_folder()
        run_measured(peers.tilesync(imodel, folder), peers.env, self._log)
        return folder

    def _tilesync(self, container: str, out: Path | None = None) -> Runner:
        return Runner("tilesync", lambda: self._peers.tilesync(container, self.new_folder(out)))

    def _curl(self, container: str, names: list[str], count: int, out: Path | None = None) -> Runner:
        return Runner(
            f"curl --parallel-max {count}",
            lambda: self._peers.curl(container, names, self.new_folder(out), at_once=count),
        )

    def _rclone(self, container: str, count: int, out: Path | None = None, *, rounds: int = 3) -> Runner:
        return Runner(
            f"rclone --transfers {count}",
            lambda: self._peers.rclone("copy", container, str(self.new_folder(out)), at_once=count),
            rounds,
        )

    def _azcopy(self, container: str) -> Runner:
        return Runner("azcopy", lambda: self._peers.azcopy("copy", container, str(self.new_folder())))

    def _python(self, program: str, container: str, *, rounds: int = 3) -> Runner:
        name = {"azure": "azure-storage-blob"}.get(program, program)
        return Runner(name, lambda: self._peers.python(program, container, str(self.new_folder())), rounds)

    # --- uploads ---

    def uploads(self) -> str:
        """Upload files into a container, from a folder and from another container."""
        held = self.prepare_upload_folder()
        runners = [
            Runner("tilesync", lambda: self._peers.upload("tilesync", held, self.new_container())),
            self._fastest((64, 128, 200), lambda count: self._rclone_upload(held, count)),
            Runner("azcopy", lambda: self._peers.upload("azcopy", held, self.new_container())),
        ]
        note = (
            "From a folder that tilesync filled. tilesync reads each file, proves it by its SHA-256, sends its MD5, and"
            " publishes a version with manifest and pointer; rclone and azcopy send the MD5. Of rclone the best number."
        )
        first = self.measure(f"{PUT_COUNT:,} PUTs of {PUT_BYTES >> 10} KB", runners, note)
        runners = [self._container_copy("small", "tilesync, container to container"), self._tilesync("small")]
        runners[1].name = "tilesync, container to folder"
        note = "Both through this machine, every byte verified."
        return first + "\n" + self.measure("20,201 small files, container to container", runners, note)

    def prepare_upload_folder(self) -> Path:
        """Prepare a folder with the files to upload."""
        held = ROOT / "put"
        if not (held / "latest.json").exists():
            run_measured(self._peers.tilesync("put", held), self._peers.env, self._log)
        return held

    def _rclone_upload(self, held: Path, count: int) -> Runner:
        name = f"rclone --transfers {count}"
        return Runner(name, lambda: self._peers.upload("rclone", held, self.new_container(), at_once=count))

    def _container_copy(self, container: str, name: str, *, rounds: int = 3) -> Runner:
        return Runner(name, lambda: self._peers.copy_container(container, self.new_container()), rounds)

    def new_container(self) -> str:
        """Make an empty container for uploads; delete the others."""
        name = f"up{next(self._numbers)}"
        for other in self._uploads.glob("up*"):
            shutil.rmtree(other)
        (self._uploads / name).mkdir()
        return name

    def growth(self) -> str:
        """Copy ten times the files, container to container."""
        runners = [
            self._container_copy("fewer", f"tilesync, {FEWER_FILE_COUNT:,} files", rounds=1),
            self._container_copy("many", f"tilesync, {MANY_FILE_COUNT:,} files", rounds=1),
        ]
        return self.measure("Tiny files, container to container", runners, "Peak memory is that of all its processes.")

    # --- changed exports ---

    def changed(self) -> str:
        """Mirror after one file has changed."""
        folders = {name: self.new_folder() for name in ("tilesync", "rclone", "azcopy")}
        self._set_newest_export("small", "small", 1)
        run_measured(self._peers.tilesync("small", folders["tilesync"]), self._peers.env, self._log)
        for name in ("rclone", "azcopy"):
            shutil.copytree(folders["tilesync"] / "versions/small", folders[name])
        export_numbers = {name: iter(range(1, CHANGED_EXPORT_COUNT + 1)) for name in folders}

        def after(name: str) -> str:
            return f"small-{next(export_numbers[name])}"

        def tonight() -> None:
            container = after("tilesync")
            self._set_newest_export("small", container, int(container[-1]) + 1)

        runners = [
            Runner("tilesync", lambda: self._peers.tilesync("small", folders["tilesync"]), setup=tonight),
            Runner(
                "rclone sync",
                lambda: self._peers.rclone(
                    "sync", f"small-{next(export_numbers['rclone'])}", str(folders["rclone"]), at_once=64
                ),
            ),
            Runner(
                "azcopy sync",
                lambda: self._peers.azcopy("sync", f"small-{next(export_numbers['azcopy'])}", str(folders["azcopy"])),
            ),
        ]
        table = self.measure(
            "One changed file in 20,000",
            runners,
            "tilesync publishes a whole new version, of links but for the one file, with its own manifest; the old one "
            "stays. The others change files in place.",
        )
        self._set_newest_export("small", "small", 9)
        return table

    def unchanged(self) -> str:
        """Mirror a million files without a change."""
        held = ROOT / "held"
        if not (held / "latest.json").exists():
            print("mirroring a million files first, once", flush=True)
            cost = run_measured(self._peers.tilesync("many", held), self._peers.env, self._log)
            (ROOT / "held.txt").write_text(
                f"{cost.seconds:.0f} s, {cost.cpu_seconds:.0f} s of CPU, {cost.memory_mb:.0f} MB at most"
            )
        there = str(held / "versions/many")
        runners = [
            Runner("tilesync", lambda: self._peers.tilesync("many", held)),
            Runner("rclone sync", lambda: self._peers.rclone("sync", "many", there, at_once=64), rounds=1),
            Runner("azcopy sync", lambda: self._peers.azcopy("sync", "many", there), rounds=1),
        ]
        first = f"tilesync asks the API once. (Mirroring them at first: {(ROOT / 'held.txt').read_text()}.)"
        return self.measure(f"Nothing changed in {MANY_FILE_COUNT:,} files", runners, first)

    def listing(self) -> str:
        """Read a listing and plan a run."""
        plan = [("many", MANY_FILE_COUNT), ("fewer", FEWER_FILE_COUNT)]
        runners = []
        for container, count in plan:
            command = self._peers.tilesync(container, self.new_folder(), "--dry-run")
            runners.append(Runner(f"tilesync, {count:,} listed and planned", lambda c=command: c, rounds=2))
        runners += [
            Runner("rclone size, 1,000,000 listed", lambda: self._peers.rclone("size", "many"), rounds=1),
            Runner("azcopy list, 1,000,000 listed", lambda: self._peers.azcopy("list", "many"), rounds=1),
            Runner("obstore, 1,000,000 listed", lambda: self._peers.python("obstore", "many"), rounds=1),
            Runner("azure-storage-blob, 100,000 listed", lambda: self._peers.python("azure", "fewer"), rounds=1),
        ]
        return self.measure("A listing", runners, "The others list and keep nothing; tilesync decides and records.")

    def verify(self) -> str:
        """Verify a folder; compare with sha256sum."""
        tables = []
        for container, what in (
            ("large", f"{LARGE_FILE_COUNT} files of {LARGE_FILE_BYTES >> 20} MiB"),
            ("small", "20,201 small files"),
        ):
            folder = self.filled_folder(self._peers, container)
            some = "1" if container == "large" else "200"
            find = f"find {folder}/versions -type f -print0 | xargs -0 -P2 -n {some} sha256sum"
            runners = [
                Runner("tilesync verify", lambda f=folder: self._peers.verify(f)),
                Runner("xargs -P2 sha256sum", lambda f=find: ["sh", "-c", f]),
            ]
            note = "tilesync reads what the tilesets ask for, too."
            tables.append(self.measure(f"Verify: {what}", runners, note))
        return "\n".join([*tables, self._verify_container()])

    def _verify_container(self) -> str:
        """Verify a container, with one request per file."""
        container = self.new_container()
        run_measured(
            self._peers.upload("tilesync", self.prepare_upload_folder(), container), self._peers.env, self._log
        )
        link = self._peers.link(container)
        runners = [
            Runner("tilesync verify", lambda: self._peers.verify(link)),
            Runner("tilesync verify --quick", lambda: self._peers.verify(link, "--quick")),
        ]
        return self.measure(f"Verify: {PUT_COUNT:,} files of {PUT_BYTES >> 10} KB in a container", runners)

    def start(self) -> str:
        """Measure the start-up time."""
        folder = self.filled_folder(self._peers, "tiny")
        runners = [
            Runner("tilesync --help", lambda: [self._peers.program, "--help"], rounds=9),
            Runner("tilesync mirror, nothing changed", lambda: self._peers.tilesync("tiny", folder), rounds=9),
            Runner("azcopy --help", lambda: [self._peers.azcopy("list", "tiny")[0], "--help"], rounds=9),
            Runner("rclone --help", lambda: [str(BIN / "rclone"), "--help"], rounds=9),
        ]
        return self.measure("Start-up", runners)

    def _set_newest_export(self, imodel: str, container: str, day: int) -> None:
        modified = f"2026-03-{day:02}T08:30:00Z"
        set_newest_export(self._url, imodel, container, modified)


def set_newest_export(url: str, imodel: str, container: str, modified: str) -> None:
    """Set a container, with its size, as the newest export of an iModel."""
    pages = (ROOT / "data/lists" / container).glob("*.xml")
    sizes = (re.findall(r"<Content-Length>(\d+)<", page.read_text()) for page in pages if page.stem.isdecimal())
    size = sum(int(each) for found in sizes for each in found)
    write_export_response(ROOT / "data", url, imodel_id(imodel), container=container, modified=modified, size=size)


def record_tables(name: str, table: str) -> None:
    """Replace the tables of one workload in the results, with date and machine."""
    print(table)
    record_table(name, table, f"; {describe_peer_versions()}")


def generate_exports() -> None:
    """Generate the exports and their listings, once."""
    there = ROOT / "data"
    if (there / "made").exists():
        return
    print("generating exports: some 4 GB, a minute or two", flush=True)
    shutil.rmtree(there, ignore_errors=True)
    boxes = there / "containers"
    data.write_small_files(boxes / "small", tiles=TILE_COUNT, median=MEDIAN_TILE_BYTES)
    data.write_small_files(boxes / "tiny", tiles=20, median=2000)
    data.write_large_files(boxes / "large", count=LARGE_FILE_COUNT, size=LARGE_FILE_BYTES)
    data.write_equal_files(boxes / "put", count=PUT_COUNT, size=PUT_BYTES)
    for number in range(1, CHANGED_EXPORT_COUNT + 1):
        change = data.tile_name(1000 + number)
        data.copy_with_change(boxes / f"small-{number}", boxes / "small", change=change, later_s=1000 * number)
    for box in boxes.iterdir():
        data.write_listing(there / "lists" / box.name, box.name, data.list_folder(box))
    for name, count in (("fewer", FEWER_FILE_COUNT), ("many", MANY_FILE_COUNT)):
        data.write_listing(there / "lists" / name, name, data.write_many_files(boxes / name, count=count))
    (there / "made").touch()


@contextmanager
def memory_folder() -> Iterator[Path | None]:
    """Return a folder in memory, if the system has one that is large enough."""
    if not MEMORY_FOLDER.is_dir() or shutil.disk_usage(MEMORY_FOLDER).free < 4 << 30:
        yield None
        return
    folder = MEMORY_FOLDER / "tilesync-bench"
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def describe_peer_versions() -> str:
    """Describe the versions of the peers."""
    lines = [
        subprocess.run([name, "--version"], capture_output=True, text=True, check=True).stdout for name in ("curl",)
    ]
    rclone = subprocess.run([str(BIN / "rclone"), "version"], capture_output=True, text=True, check=True).stdout
    return f"{lines[0].split(' (')[0]}, {rclone.splitlines()[0]}, azcopy 10.32.2"


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=WORKLOADS, default=WORKLOADS)
    chosen = parser.parse_args().only
    if sys.platform != "linux":
        sys.exit("the bench runs on Linux")
    install_peers(ROOT / "tools")
    generate_exports()
    out = ROOT / "out"
    shutil.rmtree(out, ignore_errors=True)
    with memory_folder() as fast, run_nginx(ROOT / "state", ROOT / "data", taken := (fast or ROOT) / "uploads") as url:
        for container in ("small", "tiny", "large", "put", "fewer", "many"):
            set_newest_export(url, container, container, "2026-03-01T08:30:00Z")
        bench = Bench(Peers(url, ROOT / "state", ROOT / "tools"), out, url, taken)
        for name in chosen:
            tables = [getattr(bench, name)()]
            if name == "small" and fast is not None:
                tables.append(bench.small(fast / "out", where="into memory"))
            record_tables(name, "\n".join(tables))
            if name == "large":
                shutil.rmtree(out, ignore_errors=True)  # much room, few files
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(ROOT / "uploads", ignore_errors=True)


if __name__ == "__main__":
    main()
