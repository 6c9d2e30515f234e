"""Test `tilesync serve` and `tilesync view` as processes: what they print, and how they end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.builders import export
from tests.support.commandline import make_environment, run_tilesync, start_tilesync
from tests.support.tile_server import mirror_files
from tilesync.model import Layout


@pytest.fixture(scope="module")
def dest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mirror_files(tmp_path_factory.mktemp("command") / "d", export(2))


@contextmanager
def serving(*words: object, command: str = "serve", **more: Any) -> Iterator[subprocess.Popen[str]]:
    with start_tilesync(command, *words, "--port", 0, **more) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], pattern: str) -> str:
    """Read lines of stderr until one matches; return the match."""
    assert process.stderr is not None
    for line in process.stderr:
        if match := re.search(pattern, line):
            return match[0]
    raise AssertionError(f"{pattern} was not printed; exit {process.wait()}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_the_normal_end(dest: Path, number: int) -> None:
    """The URLs are printed; Ctrl-C and SIGTERM end the server with exit 0 within some seconds."""
    with serving(dest) as process:
        url = read_until(process, r"http://127\.0\.0\.1:\d+/tileset\.json")
        read_until(process, r"viewer: http://127\.0\.0\.1:\d+/ ")
        with urllib.request.urlopen(url) as response:
            assert response.read() == (dest / "tileset.json").read_bytes()
        began = time.monotonic()
        process.send_signal(number)
        assert process.wait(20) == 0
        assert time.monotonic() - began < 15


def test_a_client_that_does_not_read_delays_no_end(dest: Path, tmp_path: Path) -> None:
    """A client in the middle of a large file has two seconds, then the server ends with exit 0 all the same."""
    large = mirror_files(tmp_path / "large", export(1) | {"tiles/large.bin": bytes(60_000_000)})
    with serving(large) as process:
        port = int(read_until(process, r"\d+(?=/tileset\.json)"))
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /current/tiles/large.bin HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0


@pytest.mark.skipif(not hasattr(os, "set_blocking"), reason="this system has no pipes that refuse to wait")
def test_a_second_signal_while_nobody_reads_the_output(dest: Path) -> None:
    """While the last lines wait for a reader who has stopped, another signal ends the process at once."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    with suppress(BlockingIOError):
        while os.write(write_end, b"\n"):
            pass
    os.set_blocking(write_end, True)
    command = [sys.executable, "-m", "tilesync", "serve", str(dest), "--port", "0", "--json"]
    with subprocess.Popen(
        command, env=make_environment(), stdout=write_end, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            read_until(process, r"viewer: \S+")
            deadline = time.monotonic() + 10
            while process.poll() is None and time.monotonic() < deadline:
                process.send_signal(signal.SIGTERM)
                time.sleep(0.5)  # so that the second one comes when the server has ended
            assert process.poll() in {0, 143}
        finally:
            process.kill()
            os.close(write_end)
            os.close(read_end)


def test_json_and_access_log(dest: Path) -> None:
    """`--json` has the URLs, with `-v` each request, and a last line; `-v` prints a line a request too."""
    with serving(dest, "--json", "-v") as process:
        port = read_until(process, r"\d+(?=/tileset\.json)")
        urllib.request.urlopen(f"http://127.0.0.1:{port}/tileset.json?token=secret").close()
        line = read_until(process, r"^\d{4}-.* GET /tileset.json .*")
        assert re.search(r" 127\.0\.0\.1 GET /tileset\.json 200 \d+ B \d+\.\d ms$", line)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    lines = [json.loads(each) for each in out.splitlines()]
    assert [each["kind"] for each in lines] == ["serving", "request", "finished"]
    assert lines[0]["urls"] == [f"http://127.0.0.1:{port}/tileset.json"]
    assert (lines[1]["path"], lines[1]["status"], lines[2]["exit"]) == ("/tileset.json", 200, 0)
    assert "secret" not in out + err


def test_a_token_is_made_and_shown_once(dest: Path) -> None:
    """`--token auto` makes a secret that is in the printed address of the page, and nowhere else."""
    with serving(dest, "--token", "auto", "--json", "-v") as process:
        page = read_until(process, r"http://127\.0\.0\.1:\d+/\?token=\S{20,}")
        with urllib.request.urlopen(page.replace("/?", "/tileset.json?")) as response:
            assert response.status == 200
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert page.partition("=")[2] not in out + err


def test_everybody_can_read_is_said_plainly(dest: Path) -> None:
    """A host that others reach is a warning, and with a token it is none."""
    with serving(dest, "--host", "0.0.0.0") as process:
        read_until(process, r"warning: everybody who can reach .* can read these tiles")
    with serving(dest, "--host", "0.0.0.0", TILESYNC_SERVE_TOKEN="s3cret-1") as process:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(2)]
        assert lines[0].startswith("serving http://127.0.0.1:")
        other = re.fullmatch(r"for other machines: http://(.+):\d+/\n", lines[1])
        assert other
        assert other[1] not in {"127.0.0.1", "0.0.0.0", "localhost"}


