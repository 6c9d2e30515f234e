"""Downloads: many small files, and a few large ones."""

from __future__ import annotations

from pathlib import Path

import data
from bench import Bench, Column, Runner
from exports import LARGE_FILE_BYTES, LARGE_FILE_COUNT, MEDIAN_TILE_BYTES


def small(bench: Bench) -> str:
    """Download many small files, onto the disk and, where there is room, into memory."""
    title = f"{len(names_of(bench, 'small')):,} files of median {MEDIAN_TILE_BYTES // 1000} KB"
    note = "Of curl and rclone the best number at once; curl verifies nothing."
    runners = [
        *fastest_clients(bench, "small"),
        azcopy(bench, "small"),
        python(bench, "obstore", "small"),
        rclone(bench, "small", 4, rounds=1),
        python(bench, "azure", "small", rounds=1),
    ]
    tables = [bench.measure(f"{title}, onto the disk", runners, note)]
    if bench.memory:
        out = bench.memory / "out"
        tables.append(bench.measure(f"{title}, into memory", fastest_clients(bench, "small", out), note))
    return "\n".join(tables)


def large(bench: Bench) -> str:
    """Download a few large files."""
    runners = [
        *large_clients(bench),
        azcopy(bench, "large"),
        python(bench, "obstore", "large"),
        python(bench, "azure", "large"),
    ]
    note = "tilesync computes SHA-256 and MD5, rclone and azcopy MD5, the others nothing."
    return bench.measure(f"{LARGE_FILE_COUNT} files of {LARGE_FILE_BYTES >> 20} MiB", runners, note)


def fastest_clients(bench: Bench, container: str, out: Path | None = None) -> list[Runner]:
    """Return tilesync, and curl and rclone with their best numbers at once."""
    names = names_of(bench, container)
    return [
        tilesync(bench, container, out),
        bench.fastest((64, 128, 256), lambda count: curl(bench, container, names, count, out)),
        bench.fastest((64, 128, 200), lambda count: rclone(bench, container, count, out)),
    ]


def large_clients(bench: Bench) -> list[Runner]:
    """Return tilesync, curl and rclone for the large files."""
    curl_runner = curl(bench, "large", names_of(bench, "large"), LARGE_FILE_COUNT)
    return [tilesync(bench, "large"), curl_runner, rclone(bench, "large", 16)]


def names_of(bench: Bench, container: str) -> list[str]:
    """Return the names of the files of a container."""
    return [blob.name for blob in data.list_folder(bench.data / "containers" / container)]


def tilesync(bench: Bench, container: str, out: Path | None = None) -> Runner:
    """Mirror with tilesync."""
    return Runner("tilesync", lambda: bench.peers.tilesync(container, bench.new_folder(out)))


def curl(bench: Bench, container: str, names: list[str], count: int, out: Path | None = None) -> Runner:
    """Download with curl."""
    return Runner(
        f"curl --parallel-max {count}",
        lambda: bench.peers.curl(container, names, bench.new_folder(out), at_once=count),
    )


def rclone(bench: Bench, container: str, count: int, out: Path | None = None, *, rounds: int = 3) -> Runner:
    """Download with rclone."""
    return Runner(
        f"rclone --transfers {count}",
        lambda: bench.peers.rclone("copy", container, str(bench.new_folder(out)), at_once=count),
        rounds,
    )


def azcopy(bench: Bench, container: str) -> Runner:
    """Download with azcopy."""
    return Runner("azcopy", lambda: bench.peers.azcopy("copy", container, str(bench.new_folder())))


def python(bench: Bench, program: str, container: str, *, rounds: int = 3) -> Runner:
    """Download with a Python library."""
    name = {"azure": "azure-storage-blob"}.get(program, program)
    return Runner(name, lambda: bench.peers.python(program, container, str(bench.new_folder())), rounds)


def bytes_of(bench: Bench, container: str) -> int:
    """Return the bytes of all files of a container."""
    return sum(blob.size for blob in data.list_folder(bench.data / "containers" / container))


def rate_column(size: int) -> Column:
    """Return a column with the megabits per second of a download of `size` bytes."""
    return Column("Mbit/s", lambda _, cost: size * 8 / cost.seconds / 1e6, digits=0)
