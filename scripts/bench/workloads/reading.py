"""Start-up, listings and verification."""

from __future__ import annotations

from bench import Bench, Runner
from exports import FEWER_FILE_COUNT, LARGE_FILE_BYTES, LARGE_FILE_COUNT, MANY_FILE_COUNT, PUT_BYTES, PUT_COUNT
from peers import BIN


def start(bench: Bench) -> str:
    """Measure the start-up time."""
    folder = bench.filled_folder("tiny")
    runners = [
        Runner("tilesync --help", lambda: [bench.peers.program, "--help"], rounds=9),
        Runner("tilesync mirror, nothing changed", lambda: bench.peers.tilesync("tiny", folder), rounds=9),
        Runner("azcopy --help", lambda: [bench.peers.azcopy("list", "tiny")[0], "--help"], rounds=9),
        Runner("rclone --help", lambda: [str(BIN / "rclone"), "--help"], rounds=9),
    ]
    return bench.measure("Start-up", runners)


def listing(bench: Bench) -> str:
    """Read a listing and plan a run."""
    runners = []
    for container, count in (("many", MANY_FILE_COUNT), ("fewer", FEWER_FILE_COUNT)):
        command = bench.peers.tilesync(container, bench.new_folder(), "--dry-run")
        runners.append(Runner(f"tilesync, {count:,} listed and planned", lambda c=command: c, rounds=2))
    runners += [
        Runner("rclone size, 1,000,000 listed", lambda: bench.peers.rclone("size", "many"), rounds=1),
        Runner("azcopy list, 1,000,000 listed", lambda: bench.peers.azcopy("list", "many"), rounds=1),
        Runner("obstore, 1,000,000 listed", lambda: bench.peers.python("obstore", "many"), rounds=1),
        Runner("azure-storage-blob, 100,000 listed", lambda: bench.peers.python("azure", "fewer"), rounds=1),
    ]
    return bench.measure("A listing", runners, "The others list and keep nothing; tilesync decides and records.")


def verify(bench: Bench) -> str:
    """Verify a folder, beside sha256sum, and a container."""
    tables = []
    for container, what in (
        ("large", f"{LARGE_FILE_COUNT} files of {LARGE_FILE_BYTES >> 20} MiB"),
        ("small", "20,201 small files"),
    ):
        folder = bench.filled_folder(container)
        some = "1" if container == "large" else "200"
        find = f"find {folder}/versions -type f -print0 | xargs -0 -P2 -n {some} sha256sum"
        runners = [
            Runner("tilesync verify", lambda f=folder: bench.peers.verify(f)),
            Runner("xargs -P2 sha256sum", lambda f=find: ["sh", "-c", f]),
        ]
        note = "tilesync reads what the tilesets ask for, too."
        tables.append(bench.measure(f"Verify: {what}", runners, note))
    return "\n".join([*tables, _verify_container(bench)])


def _verify_container(bench: Bench) -> str:
    """Verify a container, with one request per file."""
    container = bench.new_container()
    bench.run(bench.peers.upload("tilesync", bench.prepare_upload_folder(), container))
    link = bench.peers.link(container)
    out = bench.memory / "out" if bench.memory else None
    runners = [
        Runner("tilesync verify", lambda: bench.peers.verify(link)),
        Runner("tilesync mirror, the same files", lambda: bench.peers.tilesync("put", bench.new_folder(out))),
        Runner("tilesync verify --quick", lambda: bench.peers.verify(link, "--quick")),
    ]
    note = "Beside it, the download of the same files, into memory where there is room."
    return bench.measure(f"Verify: {PUT_COUNT:,} files of {PUT_BYTES >> 10} KB in a container", runners, note)
