"""Run `tilesync serve` for a live export as a process, and request paths of it."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

from tests.support.commandline import start_tilesync
from tests.support.simulator import Simulator


@dataclass
class ServeProcess:
    """Process of `tilesync serve`, its address, and the lines of its stderr and stdout so far."""

    process: subprocess.Popen[str]
    url: str
    lines: list[str]
    output: list[str] = field(default_factory=list)

    def get(self, path: str, **headers: str) -> httpx.Response:
        """Request a path."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.get(self.url + quote(path), headers=named, timeout=30, trust_env=False)

    def read_json(self, path: str) -> dict[str, Any]:
        """Return a JSON document of the site."""
        found: dict[str, Any] = httpx.get(self.url + path, timeout=30, trust_env=False).json()
        return found


@contextmanager
def serve_live(*words: object, sim: Simulator, **more: str) -> Iterator[ServeProcess]:
    """Run `tilesync serve` on a free port until the block ends; it must end well."""
    with start_tilesync("serve", *words, "--port", 0, sim=sim, **more) as process:
        assert process.stderr is not None
        lines: list[str] = []
        try:
            for line in process.stderr:
                lines.append(line)
                if match := re.search(r"viewer: (\S+)", line):
                    break
            else:
                raise AssertionError("".join(lines))
            served = ServeProcess(process, match[1].split("?")[0], lines)
            readers = [
                threading.Thread(target=lambda: lines.extend(process.stderr or ())),
                threading.Thread(target=lambda: served.output.extend(process.stdout or ())),
            ]
            for reader in readers:
                reader.start()
            yield served
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0, "".join(lines)
            for reader in readers:
                reader.join()
        finally:
            process.kill()
