"""A container that a program mirrors to, by way of a road on which anything may happen."""

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

from tests.support.azurite import ACCOUNT, KEY, Azurite, Passing, Refusal, Road, new_container
from tests.support.builders import IMODEL
from tests.support.simulator import Ended, Simulator, command


class Away:
    """A container that a program mirrors to, by way of a road on which anything may happen."""

    def __init__(self, azurite: Azurite, road: Road, state: Path) -> None:
        self.url = new_container(azurite)
        self.container = self.url.rpartition("/")[2]
        self.place = f"az://{ACCOUNT}/{self.container}"
        self.client = azurite._account.get_container_client(self.container)
        self.road = road
        self.state = state
        self.env = {
            "AZURE_STORAGE_KEY": KEY,
            "TILESYNC_AZURE_ENDPOINT": f"{road.url}/{ACCOUNT}",
            "XDG_STATE_HOME": str(state),
            "TILESYNC_RETRY_FOR": "10s",
        }

    def mirror(self, sim: Simulator, *options: str, dest: str | None = None, **env: str) -> Ended:
        """Run the main job; no signature and no key is in what it says."""
        ended = sim.command(dest or self.place, *options, env={**self.env, **env})
        assert "sig=" not in ended.said + json.dumps(ended.last)
        assert KEY not in ended.said
        return ended

    def run(self, *words: str) -> Ended:
        """Run another command."""
        return command(*words, env=self.env)

    def start(self, sim: Simulator, *options: str) -> subprocess.Popen[bytes]:
        """Start the main job."""
        env = {**self.env, "TILESYNC_API_URL": sim.url, "TILESYNC_TOKEN": sim.token, "PATH": "/usr/bin:/bin"}
        words = [sys.executable, "-m", "tilesync", "mirror", IMODEL, self.place, "--json", *options]
        return subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def blobs(self, prefix: str = "") -> dict[str, bytes]:
        """What lies there below a prefix, by the name behind it."""
        names = [blob.name for blob in self.client.list_blobs(name_starts_with=prefix)]
        return {name[len(prefix) :]: self.client.download_blob(name, decompress=False).readall() for name in names}

    def names(self) -> list[str]:
        """What lies there."""
        return [blob.name for blob in self.client.list_blobs()]

    def said(self, name: str) -> Any:
        """A document there."""
        return json.loads(self.client.download_blob(name).readall())

    def holds(self, version: str, files: dict[str, bytes]) -> None:
        """The pointer leads to this version, which has these files and no others."""
        assert self.said("latest.json")["version"] == version
        assert self.blobs(f"versions/{version}/") == files
        uri = self.said("tileset.json")["root"]["children"][0]["content"]["uri"]
        assert uri.startswith(f"versions/{version}/")

    def moved(self) -> list[Passing]:
        """The requests that moved bytes of files, there or back, since `forget`."""
        moving = (each for each in self.road.told if "versions/" in each.blob and each.method in {"GET", "PUT"})
        return [each for each in moving if "x-ms-copy-source" not in each.headers]

    def forget(self) -> None:
        """Count requests anew."""
        self.road.told.clear()
        self.road.passed.clear()


def refusing(status: int, code: str, *, times: int | None = None) -> Callable[[Passing], Refusal | None]:
    """A gate that refuses to take files, so many times."""
    left = [times if times is not None else 1 << 30]
    lock = threading.Lock()

    def gate(passing: Passing) -> Refusal | None:
        is_file = passing.method == "PUT" and "versions/" in passing.blob
        with lock:
            if not is_file or left[0] <= 0:
                return None
            left[0] -= 1
        return Refusal(status, code)

    return gate


class Killable(Protocol):
    """A destination that programs mirror to."""

    def start(self, sim: Simulator, *options: str) -> subprocess.Popen[bytes]:
        """Start the main job."""

    def mirror(self, sim: Simulator, *options: str) -> Ended:
        """Run the main job."""

    def names(self) -> list[str]:
        """What lies there."""


def killed_at_random(place: Killable, sim: Simulator, dice: random.Random) -> None:
    """Kill runs while files are on their way: the pointer stands only where a run had come to its end; the last run
    ends at once, and well.
    """
    sim.delay = 0.15
    killed = 0
    for _ in range(3):
        before = _files(place)
        running = place.start(sim, "--transfers", "8")
        while _files(place) <= before and running.poll() is None:
            time.sleep(0.02)
        time.sleep(dice.uniform(0.0, 0.5))
        if running.poll() is not None:
            break
        running.send_signal(signal.SIGKILL)
        running.communicate()
        names = place.names()
        if "tileset.json" in names:
            assert any(name.startswith("manifests/") for name in names)
            break
        killed += 1
    sim.delay = 0.0
    began = time.monotonic()
    run = place.mirror(sim)
    assert run.exit == 0, run.said
    assert time.monotonic() - began < 30
    assert killed >= 1


def _files(place: Killable) -> int:
    return sum(name.startswith("versions/") for name in place.names())