def test_the_error_of_a_host_comes_alone(dest: Path) -> None:
    """A host at which the server cannot listen is an error, without a warning that all can read there."""
    result = run_tilesync("serve", dest, "--host", "300.1.1.1")
    assert result.exit_code == 2
    assert "300.1.1.1" in result.stderr
    assert "warning" not in result.stderr


@pytest.mark.parametrize("token", ["", "abc", "with\ncontrol", "seven77"])
def test_a_token_that_protects_nothing(dest: Path, token: str) -> None:
    """An empty, short or unsendable token is refused, as an option and as a variable; the message does not have it."""
    for result in (
        run_tilesync("serve", dest, "--port", 0, "--json", "--token", token),
        run_tilesync("serve", dest, "--port", 0, "--json", TILESYNC_SERVE_TOKEN=token),
    ):
        error = result.assert_failed(2, "UsageError")
        assert "the token" in error["message"]
        assert "--token auto" in error["hint"]
        assert not token or token not in error["message"]


def test_a_token_is_shown_although_quiet(dest: Path) -> None:
    """With -q the address that has the made token is printed, and nothing else."""
    with serving(dest, "--token", "auto", "-q") as process:
        assert process.stderr is not None
        assert "/?token=" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert "serving" not in process.communicate(timeout=20)[1]


def read_opened(folder: Path) -> str:
    """Wait for the browser of `make_browser`, and return the address that it was given."""
    deadline = time.monotonic() + 20
    while not (folder / "opened").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return (folder / "opened").read_text().strip()


def make_browser(folder: Path) -> str:
    """Return the value of BROWSER for a program that stores the address."""
    browser = folder / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {folder}/opened.part && mv {folder}/opened.part {folder}/opened\n')
    browser.chmod(0o755)
    return f"{browser} %s"


def test_the_browser_gets_no_token(dest: Path, tmp_path: Path) -> None:
    """The browser is started with a code, which gives it the cookie once."""
    with serving(dest, "--token", "s3cret-1", command="view", BROWSER=make_browser(tmp_path)) as process:
        read_until(process, "viewer: ")
        page = read_opened(tmp_path)
        assert "s3cret" not in page
        client = httpx.Client(trust_env=False)
        entry = client.get(page)
        assert (entry.status_code, entry.headers["location"]) == (303, "/")
        assert client.get(page.partition("?")[0] + "tileset.json").status_code == 200
        other = httpx.Client(trust_env=False)
        assert other.get(page).status_code == 200  # the page, which asks for the token
        assert other.get(page.partition("?")[0] + "tileset.json").status_code == 401


def test_view_opens_the_page(dest: Path, tmp_path: Path) -> None:
    """`tilesync view` opens the page in the browser; without a browser it says so."""
    with serving(dest, command="view", BROWSER=make_browser(tmp_path)) as process:
        page = read_until(process, r"(?<=viewer: )\S+")
        assert read_opened(tmp_path) == page
    with serving(dest, "--open", BROWSER="/nonexistent", PATH="/nonexistent") as process:
        read_until(process, "no browser could be opened")


def test_a_browser_of_the_terminal_is_not_opened(dest: Path, tmp_path: Path) -> None:
    """Without a desktop, `tilesync view` leaves the browsers of the terminal alone, and says that it opened none."""
    browser = tmp_path / "lynx"
    browser.write_text(f"#!/bin/sh\ntouch {tmp_path}/opened\n")
    browser.chmod(0o755)
    with serving(dest, command="view", PATH=str(tmp_path), BROWSER="", DISPLAY="", WAYLAND_DISPLAY="") as process:
        read_until(process, "no browser could be opened")
    assert not (tmp_path / "opened").exists()


