"""Benchmark `tilesync pack` beside `tar c`, `zip -0` and 3d-tiles-tools: one version into one file.

The version is the demo city, then one of many small files. All programs read the same folder, in rounds that alternate;
medians go to RESULTS.md. Needs `zip`, and 3d-tiles-tools in `.viewers` (`make viewers`).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import data
from measure import RunCosts, run_measured
from results import PACKING, record_table

PROJECT = Path(__file__).parents[2]
TOOLS = PROJECT / ".viewers/node_modules/.bin/3d-tiles-tools"
VERSION = "aaaaaaaa-0000-4000-8000-000000000001"
TILE_COUNT, MEDIAN_TILE_BYTES = 20_000, 10_000
FORMATS = ("3tz", "zip", "tar", "3dtiles")

TABLE_HEADER = """### {title}

tilesync proves each file by its SHA-256 while it packs, and syncs the package to the disk; the others do neither.

| program | seconds | tilesync pack .3tz is so many times as fast | CPU seconds | peak memory, MB |
| --- | ---: | ---: | ---: | ---: |
"""


@dataclass
class Packer:
    """One program: `command` makes the file `out` of a version."""

    name: str
    command: Callable[[Path], list[str]]
    costs: RunCosts = field(default_factory=RunCosts)


def write_destination(dest: Path, *, tiles: int) -> None:
    """Write a destination with one version of small files, as `tilesync mirror` leaves it."""
    from tilesync.core.manifest import encode_line, make_header, make_line
    from tilesync.model import Blob, ExportFacts, ListingState, StoredFile, Version, VersionSummary
    from tilesync.stores.status_files import encode_document

    folder = dest / "versions" / VERSION
    data.write_small_files(folder, tiles=tiles, median=MEDIAN_TILE_BYTES)
    lines, total = list[bytes](), 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        total += len(content)
        md5, sha256 = hashlib.md5(content, usedforsecurity=False).digest(), hashlib.sha256(content).digest()
        blob = Blob(path.relative_to(folder).as_posix(), len(content), "0x8DE", md5, "model/gltf-binary")
        lines.append(encode_line(make_line(StoredFile(blob, sha256, 0))))
    summary = VersionSummary("2026-03-01T08:30:00Z", len(lines), total)
    facts = ExportFacts(modified="2026-03-01T08:30:00Z", record={"id": VERSION})
    version = Version(0, VERSION, VERSION, facts, ListingState(is_complete=True), summary=summary)
    manifest = dest / "manifests" / f"{VERSION}.jsonl"
    manifest.parent.mkdir()
    manifest.write_bytes(encode_line(make_header(version)) + b"".join(lines))
    latest = {"version": VERSION, "manifest": f"manifests/{VERSION}.jsonl"}
    (dest / "latest.json").write_bytes(encode_document(latest))


def list_packers(dest: Path) -> list[Packer]:
    """List the programs to compare for a destination."""
    (folder,) = (dest / "versions").iterdir()
    tilesync = str(Path(sys.executable).with_name("tilesync"))

    def pack(ending: str) -> Packer:
        return Packer(f"tilesync pack .{ending}", lambda out: [tilesync, "pack", str(dest), f"{out}.{ending}", "-q"])

    return [
        *map(pack, FORMATS),
        Packer("tar c", lambda out: ["tar", "-C", str(folder), "-cf", f"{out}.tar", "."]),
        Packer("zip -0", lambda out: ["sh", "-c", f"cd '{folder}' && exec zip -0qr '{out}.zip' ."]),
        Packer(
            "3d-tiles-tools convert, .3tz",
            lambda out: ["node", str(TOOLS), "convert", "-i", str(folder), "-o", f"{out}.3tz"],
        ),
    ]


def measure(title: str, dest: Path, folder: Path, *, rounds: int) -> str:
    """Run the programs in rounds, every other one in reverse order; return a table of their costs."""
    packers = list_packers(dest)
    for number in range(rounds):
        for packer in packers[:: -1 if number % 2 else 1]:
            with tempfile.TemporaryDirectory(dir=folder) as out:
                os.sync()
                cost = run_measured(packer.command(Path(out, "package")), {}, folder / "log")
            packer.costs.rounds.append(cost)
            print(f"{title}: {packer.name}: {cost.seconds:.2f} s, {cost.cpu_seconds:.2f} s CPU", flush=True)
    table = TABLE_HEADER.format(title=title)
    for packer in packers:
        costs = packer.costs
        ratio = "" if packer is packers[0] else f"{costs.seconds / packers[0].costs.seconds:.2f}"
        figures = f"{costs.seconds:.2f} | {ratio} | {costs.cpu_seconds:.2f} | {costs.memory_mb:.0f}"
        table += f"| {packer.name} | {figures} |\n"
    return table


def main() -> None:
    """Compare the programs for the demo city and for many small files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=TILE_COUNT)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    tilesync = str(Path(sys.executable).with_name("tilesync"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([tilesync, "demo", str(folder / "city"), "-q"], check=True, stdout=subprocess.DEVNULL)
        write_destination(folder / "small", tiles=asked.tiles)
        count = sum(path.is_file() for path in (folder / "small/versions").rglob("*"))
        titles = {"city": "The demo city in one file", "small": f"{count:,} files of median 10 KB in one file"}
        tables = [measure(title, folder / each, folder, rounds=asked.rounds) for each, title in titles.items()]
    print("\n".join(tables))
    if asked.tiles == TILE_COUNT:
        record_table(PACKING, "\n".join(tables), f"; load {os.getloadavg()[0]:.1f}")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
