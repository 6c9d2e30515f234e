"""Run the server of tilesync, in a thread or as a process.

In a thread it starts fast, has its events, and gets paths exactly as they are written. As a process it has its own
memory, output and environment.
"""

from __future__ import annotations

import asyncio
import http.client
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from tests.support.commandline import start_tilesync
from tests.support.simulator import Simulator
from tilesync import aio
from tilesync.events import Event, Serving


@dataclass(frozen=True)
class Answer:
    """Answer of a server: header names in lower case, body as sent."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class RunningServer:
    """Running server: the URLs that it announced, and its events."""

    viewer: str
    urls: tuple[str, ...]
    events: list[Event] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        """Return host and port."""
        parts = urlsplit(self.viewer)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def wait_for_event(self, matches: Callable[[Event], bool]) -> Event:
        """Return the first event that matches: the event of a request comes after its answer."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if (found := next(filter(matches, list(self.events)), None)) is not None:
                return found
            time.sleep(0.01)
        raise AssertionError(self.events)

    def request(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Send a request; `_` in the names of headers stands for `-`."""
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        try:
            connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()


@contextmanager
def running_server(what: Any, **options: Any) -> Iterator[RunningServer]:
    """Run a server on a free port of loopback while the block runs."""
    started: Future[RunningServer] = Future()
    events: list[Event] = []

    def on_event(event: Event) -> None:
        events.append(event)
        if isinstance(event, Serving):
            started.set_result(RunningServer(event.viewer, event.urls, events))

    stop: list[Any] = []

    async def main() -> None:
        task = asyncio.ensure_future(aio.serve(what, on_event=on_event, **{"port": 0, **options}))
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(task.cancel))
        with suppress(asyncio.CancelledError):
            await task

    def work() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:  # raised again by the caller
            started.set_exception(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield started.result(30)
    finally:
        if thread.is_alive():
            stop[0]()
        thread.join(30)
        assert not thread.is_alive()


def mirror_files(dest: Path, files: dict[str, bytes], **more: Any) -> Path:
    """Mirror files as one export; return the destination."""
    with Simulator() as sim:
        sim.offer_export(files)
        assert sim.mirror(dest, **more).error is None
    return dest


@dataclass
class ServerProcess:
    """Process of `tilesync serve`, the address of its page, and the lines of its stderr and stdout so far."""

    process: subprocess.Popen[str]
    url: str
    lines: list[str]
    output: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        """Return the port that the server listens on."""
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def get(self, path: str, **headers: str) -> httpx.Response:
        """Request a path; `_` in the names of headers stands for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.get(self.url + quote(path), headers=named, timeout=60, trust_env=False)

    def read_json(self, path: str) -> dict[str, Any]:
        """Return a JSON document of the site."""
        found: dict[str, Any] = httpx.get(self.url + path, timeout=60, trust_env=False).json()
        return found


@contextmanager
def server_process(
    *words: object, sim: Simulator | None = None, port: int = 0, env: Mapping[str, str] | None = None
) -> Iterator[ServerProcess]:
    """Run `tilesync serve` as a process until the block ends; it must then end with exit 0.

    With `sim` it asks this service. `env` is added to its environment. A token is not in the `url`.
    """
    with start_tilesync("serve", *words, "--port", port, sim=sim, **(env or {})) as process:
        server = _read_address(process)
        readers = [
            threading.Thread(target=lambda: server.lines.extend(process.stderr or ())),
            threading.Thread(target=lambda: server.output.extend(process.stdout or ())),
        ]
        for reader in readers:
            reader.start()
        try:
            yield server
            process.terminate()
            assert process.wait(20) == 0, "".join(server.lines)
        finally:
            process.kill()
            for reader in readers:
                reader.join()


def _read_address(process: subprocess.Popen[str]) -> ServerProcess:
    assert process.stderr is not None
    said: list[str] = []
    for line in process.stderr:
        said.append(line)
        if match := re.search(r"viewer: ([^\s?]+)", line):
            return ServerProcess(process, match[1], said)
    raise AssertionError(f"the server did not start: {''.join(said)}")
