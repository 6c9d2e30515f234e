"""Every HTTP client follows the proxy variables of the environment in the same way."""

from __future__ import annotations

import asyncio
import os
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.support.azurite import ACCOUNT, KEY
from tests.support.builders import IMODEL, read_tree
from tests.support.http_server import RecordingServer, relay, serving
from tests.support.s3 import ENVIRONMENT
from tests.support.simulator import EXPORT, Simulator, run_program
from tilesync.errors import TilesyncError, UsageError
from tilesync.model import SasUrl
from tilesync.model.storage import ObjectHeaders
from tilesync.runtime.clock import WallClock
from tilesync.stores.azure.credentials import delete_batch, open_account
from tilesync.stores.s3.multipart import PART_BYTES
from tilesync.stores.s3.session import open_bucket
from tilesync.transport.api_client import ApiRequest, open_api_client
from tilesync.transport.blob_client import open_blob_client
from tilesync.transport.blob_client_sync import SyncBlobRequest, open_sync_client

NO_RETRIES = timedelta()


def ignore_event(event: object) -> None:
    """Ignore an event."""


# --- engines ---


def request_by_httpx(url: str) -> None:
    async def make() -> ApiRequest:
        return ApiRequest(url)

    async def accept(response: Any) -> int:
        return int(response.status)

    async def main() -> None:
        async with open_api_client(WallClock(), ignore_event, budget=NO_RETRIES) as talk:
            await talk.request("it", make, accept)

    asyncio.run(main())


def request_by_pyreqwest(url: str) -> None:
    async def main() -> None:
        async with open_blob_client() as bulk:
            await (await bulk.get(url, {})).aclose()
            await bulk.put(url, {}, b"1")

    asyncio.run(main())


def request_by_sync_client(url: str) -> None:
    with open_sync_client(ignore_event, budget=NO_RETRIES) as talk:
        for body in (None, b"1"):
            with talk.send_once(SyncBlobRequest("GET" if body is None else "PUT", url, {}, body)):
                pass


def request_by_obstore(url: str) -> None:
    with open_bucket("bucket", "", ignore_event, endpoint_url=url, retry_budget=NO_RETRIES) as objects:
        objects.write("small", [b"1"], ObjectHeaders("text/plain"))


def request_by_boto3(url: str) -> None:
    with open_bucket("bucket", "", ignore_event, endpoint_url=url, retry_budget=NO_RETRIES) as objects:
        objects.write("large", [bytes(PART_BYTES + 1)], ObjectHeaders("text/plain"))


def request_by_azure(url: str) -> None:
    with open_account(ACCOUNT, "tiles", f"{url}/{ACCOUNT}", {"AZURE_STORAGE_KEY": KEY}) as account:
        account.create_container()


def request_by_connection_string(url: str) -> None:
    scheme = url.partition("://")[0]
    endpoint = f"{url}/{ACCOUNT}"
    text = f"DefaultEndpointsProtocol={scheme};AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={endpoint}"
    with open_account(ACCOUNT, "tiles", endpoint, {"AZURE_STORAGE_CONNECTION_STRING": text}) as account:
        account.create_container()


def delete_by_azure(url: str) -> None:
    delete_batch(SasUrl(f"{url}/{ACCOUNT}/tiles", "sig=x", expires=None, fetched_at_s=0.0), ["a", "b"])


ENGINES = [
    request_by_httpx,
    request_by_pyreqwest,
    request_by_sync_client,
    request_by_obstore,
    request_by_boto3,
    request_by_azure,
    request_by_connection_string,
    delete_by_azure,
]


# --- servers ---


