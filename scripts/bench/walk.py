"""Measure time and memory to read a large tileset: `python scripts/bench/walk.py [TILES]`.

One tileset JSON with that many tiles (1,000,000 by default) passes through the checks and the reading of references as
it does in a transfer, in chunks of 64 KiB, and is re-based as the pointer is. json.loads of the same document is
measured beside it. Each runs in a process of its own, in rounds that alternate; medians are printed.
"""

from __future__ import annotations

import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROUNDS = 3
CHUNK_BYTES = 1 << 16


def write_tileset(path: Path, tiles: int) -> None:
    """Write a tree of tiles with four children each, and full-precision boxes as exporters write them."""
    dice = random.Random(1)

    def open_tile(number: int) -> str:
        box = ",".join(repr(dice.uniform(-500, 500)) for _ in range(12))
        return (
            f'{{"boundingVolume":{{"box":[{box}]}},"geometricError":{dice.random() * 16!r},"refine":"REPLACE",'
            f'"content":{{"uri":"tiles/{number % 997}/{number}.glb"}}'
        )

    with path.open("w") as out:
        out.write('{"asset":{"version":"1.1"},"geometricError":500,"root":')
        stack = [iter([0])]
        while stack:
            number = next(stack[-1], None)
            if number is None:
                stack.pop()
                out.write("]}" if stack else "")
                continue
            children = [child for child in range(4 * number + 1, 4 * number + 5) if child < tiles]
            comma = "," if number % 4 != 1 and number else ""
            out.write(comma + open_tile(number) + (',"children":[' if children else "}"))
            if children:
                stack.append(iter(children))
        out.write("}")


def read_chunks(path: Path) -> Iterator[bytes]:
    """Read a file in chunks."""
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            yield piece


def walk_tileset(path: Path) -> int:
    """Validate the tileset and collect its references in one pass, as a transfer does."""
    from tilesync.model import Blob
    from tilesync.tiles.validator import ContentCheck

    check, found = ContentCheck(Blob("tileset.json", path.stat().st_size), "https://host/container"), 0
    for piece in read_chunks(path):
        check.feed(piece)
        if check.pending_count > 5000:
            found += len(check.drain().references)
    check.finish()
    return found + len(check.drain().references)


def rebase_pointer(path: Path) -> int:
    """Build the pointer of the tileset."""
    from tilesync.tiles.rebase import rebase

    return sum(map(len, rebase(read_chunks(path), "versions/00000000-0000-0000-0000-000000000000/")))


def load_json(path: Path) -> int:
    """Parse the tileset with the standard library."""
    return len(json.loads(path.read_bytes()))


JOBS = {"walk": walk_tileset, "rebase": rebase_pointer, "json.loads": load_json}


def measure_job(job: str, path: str) -> None:
    """Run a job in its own process; measure seconds and peak memory."""
    begun = time.perf_counter()
    result = JOBS[job](Path(path))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([time.perf_counter() - begun, peak, result]))


def main() -> None:
    """Measure all jobs and print a table."""
    if len(sys.argv) == 4:
        measure_job(*sys.argv[2:])
        return
    tiles = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tileset.json"
        write_tileset(path, tiles)
        size = path.stat().st_size / 1e6
        print(f"one tileset JSON, {tiles:,} tiles, {size:.0f} MB\n")
        runs: dict[str, list[tuple[float, float, int]]] = {job: [] for job in JOBS}
        for _ in range(ROUNDS):
            for job in JOBS:
                said = subprocess.run([sys.executable, __file__, "-", job, str(path)], capture_output=True, check=True)
                runs[job].append(tuple(json.loads(said.stdout)))
        print("| | seconds | tiles/s | MB/s | peak MB |\n| --- | --- | --- | --- | --- |")
        for job, found in runs.items():
            seconds, peak = statistics.median(r[0] for r in found), statistics.median(r[1] for r in found)
            print(f"| {job} | {seconds:.1f} | {tiles / seconds:,.0f} | {size / seconds:.0f} | {peak:.0f} |")
        assert runs["walk"][0][2] == tiles


if __name__ == "__main__":
    main()
