"""Test `tilesync demo`: a mirror of the fake service, and the next commands to try."""

from __future__ import annotations

import http.client
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.builders import read_tree
from tests.support.fork_server import run_forked

MAX_DEMO_S = 45
"""Maximum duration in seconds; the demo promises 15 on an idle machine."""


def run_demo(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the demo. The fake service is on loopback, so proxies must not matter."""
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "intranet"}
    return run_forked(["demo", str(folder), *more], env, timeout_s=MAX_DEMO_S)


@pytest.mark.scale
def test_the_demo_mirrors_a_city_twice_and_prints_commands(tmp_path: Path) -> None:
    """The demo ends in time with exit 0 and prints commands to try; a second run adds a version; both verify."""
    begun = time.monotonic()
    done = run_demo(tmp_path / "city")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begun < MAX_DEMO_S
    for command in ("tilesync verify", "tilesync demo", "tilesync mirror"):
        assert command in done.stderr
    (first,) = (tmp_path / "city/versions").iterdir()
    files = read_tree(first)
    assert len(files) > 400
    pointer = json.loads((tmp_path / "city/tileset.json").read_bytes())
    assert pointer["asset"]["version"] == "1.1"
    assert 6.35e6 < math.hypot(*pointer["root"]["transform"][12:15]) < 6.38e6  # on the earth, not at its centre

    done = run_demo(tmp_path / "city", "--json")
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["kind"], last["exit"], last["published"]) == ("finished", 0, True)
    assert 0 < last["fetched"] < last["reused"]
    assert last["listed"] == last["fetched"] + last["reused"]
    versions = {path.name for path in (tmp_path / "city/versions").iterdir()}
    assert len(versions) == 2
    assert first.name in versions
    assert read_tree(first) == files
    audit = subprocess.run(
        [sys.executable, "-m", "tilesync", "verify", str(tmp_path / "city")], capture_output=True, timeout=MAX_DEMO_S
    )
    assert audit.returncode == 0


@pytest.mark.scale
def test_the_demo_ends_in_the_viewer(tmp_path: Path) -> None:
    """With --view the demo serves its city and opens the page in the browser, until Ctrl-C ends it with exit 0."""
    seen = tmp_path / "seen"
    os.mkfifo(seen)
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >{seen}\n')
    browser.chmod(0o755)
    env = {**os.environ, "BROWSER": str(browser), "NO_PROXY": "*"}
    command = [sys.executable, "-m", "tilesync", "demo", str(tmp_path / "city"), "--view"]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = urlsplit(seen.read_text().strip())
            connection = http.client.HTTPConnection(address.netloc, timeout=MAX_DEMO_S)
            connection.request("GET", f"{address.path}tileset.json")
            pointer = connection.getresponse().read()
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=MAX_DEMO_S)
        finally:
            process.kill()
    assert pointer == (tmp_path / "city/tileset.json").read_bytes()
    assert process.returncode == 0, told
    assert f"viewer: {address.geturl()}" in told


def test_the_demo_does_not_view_for_programs(tmp_path: Path) -> None:
    """--view with --json ends with exit 2 before anything is mirrored."""
    done = run_demo(tmp_path / "city", "--view", "--json")
    assert (done.returncode, (tmp_path / "city").exists()) == (2, False)
    assert "--view and --json cannot be used together" in done.stderr