def test_errors_say_what_to_do(dest: Path, tmp_path: Path) -> None:
    """A port in use, what is no destination, two equal names and bad options end with an exit code and a hint."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        run_tilesync("serve", dest, "--port", port, "--json").assert_failed(2, "UsageError")
    (tmp_path / "d").mkdir()
    for words, exit_code, error in (
        ([tmp_path / "none"], 2, "UsageError"),
        ([f"{tmp_path}/d"], 8, "DestinationError"),
        ([dest, f"{dest}/../d/"], 2, "UsageError"),
        ([f"_tilesync={dest}", dest], 2, "UsageError"),
        ([dest, "--cors-origin", "viewer.example.com"], 2, "UsageError"),
        ([dest, "--host", "192.0.2.1"], 2, "UsageError"),
        ([dest, f"b={dest}", "--state-dir", tmp_path], 2, "UsageError"),
    ):
        run_tilesync("serve", *words, "--port", 0, "--json").assert_failed(exit_code, error)


def test_the_service_manager_is_told(dest: Path, tmp_path: Path) -> None:
    """Under systemd the server says when it listens, and that it stops while an answer still has time to end."""
    large = mirror_files(tmp_path / "large", export(1) | {"tiles/large.bin": bytes(60_000_000)})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, socket.socket() as client:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        with serving(large, NOTIFY_SOCKET=str(tmp_path / "notify")) as process:
            ready = re.match(r"READY=1\nSTATUS=serving http://127\.0\.0\.1:(\d+)/", manager.recv(1000).decode())
            assert ready
            client.connect(("127.0.0.1", int(ready[1])))
            client.sendall(b"GET /current/tiles/large.bin HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
            process.send_signal(signal.SIGTERM)
            assert manager.recv(1000) == b"STOPPING=1\nSTATUS=the server stops"
            assert process.poll() is None
            assert process.wait(20) == 0


@pytest.mark.parametrize("word", ["a=", "={dest}", "my name={dest}", "..={dest}", "_tilesync={dest}"])
def test_names_that_no_tileset_can_have(dest: Path, word: str) -> None:
    """The error for a bad NAME says which ones are possible."""
    error = run_tilesync("serve", word.format(dest=dest), "--port", 0, "--json").assert_failed(2, "UsageError")
    assert "letters, digits" in error["hint"]


def test_a_folder_that_does_not_exist(dest: Path, tmp_path: Path) -> None:
    """The error says that there is no such folder or file."""
    error = run_tilesync("serve", "nothere", "--port", 0, "--json", cwd=tmp_path).assert_failed(2, "UsageError")
    assert error["message"] == "there is no folder nothere, and it is not an iModel id"


@pytest.mark.parametrize("words", [("--cdn",), ("--wait", "1s"), ("--export-id", "x"), ("--token-command", "x")])
def test_options_that_would_have_no_effect(dest: Path, words: tuple[str, ...]) -> None:
    """Options of live exports are refused if nothing that is served is one."""
    error = run_tilesync("serve", dest, *words, "--port", 0, "--json").assert_failed(2, "UsageError")
    assert error["message"] == f"{words[0]}: only for live exports, and nothing that is served here is one"


def test_a_terminal_that_is_closed(dest: Path) -> None:
    """SIGHUP ends the server with a hint that fits a server, which continues nothing."""
    with serving(dest) as process:
        read_until(process, "viewer: ")
        process.send_signal(signal.SIGHUP)
        assert "start the server again" in process.communicate(timeout=20)[1]
        assert process.returncode != 0


def test_output_that_is_lost(dest: Path) -> None:
    """With --json and a closed standard output the server ends with exit 8."""
    words = [sys.executable, "-m", "tilesync", "serve", str(dest), "--json", "--port", "0"]
    with subprocess.Popen(
        ["sh", "-c", 'exec "$@" >&-', "sh", *words], env=make_environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        read_until(process, "viewer: ")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 8


def test_a_flat_layout_with_another_state_folder(tmp_path: Path) -> None:
    """With --state-dir the manifests of the flat layout are found there."""
    files = export(2)
    flat = mirror_files(tmp_path / "d", files, layout=Layout.FLAT, state_dir=tmp_path / "state")
    with serving(flat, "--state-dir", tmp_path / "state") as process:
        page = read_until(process, r"(?<=viewer: )\S+")
        with urllib.request.urlopen(f"{page}_tilesync/site.json") as response:
            (entry,) = json.load(response)["tilesets"]
        assert [(each["url"], each["files"]) for each in entry["versions"]] == [("tileset.json", len(files))]
        with urllib.request.urlopen(f"{page}tileset.json") as response:
            assert response.read() == files["tileset.json"]