def refuse(request: BaseHTTPRequestHandler) -> None:
    """Respond 404 to everything."""
    request.rfile.read(int(request.headers.get("Content-Length") or 0))
    request.send_response(404)
    request.send_header("Content-Length", "0")
    request.end_headers()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordingServer]:
    """Start a proxy that refuses everything, with no other proxy settings of this machine."""
    for name in [name for name in os.environ if name.upper().endswith("_PROXY") or name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in ENVIRONMENT.items():
        if name.upper() != "NO_PROXY":
            monkeypatch.setenv(name, value)
    with serving(refuse) as server:
        yield server


@pytest.fixture
def target() -> Iterator[RecordingServer]:
    with serving(refuse) as server:
        yield server


def find_routes(
    send_request: Callable[[str], None], url: str, target: RecordingServer, proxy: RecordingServer
) -> set[str]:
    """Return the routes that a client takes."""
    target.accepted = proxy.accepted = 0
    with suppress(TilesyncError):
        send_request(url)
    return {name for name, server in (("direct", target), ("proxy", proxy)) if server.accepted}


# --- routes ---


@pytest.mark.parametrize(
    ("base", "no_proxy", "way"),
    [
        ("http://127.0.0.1", None, "proxy"),
        ("http://127.0.0.1", "*", "direct"),
        ("http://127.0.0.1", "other.net,127.0.0.1", "direct"),
        ("http://127.0.0.1", "other.net 127.0.0.0/8", "direct"),
        ("http://127.0.0.1", "10.0.0.0/8,localhost,.1", "proxy"),
        ("http://127.0.0.1", "127.0.0.1:{port}", "direct"),
        ("http://127.0.0.1", "127.0.0.1:1", "proxy"),
        ("http://localhost", "LOCALHOST.", "direct"),
        ("http://localhost", "*.localhost:{port}", "direct"),
        ("http://localhost", "localhost:1,host,127.0.0.0/8", "proxy"),
        ("https://127.0.0.1", None, "proxy"),
        ("https://127.0.0.1", "127.0.0.0/8", "direct"),
        ("https://localhost", "*", "direct"),
        ("https://localhost", ".localhost", "direct"),
    ],
)
def test_all_clients_take_the_same_route(
    proxy: RecordingServer,
    target: RecordingServer,
    monkeypatch: pytest.MonkeyPatch,
    base: str,
    no_proxy: str | None,
    way: str,
) -> None:
    """For any NO_PROXY all clients decide the same way."""
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy.port}")
    if no_proxy is not None:
        monkeypatch.setenv("NO_PROXY", no_proxy.format(port=target.port))
    url = f"{base}:{target.port}"
    assert {ask.__name__: find_routes(ask, url, target, proxy) for ask in ENGINES} == {
        ask.__name__: {way} for ask in ENGINES
    }


@pytest.mark.parametrize("ask", ENGINES, ids=[ask.__name__ for ask in ENGINES])
def test_credentials_of_a_proxy_are_sent_decoded(
    proxy: RecordingServer, target: RecordingServer, monkeypatch: pytest.MonkeyPatch, ask: Callable[[str], None]
) -> None:
    """User name and password of a proxy URL are percent-decoded before they are sent."""
    monkeypatch.setenv("http_proxy", f"http://me:p%40ss@127.0.0.1:{proxy.port}")
    assert find_routes(ask, f"http://127.0.0.1:{target.port}", target, proxy) == {"proxy"}
    assert {headers["proxy-authorization"] for headers in proxy.headers} == {"Basic bWU6cEBzcw=="}


