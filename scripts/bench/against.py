"""Benchmark this checkout beside another: `python scripts/bench/against.py OTHER/.venv/bin/tilesync [--only NAME …]`.

Both programs do the same work against the same service, in rounds that alternate. The table holds medians; a ratio
above 1 means that this checkout is faster. Run it before a change of a hot path is merged. Nothing is recorded.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from bench import ROOT, Bench, Runner, Setup, compile_modules, open_bench
from exports import generate_exports
from peers import Peers, install_peers


class Against:
    """Workloads, each run by both programs in turn."""

    def __init__(self, bench: Bench, programs: dict[str, Peers], rounds: int) -> None:
        self._bench = bench
        self._programs = programs
        self._rounds = rounds

    def _measure(self, title: str, command: Callable[[Peers], list[str]], rounds: int = 0) -> str:
        runners = [
            Runner(name, lambda peers=peers: command(peers), rounds or self._rounds)
            for name, peers in self._programs.items()
        ]
        return self._bench.measure(title, runners)

    def start(self) -> str:
        """Print the help."""
        return self._measure("--help", lambda peers: [peers.program, "--help"], 5 * self._rounds)

    def small(self) -> str:
        """Download 20,201 small files."""
        return self._measure("Small files", lambda peers: peers.tilesync("small", self._bench.new_folder()))

    def large(self) -> str:
        """Download 24 files of 64 MiB."""
        return self._measure("Large files", lambda peers: peers.tilesync("large", self._bench.new_folder()))

    def uploads(self) -> str:
        """Upload 10,000 files of 32 KB."""
        held = self._bench.prepare_upload_folder()
        return self._measure("Uploads", lambda peers: peers.upload("tilesync", held, self._bench.only_container()))

    def listing(self) -> str:
        """List and plan 100,000 files."""
        dry_run = "--dry-run"
        return self._measure("A listing", lambda peers: peers.tilesync("fewer", self._bench.new_folder(), dry_run))

    def unchanged(self) -> str:
        """Find that nothing changed in a small export."""
        folders = {peers: self._bench.new_folder() for peers in self._programs.values()}
        return self._measure("Nothing changed", lambda peers: peers.tilesync("tiny", folders[peers]), 5 * self._rounds)

    def verify(self) -> str:
        """Verify 20,201 small files."""
        folders = {peers: self._bench.filled_folder("small", peers) for peers in self._programs.values()}
        return self._measure("Verify", lambda peers: peers.verify(folders[peers]))


WORKLOADS = ("start", "unchanged", "small", "large", "uploads", "listing", "verify")


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the program of the other checkout")
    parser.add_argument("--only", nargs="+", choices=WORKLOADS, default=WORKLOADS)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if not options.other.exists():
        sys.exit(f"there is no program {options.other}: name the tilesync of the other checkout's environment")
    install_peers(ROOT / "tools")
    generate_exports(ROOT / "data")
    compile_modules()
    with open_bench(Setup()) as bench:
        other = Peers(bench.peers.url, bench.peers.state, bench.tools, program=options.other)
        against = Against(bench, {"this checkout": bench.peers, "the other": other}, options.rounds)
        tables = [getattr(against, name)() for name in options.only]
    print("\n".join(tables))


if __name__ == "__main__":
    main()
