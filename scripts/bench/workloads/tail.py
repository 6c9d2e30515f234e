"""The tail of a first run: from the last byte of the last file to the published version, as seen from outside."""

from __future__ import annotations

from pathlib import Path

from access_log import AccessLog
from bench import Bench, Column, Runner
from measure import RunCost


def tail(bench: Bench) -> str:
    """Measure from the end of the last response with a file to `latest.json`, and to the end of the process."""
    log = AccessLog(bench.access_log)
    folder = Path()

    def next_folder() -> Path:
        nonlocal folder
        folder = bench.new_folder()
        return folder

    def published_after_s(_: Runner, __: RunCost) -> float:
        published = folder / "latest.json"
        return published.stat().st_mtime - log.last_file_at() if published.exists() else float("nan")

    columns = [
        Column("last byte to latest.json, s", published_after_s, start=log.skip),
        Column("last byte to exit, s", lambda _, cost: cost.ended_at - log.last_file_at()),
    ]
    runners = [
        Runner("tilesync", lambda: bench.peers.tilesync("small", next_folder())),
        Runner("rclone --transfers 200", lambda: bench.peers.rclone("copy", "small", str(next_folder()), at_once=200)),
    ]
    note = (
        "The last byte is the end of the last file's response in the log of the service. In its tail tilesync checks"
        " that nothing is missing, makes all files durable and writes the manifest; rclone has no such step."
    )
    return bench.measure("The tail of a first run, 20,201 small files", runners, note, columns)