def test_entra_uses_the_proxy(proxy: RecordingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entra tokens are fetched through the proxy for Entra, not that of the account."""
    who = {"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c", "AZURE_CLIENT_SECRET": "s"}
    for name, value in {**who, "AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("no_proxy", "account.example.invalid")
    opening = open_account(ACCOUNT, "tiles", "https://account.example.invalid", who)
    with opening as account, pytest.raises(TilesyncError):
        account.create_container()
    assert set(proxy.paths) == {"login.microsoftonline.com:443"}


def test_worker_processes_use_the_same_proxy_rules(proxy: RecordingServer, tmp_path: Path) -> None:
    """With the service in a CIDR block of NO_PROXY a run succeeds without the proxy."""
    with Simulator() as sim:
        sim.offer_export()
        env = {"HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}", "ALL_PROXY": f"127.0.0.1:{proxy.port}"}
        direct = sim.mirror_program(tmp_path / "d", env={**env, "NO_PROXY": "127.0.0.0/8"})
        assert (direct.exit_code, proxy.accepted) == (0, 0), direct.stderr
        through = sim.mirror_program(tmp_path / "e", env={**env, "TILESYNC_RETRY_FOR": "0s"})
        assert through.exit_code != 0
        assert proxy.accepted


# --- SOCKS ---


class SocksProxy(socketserver.ThreadingTCPServer):
    """SOCKS5 proxy that forwards everything and records the host names (RFC 1928)."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _SocksHandler)
        self.requested_hosts: list[str] = []

    @property
    def url(self) -> str:
        return f"socks5://127.0.0.1:{self.server_address[1]}"


class _SocksHandler(socketserver.BaseRequestHandler):
    server: SocksProxy

    def handle(self) -> None:
        near = self.request
        near.recv(2 + near.recv(2, socket.MSG_PEEK)[1])
        near.sendall(b"\x05\x00")
        kind = near.recv(4)[3]
        host = socket.inet_ntoa(near.recv(4)) if kind == 1 else near.recv(near.recv(1)[0]).decode()
        port = int.from_bytes(near.recv(2), "big")
        self.server.requested_hosts.append(host)
        with socket.create_connection(("127.0.0.1", port)) as far:
            near.sendall(b"\x05\x00\x00\x01" + bytes(6))
            relay(near, far)


@pytest.fixture
def socks(proxy: RecordingServer) -> Iterator[SocksProxy]:
    """Start a SOCKS proxy, with no other proxy settings."""
    with SocksProxy() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def require_socks() -> None:
    """Skip the test if the packages of the extra are missing; fail if they are required."""
    if not all(map(find_spec, ("socksio", "socks"))):
        reason = "no socksio, or no PySocks: `make test` installs them with the packages of the tests"
        if "socks" in os.environ.get("TILESYNC_REQUIRE", ""):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.mark.parametrize("ask", [each for each in ENGINES if each not in {request_by_obstore, request_by_boto3}])
def test_a_socks_proxy_serves_all_engines_but_those_of_s3(
    socks: SocksProxy, target: RecordingServer, monkeypatch: pytest.MonkeyPatch, ask: Callable[[str], None]
) -> None:
    """Every client except that of S3 uses the SOCKS proxy, which resolves the names."""
    require_socks()
    monkeypatch.setenv("ALL_PROXY", socks.url)
    with suppress(TilesyncError):
        ask(f"http://tiles.localhost:{target.port}")
    assert set(socks.requested_hosts) == {"tiles.localhost"}
    assert target.paths


@pytest.mark.parametrize("ask", [request_by_obstore, request_by_boto3])
def test_s3_refuses_a_socks_proxy(
    socks: SocksProxy, target: RecordingServer, monkeypatch: pytest.MonkeyPatch, ask: Callable[[str], None]
) -> None:
    """S3 with a SOCKS proxy is an error before anything is sent; a store in NO_PROXY still works."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", socks.url)
    with pytest.raises(UsageError, match="ALL_PROXY") as raised:
        ask(f"http://127.0.0.1:{target.port}")
    assert "NO_PROXY" in str(raised.value.hint)
    assert (target.paths, socks.requested_hosts) == ([], [])
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with suppress(TilesyncError):
        ask(f"http://127.0.0.1:{target.port}")
    assert (bool(target.paths), socks.requested_hosts) == (True, [])


@pytest.mark.parametrize("ask", [request_by_httpx, request_by_azure, delete_by_azure])
def test_packages_that_socks_needs_are_named(
    socks: SocksProxy, target: RecordingServer, monkeypatch: pytest.MonkeyPatch, ask: Callable[[str], None]
) -> None:
    """Without the packages of the extra the error says what to install, before anything is sent."""
    monkeypatch.setenv("ALL_PROXY", socks.url)
    for package in ("socksio", "socks"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError) as raised:
        ask(f"http://127.0.0.1:{target.port}")
    assert "pip install socksio pysocks" in str(raised.value.hint)
    assert (target.paths, socks.requested_hosts) == ([], [])


@pytest.mark.parametrize("value", ["socks4://127.0.0.1:1", "gopher://me:SECRET@127.0.0.1"])
def test_a_proxy_of_another_kind_is_a_usage_error(proxy: RecordingServer, tmp_path: Path, value: str) -> None:
    """An invalid proxy URL: exit 2 and a sentence with the variable, no traceback; also for doctor."""
    env = {"TILESYNC_API_URL": "https://api.example.invalid", "TILESYNC_TOKEN": "t", "HTTPS_PROXY": value}
    for words in (("mirror", IMODEL, str(tmp_path / "d")), ("exports", IMODEL), ("doctor", "--retry-for", "0s")):
        ended = run_program(*words, env=env)
        assert (ended.exit_code, ended.last_line["error"]) == (2, "UsageError")
        assert "HTTPS_PROXY" in ended.last_line["message"]
        assert "SECRET" not in ended.stderr + str(ended.last_line)
        assert "Traceback" not in ended.stderr


def test_a_whole_run_through_a_socks_proxy(socks: SocksProxy, tmp_path: Path) -> None:
    """A run through the SOCKS proxy succeeds."""
    require_socks()
    with Simulator() as sim:
        files = sim.offer_export()
        ended = sim.mirror_program(tmp_path, env={"ALL_PROXY": socks.url})
        assert ended.exit_code == 0, ended.stderr
        assert read_tree(tmp_path / "versions" / EXPORT) == files
    assert set(socks.requested_hosts) == {"127.0.0.1"}
    assert len(socks.requested_hosts) >= 2
