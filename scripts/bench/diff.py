"""Measure time and memory to compare two versions: `python scripts/bench/diff.py [FILES [ROUNDS]]`.

Two manifests with that many files (1,000,000 by default) are written as tilesync writes them: the same files with other
ETags and times, as the next export has them; 1 % of them changed; all changed; and all names moved. `tilesync diff
--json` compares each pair. Beside it, sorted lists of names and SHA-256 are made from the manifests and compared by
`comm`, as a script would do, and json.loads with two dictionaries finds what differs by name. Each runs in a process of
its own, in rounds that alternate; medians are printed. Neither of the others finds moves.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from results import DIFF, record_table

ROUNDS = 3
COLUMNS = "| case | program | seconds | CPU seconds | peak memory, MB |\n| --- | --- | ---: | ---: | ---: |"
CASES: dict[str, Callable[[int, int], tuple[str, int]]] = {
    "all the same": lambda number, files: (name_of(number), number),
    "1 % changed": lambda number, files: (name_of(number), number + files * (number % 100 == 7)),
    "all changed": lambda number, files: (name_of(number), number + files),
    "all moved": lambda number, files: (f"moved/{name_of(number)}", number),
}
"""Name and content of a file of the second version, from its number and the number of files."""

LISTS_COMMAND = r"""
export LC_ALL=C
for each in "$1" "$2"; do
  tail -n +2 "$each" |
    sed -E 's/^\{"name":"(.*)","size":[0-9]+,"sha256":"([0-9a-f]{64})".*/\2  \1/' |
    sort > "$each.sums"
done
comm -3 "$1.sums" "$2.sums" | wc -l
"""
DICTIONARIES_PROGRAM = """
import json, sys
def read(path):
    lines = open(path, encoding="utf-8")
    next(lines)
    return {line["name"]: line["sha256"] for line in map(json.loads, lines)}
a, b = map(read, sys.argv[1:])
print(sum(a.get(name) != b.get(name) for name in a.keys() | b.keys()))
"""


def name_of(number: int) -> str:
    """Return the name of a file."""
    return f"tiles/{number // 1000:04d}/{number % 1000:03d}.glb"


def write_version(dest: Path, version: str, files: int, case: str) -> Path:
    """Write the manifest of a version, and return its path."""
    from tilesync.core.manifest import encode_line, make_line
    from tilesync.model import Blob, StoredFile

    dice, choose = random.Random(version), CASES[case]
    path = dest / "manifests" / f"{version}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"version": version, "export": {"id": version}, "imodel": None, "changeset": None, "modified": ""}
    with path.open("wb") as out:
        out.write(encode_line({**header, "files": files, "bytes": 0, "finished": "2026-01-01T00:00:00Z"}))
        for number in range(files):
            name, content = choose(number, files)
            data = b"%d" % content
            etag, moment = f"0x8D{dice.getrandbits(52):013X}", 1_700_000_000 + dice.randrange(100_000)
            blob = Blob(
                name, 1000 + content % 5000, etag, hashlib.md5(data).digest(), "model/gltf-binary", None, moment
            )
            out.write(encode_line(make_line(StoredFile(blob, hashlib.sha256(data).digest(), 0))))
    return path


def measure(command: list[str]) -> tuple[float, float, float]:
    """Run a command; return its seconds, CPU seconds, and peak memory in MB of its largest process."""
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def measure_case(case: str, files: int, rounds: int) -> list[str]:
    """Measure all programs for one pair of manifests; print and return a row for each."""
    with tempfile.TemporaryDirectory() as folder:
        dest = Path(folder)
        paths = [str(write_version(dest, "a", files, "all the same")), str(write_version(dest, "b", files, case))]
        (dest / "latest.json").write_text(json.dumps({"version": "b", "manifest": "manifests/b.jsonl"}))
        programs = {
            "tilesync diff --json": [sys.executable, "-m", "tilesync", "diff", folder, "a", "b", "--json"],
            "sed, sort, comm": ["bash", "-c", LISTS_COMMAND, "bash", *paths],
            "json.loads, two dictionaries": [sys.executable, "-c", DICTIONARIES_PROGRAM, *paths],
        }
        runs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in programs}
        for _ in range(rounds):
            for name, command in programs.items():
                runs[name].append(measure(command))
    rows = []
    for name, found in runs.items():
        seconds, cpu, peak = (statistics.median(values) for values in zip(*found, strict=True))
        rows.append(f"| {case} | {name} | {seconds:.2f} | {cpu:.2f} | {peak:.0f} |")
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure all cases, print a table, and record it in RESULTS.md."""
    files, rounds = (int(word) for word in (*sys.argv[1:], *("1_000_000", str(ROUNDS))[len(sys.argv) - 1 :]))
    print(COLUMNS, flush=True)
    rows = [row for case in CASES for row in measure_case(case, files, rounds)]
    remark = "The lists and the dictionaries do not find which files moved; `sort` writes temporary files of its own."
    table = "\n".join((f"### Two versions of {files:,} files", "", remark, "", COLUMNS, *rows, ""))
    record_table(DIFF, table, f"; {rounds} rounds")


if __name__ == "__main__":
    main()
