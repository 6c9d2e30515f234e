"""Container that programs mirror to, through a proxy that can inject faults."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from tests.support.azurite import ACCOUNT, KEY, AzureProxy, Azurite, ProxiedRequest, RefusedResponse, new_container
from tests.support.builders import IMODEL
from tests.support.simulator import ProgramResult, Simulator, run_program


class AzureFixture:
    """Container that programs mirror to, through a proxy that can inject faults."""

    def __init__(self, azurite: Azurite, proxy: AzureProxy, state: Path) -> None:
        self.url = new_container(azurite)
        self.container = self.url.rpartition("/")[2]
        self.destination_url = f"az://{ACCOUNT}/{self.container}"
        self.client = azurite.service.get_container_client(self.container)
        self.proxy = proxy
        self.state = state
        self.env = {
            "AZURE_STORAGE_KEY": KEY,
            "TILESYNC_AZURE_ENDPOINT": f"{proxy.url}/{ACCOUNT}",
            "XDG_STATE_HOME": str(state),
            "TILESYNC_RETRY_FOR": "10s",
        }

    def mirror(self, sim: Simulator, *options: str, dest: str | None = None, **env: str) -> ProgramResult:
        """Run `tilesync mirror`; assert that its output has no signature and no key."""
        ended = sim.mirror_program(dest or self.destination_url, *options, env={**self.env, **env})
        assert "sig=" not in ended.stderr + json.dumps(ended.last_line)
        assert KEY not in ended.stderr
        return ended

    def run(self, *words: str) -> ProgramResult:
        """Run another command."""
        return run_program(*words, env=self.env)

    def start_mirror(self, sim: Simulator, *options: str) -> subprocess.Popen[bytes]:
        """Start `tilesync mirror`."""
        env = {**self.env, "TILESYNC_API_URL": sim.url, "TILESYNC_TOKEN": sim.token, "PATH": "/usr/bin:/bin"}
        words = [sys.executable, "-m", "tilesync", "mirror", IMODEL, self.destination_url, "--json", *options]
        return subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def blobs(self, prefix: str = "") -> dict[str, bytes]:
        """Return the blobs below a prefix, by the rest of their names."""
        names = [blob.name for blob in self.client.list_blobs(name_starts_with=prefix)]
        return {name[len(prefix) :]: self.client.download_blob(name, decompress=False).readall() for name in names}

    def list_names(self) -> list[str]:
        """Return all blobs."""
        return [blob.name for blob in self.client.list_blobs()]

    def read_json(self, name: str) -> Any:
        """Read a JSON blob."""
        return json.loads(self.client.download_blob(name).readall())

    def assert_published(self, version: str, files: dict[str, bytes]) -> None:
        """Assert that the pointer leads to this version, which has exactly these files."""
        assert self.read_json("latest.json")["version"] == version
        assert self.blobs(f"versions/{version}/") == files
        uri = self.read_json("tileset.json")["root"]["children"][0]["content"]["uri"]
        assert uri.startswith(f"versions/{version}/")

    def transfer_requests(self) -> list[ProxiedRequest]:
        """Return the requests that transferred bytes of files since `clear_requests`."""
        moving = (each for each in self.proxy.requests if "versions/" in each.blob and each.method in {"GET", "PUT"})
        return [each for each in moving if "x-ms-copy-source" not in each.headers]

    def clear_requests(self) -> None:
        """Forget the requests so far."""
        self.proxy.requests.clear()
        self.proxy.answered.clear()


def refuse_uploads(
    status: int, code: str, *, times: int | None = None
) -> Callable[[ProxiedRequest], RefusedResponse | None]:
    """Make a fault that refuses uploads of files, a number of times."""
    left = [times if times is not None else 1 << 30]
    lock = threading.Lock()

    def intercept(passing: ProxiedRequest) -> RefusedResponse | None:
        is_file = passing.method == "PUT" and "versions/" in passing.blob
        with lock:
            if not is_file or left[0] <= 0:
                return None
            left[0] -= 1
        return RefusedResponse(status, code)

    return intercept


class KillableDestination(Protocol):
    """Destination that programs mirror to."""

    def start_mirror(self, sim: Simulator, *options: str) -> subprocess.Popen[bytes]:
        """Start `tilesync mirror`."""

    def mirror(self, sim: Simulator, *options: str) -> ProgramResult:
        """Run `tilesync mirror`."""

    def list_names(self) -> list[str]:
        """Return all blobs."""


def kill_at_random_times(place: KillableDestination, sim: Simulator, dice: random.Random) -> None:
    """Kill runs during transfers. The pointer must move only when a run has ended; the last run
    ends at once and succeeds.
    """
    sim.delay_s = 0.15
    killed = 0
    for _ in range(3):
        before = _count_files(place)
        running = place.start_mirror(sim, "--transfers", "8")
        while _count_files(place) <= before and running.poll() is None:
            time.sleep(0.02)
        time.sleep(dice.uniform(0.0, 0.5))
        if running.poll() is not None:
            break
        running.send_signal(signal.SIGKILL)
        running.communicate()
        names = place.list_names()
        if "tileset.json" in names:
            assert any(name.startswith("manifests/") for name in names)
            break
        killed += 1
    sim.delay_s = 0.0
    began = time.monotonic()
    run = place.mirror(sim)
    assert run.exit_code == 0, run.stderr
    assert time.monotonic() - began < 30
    assert killed >= 1


def _count_files(place: KillableDestination) -> int:
    return sum(name.startswith("versions/") for name in place.list_names())
