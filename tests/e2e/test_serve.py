"""Test the server as a viewer meets it: real processes and stores, while versions are published."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx
import pytest

from tests.support.builders import export
from tests.support.commandline import run_tilesync, start_tilesync
from tests.support.tile_server import mirror_files, running_server
from tilesync.model import Layout


@contextmanager
def serve_process(*words: object) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run `tilesync serve` as a process; yield the address of its page."""
    with start_tilesync("serve", *words, "--port", 0) as process:
        assert process.stderr is not None
        try:
            lines = iter(process.stderr.readline, "")
            yield next(match[1] for line in lines if (match := re.search(r"viewer: (\S+)", line))), process
        finally:
            process.terminate()
            assert process.wait(20) == 0


def find_uris(document: object) -> Iterator[str]:
    """Yield the URIs in a tileset."""
    if isinstance(document, dict):
        for name, value in document.items():
            if name == "uri" and isinstance(value, str):
                yield value
            else:
                yield from find_uris(value)
    elif isinstance(document, list):
        for each in document:
            yield from find_uris(each)


class ViewerClient(threading.Thread):
    """Client that loads the tileset again and again, and all that it refers to; counts statuses."""

    def __init__(self, page: str, stop: threading.Event) -> None:
        super().__init__()
        self.page = page
        self.stop_event = stop
        self.statuses: Counter[int | str] = Counter()
        self.roots: set[bytes] = set()

    def run(self) -> None:
        """Load until told to stop."""
        with httpx.Client(timeout=20, trust_env=False) as client:
            while not self.stop_event.is_set():
                self.load(client, urljoin(self.page, "tileset.json"), is_root=True)

    def load(self, client: httpx.Client, url: str, *, is_root: bool = False) -> None:
        """Load a file, and what it refers to."""
        try:
            answer = client.get(url)
            data = answer.content
        except httpx.HTTPError as error:
            self.statuses[type(error).__name__] += 1
            return
        self.statuses[answer.status_code] += 1
        if is_root:
            self.roots.add(data)
        if answer.status_code == 200 and urlsplit(url).path.endswith(".json"):
            for uri in find_uris(json.loads(data)):
                if not self.stop_event.is_set():
                    self.load(client, urljoin(url, uri))


def test_no_request_fails_while_versions_are_published(tmp_path: Path) -> None:
    """Clients load one version after the other while other processes publish them, and no request fails."""
    dest = tmp_path / "city"
    assert run_tilesync("demo", dest, "-q").exit_code == 0
    stop = threading.Event()
    with serve_process(dest) as (page, _):
        clients = [ViewerClient(page, stop) for _ in range(4)]
        for client in clients:
            client.start()
        try:
            for _ in range(3):
                assert run_tilesync("demo", dest, "-q").exit_code == 0
        finally:
            stop.set()
            for client in clients:
                client.join(60)
    statuses = sum((client.statuses for client in clients), Counter[int | str]())
    assert set(statuses) == {200}
    assert statuses[200] > 500
    assert len(set[bytes]().union(*(client.roots for client in clients))) >= 2


@pytest.mark.parametrize("layout", ["versioned", "flat"])
def test_doctor_finds_nothing_to_mend(tmp_path: Path, layout: str) -> None:
    """Every check of `tilesync doctor` is ok for a folder that the server serves."""
    files = export(4) | {"ä b+%20/t.png": b"\x89PNG\r\n\x1a\n"}
    with running_server(mirror_files(tmp_path / "d", files, layout=Layout(layout))) as server:
        done = run_tilesync("doctor", tmp_path / "d", "--public-url", server.viewer, "--json")
    skipped = {"caching": "skipped"} if layout == "flat" else {}  # no file of the flat layout is immutable
    assert (done.exit_code, done.failed_checks) == (0, skipped), done.stdout
