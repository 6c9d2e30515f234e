"""Runs that a test kills, and what they leave."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.support.builders import IMODEL
from tests.support.simulator import Simulator


def start_mirror(sim: Simulator, dest: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tilesync", "mirror", IMODEL, str(dest), "--transfers", "8", "--json", *options]
    env = {"PATH": os.environ["PATH"], "TILESYNC_API_URL": sim.url, "TILESYNC_TOKEN": sim.token}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def read_stored_rows(dest: Path) -> set[tuple[int, str]]:
    """Read the stored files from the catalog of a running process; empty while there is no catalog."""
    path = dest / ".tilesync/catalog.sqlite3"
    if not path.exists():
        return set()
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)) as db:
            return set(db.execute("SELECT version, coalesce(name, key) FROM blob WHERE state = 1"))
    except sqlite3.OperationalError:  # the tables are not there yet
        return set()


def kill_when_stored(running: subprocess.Popen[Any], dest: Path, *, count: int) -> int:
    """Kill a run when its catalog has `count` stored files; return how many it has then."""
    deadline = time.monotonic() + 30
    while len(read_stored_rows(dest)) < count and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert running.returncode == -signal.SIGKILL
    return len(read_stored_rows(dest))


def assert_pointer_complete(dest: Path) -> None:
    """Assert that the pointer leads to a complete version: every referenced file exists, and every tileset parses."""
    pointer = dest / "tileset.json"
    if not pointer.exists():
        return
    pending = [(dest, json.loads(pointer.read_bytes()))]
    while pending:
        folder, document = pending.pop()
        for child in document["root"].get("children", ()):
            path = folder / unquote(child["content"]["uri"])
            data = path.read_bytes()
            if path.suffix == ".json":
                pending.append((path.parent, json.loads(data)))


def kill_after(running: subprocess.Popen[bytes], ready: threading.Event, wait: float) -> bool:
    """Kill the process `wait` seconds after `ready`; return false if it had already ended."""
    deadline = time.monotonic() + 20
    while not ready.wait(0.02) and running.poll() is None and time.monotonic() < deadline:
        pass
    try:
        running.wait(wait)
    except subprocess.TimeoutExpired:
        running.send_signal(signal.SIGKILL)
    running.communicate()
    return running.returncode == -signal.SIGKILL
