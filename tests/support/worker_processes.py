"""Worker processes of a run: find them, and give them time."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.faults import is_blob
from tests.support.simulator import Simulator
from tilesync.app import worker_tasks
from tilesync.demo.loopback_server import FakeRequest

TILES = 600
LATE = 450
"""Number of requests after which the workers run."""


def list_worker_pids() -> list[int]:
    """Return the ids of worker processes that this process started."""
    pids = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and b"tilesync.runtime.process_pool" in command:
            pids.append(int(pid))
    return pids


def is_from_worker(request: FakeRequest) -> bool:
    """Match requests for blobs by worker processes: their client sends the Host header first, the other last."""
    return is_blob(request) and next(iter(request.headers.keys())).lower() == "host"


def wait_for_slow_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give batches more time than a loaded machine needs, so that each blob is requested once."""
    monkeypatch.setattr(worker_tasks, "BATCH_TIMEOUT", timedelta(seconds=60))


def record_worker_pids(sim: Simulator, seen: list[int]) -> None:
    """Record the workers that run when most blobs have been requested."""
    sim.run_before_request(LATE, is_blob, lambda: seen.extend(list_worker_pids()))
