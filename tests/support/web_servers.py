"""Run nginx and Caddy on loopback, with the configurations of docs/hosting.md, for one folder."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
FOLDER, PORT = "/srv/tiles/bridge", "8080"
"""Placeholders for the folder and the port in the configurations of the page."""

NGINX_TEMPLATE = """
pid {state}/nginx.pid;
error_log {state}/error.log;
events {{}}
http {{
    log_format asked '$status $request_uri';
    access_log {state}/access.log asked;
    client_body_temp_path {state}/body; proxy_temp_path {state}/proxy; fastcgi_temp_path {state}/fastcgi;
    uwsgi_temp_path {state}/uwsgi; scgi_temp_path {state}/scgi;
    {server}
}}
"""


def read_configuration(language: str) -> str:
    """Return the configuration that the page shows in a code block of this language."""
    page = (DOCS / "hosting.md").read_text(encoding="utf-8")
    (result,) = re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return str(result)


@dataclass
class WebServer:
    """Running server. `url` is the address of the folder; requests are recorded as (decoded path, status)."""

    url: str
    requests: Callable[[], list[tuple[str, int]]]


@contextmanager
def nginx(folder: Path, state: Path, change: Callable[[str], str] = str) -> Iterator[WebServer]:
    """Run nginx with the configuration of the page, edited by `change` if given."""
    port, log = _free_port(), state / "access.log"
    server = _fill_in(change(read_configuration("nginx")), folder, f"127.0.0.1:{port}")
    user = "user root;\n" if os.geteuid() == 0 else ""  # the folders of the tests are private
    state.mkdir(exist_ok=True)
    (state / "nginx.conf").write_text(user + NGINX_TEMPLATE.format(state=state, server=server))
    command = [
        str(find_program("nginx")),
        "-e",
        str(state / "error.log"),
        "-p",
        str(state),
        "-c",
        str(state / "nginx.conf"),
    ]

    def asked() -> list[tuple[str, int]]:
        rows = (line.split(" ", 1) for line in log.read_text().splitlines())
        return [(unquote(uri), int(status)) for status, uri in rows if uri != "/favicon.ico"]

    with _run_server([*command, "-g", "daemon off;"], port, state / "error.log"):
        yield WebServer(f"http://127.0.0.1:{port}", asked)


@contextmanager
def caddy(folder: Path, state: Path, change: Callable[[str], str] = str) -> Iterator[WebServer]:
    """Run Caddy with the configuration of the page."""
    port = _free_port()
    text = _fill_in(change(read_configuration("caddy")), folder, f"http://127.0.0.1:{port}").replace(":http", "http")
    state.mkdir(exist_ok=True)
    (state / "Caddyfile").write_text("{\n\tadmin off\n}\n" + text)
    command = [str(find_program("caddy")), "run", "--adapter", "caddyfile", "--config", str(state / "Caddyfile")]
    with _run_server(command, port, state / "error.log", XDG_DATA_HOME=str(state), XDG_CONFIG_HOME=str(state)):
        yield WebServer(f"http://127.0.0.1:{port}", list)


def find_program(name: str) -> str | None:
    """Find the program of a server; also search /usr/sbin, which may be missing in PATH."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def _fill_in(text: str, folder: Path, address: str) -> str:
    assert FOLDER in text
    assert PORT in text
    return text.replace(FOLDER, str(folder)).replace(PORT, address)


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _run_server(command: list[str], port: int, log: Path, **more: str) -> Iterator[None]:
    """Start a server and wait until it listens; it ends with the context. Raises RuntimeError with its output."""
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **more})
    try:
        deadline = time.monotonic() + 20
        while not _is_listening(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start: {log.read_text(errors='replace')}")
            time.sleep(0.01)
        yield
    finally:
        process.terminate()
        process.wait(20)


def _is_listening(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def require_program(name: str) -> None:
    """Skip the test if there is no such server; fail if it is required."""
    if find_program(name) is None:
        reason = f"{name} is not installed"
        if name in os.environ.get("TILESYNC_REQUIRE", ""):
            pytest.fail(reason)
        pytest.skip(reason)
