"""Test that slow clients and stores cost the others nothing, and bounded memory."""

from __future__ import annotations

import hashlib
import http.client
import random
import re
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.support.builders import export, glb
from tests.support.s3 import BucketFixture, BucketServer, S3Fault, S3Proxy, error_response
from tests.support.simulator import EXPORT, Simulator
from tests.support.tile_server import mirror_files, running_server, server_process

LARGE = "tiles/large.bin"
LARGE_BYTES = 40_000_000
SLOW_CLIENTS = 500
MAX_MEMORY_MB = 250
"""Memory with all slow clients. Each may hold two chunks of 128 KiB; the program itself has about 40 MB."""

STORE_CLIENTS, MAX_STORE_MEMORY_MB = 100, 320
"""Of a store, 64 streams stay open, each with about a megabyte; its client library has another 45 MB."""

BUCKET_FILE = glb(random.Random(1).randbytes(8_000_000))


@pytest.fixture(scope="module")
def dest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mirror_files(tmp_path_factory.mktemp("load") / "d", export(3) | {LARGE: bytes(LARGE_BYTES)})


def request_slowly(port: int, path: str, *, buffer_bytes: int = 4096) -> socket.socket:
    """Send a request, and read the first bytes of the answer only."""
    client = socket.socket()
    client.settimeout(120)  # a busy machine may be slow: this ends a test that hangs
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)  # its window can grow only if set before
    client.connect(("127.0.0.1", port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert client.recv(15) == b"HTTP/1.1 200 OK"
    return client


def read_body_digest(client: socket.socket) -> bytes:
    """Read the rest of an answer of `request_slowly`; return the SHA-256 of its body."""
    with client.makefile("rb") as answer:
        answer.readline()  # the end of the status line
        length = int(http.client.parse_headers(answer)["content-length"])
        return hashlib.sha256(answer.read(length)).digest()


def read_memory_mb(pid: int) -> float:
    """Return the memory of a process now, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@pytest.mark.scale
def test_slow_clients_hold_little_memory(dest: Path) -> None:
    """With 500 clients in the middle of a large file the memory is bounded, and another client is served at once."""
    with server_process(dest) as server, ExitStack() as exits:
        for _ in range(SLOW_CLIENTS):
            exits.enter_context(request_slowly(server.port, f"/versions/{EXPORT}/{LARGE}"))
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client:
            assert client.get("/tileset.json").status_code == 200
            assert len(client.get(f"/versions/{EXPORT}/{LARGE}").content) == LARGE_BYTES
        assert read_memory_mb(server.process.pid) < MAX_MEMORY_MB


def test_a_client_that_reads_a_byte_now_and_then(dest: Path) -> None:
    """While one client takes single bytes, another one loads the same large file many times."""
    with running_server(dest) as server, ExitStack() as exits:
        slow = exits.enter_context(request_slowly(server.address[1], f"/versions/{EXPORT}/{LARGE}"))
        for _ in range(5):
            assert len(slow.recv(1)) == 1
            assert len(server.request(f"/versions/{EXPORT}/{LARGE}").body) == LARGE_BYTES


def test_a_client_that_goes_away(dest: Path) -> None:
    """A client that closes its connection in the middle leaves nothing open."""
    with server_process(dest) as server:
        folder = Path(f"/proc/{server.process.pid}/fd")
        with socket.create_connection(("127.0.0.1", server.port)):
            request_slowly(server.port, f"/versions/{EXPORT}/{LARGE}").close()
            httpx.get(f"http://127.0.0.1:{server.port}/tileset.json", trust_env=False)
            before = len(list(folder.iterdir()))
        for _ in range(20):
            request_slowly(server.port, f"/versions/{EXPORT}/{LARGE}").close()
        deadline = time.monotonic() + 20
        while len(list(folder.iterdir())) > before and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(list(folder.iterdir())) <= before


@pytest.fixture
def bucket(bucket_server: BucketServer, sim: Simulator, tmp_path: Path) -> BucketFixture:
    """Mirror an export with a large file into a bucket."""
    bucket = BucketFixture(bucket_server, tmp_path / "state")
    sim.offer_export(export(3) | {LARGE: BUCKET_FILE})
    assert bucket.mirror(sim).exit_code == 0
    return bucket


def test_a_store_that_fails_and_comes_back(bucket: BucketFixture) -> None:
    """A store that fails is a 503 with a sentence and Retry-After within seconds; then the server recovers."""
    fault = S3Fault(lambda each: "tiles/000.glb" in each.target, error_response(503, "SlowDown"), max_hits=1000)
    with S3Proxy(bucket.server, fault) as proxy:
        env = {**bucket.env, "TILESYNC_ENDPOINT_URL": proxy.url, "TILESYNC_RETRY_FOR": "1s"}
        with server_process(bucket.url, env=env) as server:
            url = f"http://127.0.0.1:{server.port}/versions/{EXPORT}"
            began = time.monotonic()
            answer = httpx.get(f"{url}/tiles/000.glb", trust_env=False, timeout=60)
            assert answer.status_code == 503
            assert time.monotonic() - began < 30
            assert answer.headers["retry-after"].isdigit()
            assert answer.headers["access-control-allow-origin"] == "*"
            assert re.fullmatch(r"s3://.* kept failing: .*\(503 SlowDown\)\n", answer.text)
            assert httpx.get(f"{url}/tiles/001.glb", trust_env=False).status_code == 200
            fault.max_hits = 0
            assert httpx.get(f"{url}/tiles/000.glb", trust_env=False, timeout=60).status_code == 200


def test_a_body_that_breaks_off_in_the_store(bucket: BucketFixture) -> None:
    """A body that breaks off between store and server is continued there: the client sees the whole file."""
    fault = S3Fault(lambda each: LARGE in each.target and each.method == "GET", cut=3_000_000)
    with S3Proxy(bucket.server, fault) as proxy:
        env = {**bucket.env, "TILESYNC_ENDPOINT_URL": proxy.url}
        with server_process(bucket.url, env=env) as server:
            url = f"http://127.0.0.1:{server.port}/versions/{EXPORT}/{LARGE}"
            assert httpx.get(url, trust_env=False, timeout=60).content == BUCKET_FILE


@pytest.mark.scale
def test_slow_clients_of_a_store_hold_little_memory(bucket: BucketFixture) -> None:
    """Clients in the middle of a large object hold bounded memory; each gets all its bytes when it reads on."""
    path = f"/versions/{EXPORT}/{LARGE}"
    with server_process(bucket.url, env=bucket.env) as server, ExitStack() as exits:
        clients = [
            exits.enter_context(request_slowly(server.port, path, buffer_bytes=1 << 16)) for _ in range(STORE_CLIENTS)
        ]
        assert server.get(f"versions/{EXPORT}/tiles/001.glb").status_code == 200
        assert read_memory_mb(server.process.pid) < MAX_STORE_MEMORY_MB
        for client in clients:
            assert read_body_digest(client) == hashlib.sha256(BUCKET_FILE).digest()
