"""Test the memory of a server of live exports: many files through a small cache, and clients that do not read."""

from __future__ import annotations

import hashlib
import random
import selectors
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.builders import IMODEL, glb, tileset
from tests.support.simulator import Simulator
from tests.support.tile_server import ServerProcess, server_process

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")

CACHE_MB = 16
SLACK_MB = 40
"""Memory for connections, buffers and the allocator."""

STALLED_CLIENTS, STALLED_BYTES = 300, 5_000_000
STALLED_MB = 300
"""Peak of that many clients of one file that is too large for the cache: 64 hold half a megabyte, each one 200 KB, and
at first 24 requests to the container are under way."""


def peak_memory_mb(served: ServerProcess) -> float:
    """Return the largest memory that the process had so far."""
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def make_export(count: int, size: int) -> dict[str, bytes]:
    """Make an export of so many files of one size."""
    dice = random.Random(1)
    files = {f"tiles/{number}.glb": glb(dice.randbytes(size)) for number in range(count)}
    return {"tileset.json": tileset(*files), "small.glb": glb(b"small"), **files}


@pytest.mark.scale
def test_memory_is_flat() -> None:
    """Two passes over 80 MB of files through a cache of 16 MB take no more memory than the cache and its slack."""
    files = make_export(800, 100_000)
    with Simulator() as sim:
        sim.offer_export(files)
        with server_process(IMODEL, "--cache-size", f"{CACHE_MB}M", sim=sim) as served:
            assert served.get("small.glb").status_code == 200
            began_mb = peak_memory_mb(served)
            address = urlsplit(served.url)
            for _ in range(2):
                with socket.create_connection((address.hostname, address.port)) as connection:
                    for name, data in files.items():
                        assert hashlib.sha256(request(connection, name)).digest() == hashlib.sha256(data).digest()
            assert peak_memory_mb(served) - began_mb < CACHE_MB + SLACK_MB


def request(connection: socket.socket, name: str) -> bytes:
    """Request a file over a connection that stays open; return its bytes."""
    connection.sendall(f"GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(65536)
    head, _, body = head.partition(b"\r\n\r\n")
    assert b" 200 " in head
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    parts, left = [body], length - len(body)
    while left:
        parts.append(connection.recv(min(left, 1 << 20)))
        assert parts[-1]
        left -= len(parts[-1])
    return b"".join(parts)


@pytest.mark.scale
def test_clients_that_do_not_read() -> None:
    """Clients that stop reading different large files hold no more than the cache, and stall no other client."""
    files = make_export(40, 3_500_000)
    with Simulator() as sim:
        sim.offer_export(files)
        with server_process(IMODEL, "--cache-size", f"{CACHE_MB}M", sim=sim) as served:
            assert served.get("small.glb").status_code == 200
            began_mb = peak_memory_mb(served)
            names = [name for name in files if name.startswith("tiles/")]
            stalled = []
            for name in names:
                stalled.append(start_request(served, name))
            asked_at = time.monotonic()
            assert served.get("small.glb").content == files["small.glb"]
            assert time.monotonic() - asked_at < 5
            # A streamed file holds a range of it, and what one connection buffers.
            assert peak_memory_mb(served) - began_mb < CACHE_MB + SLACK_MB + len(names)
            for name, connection in zip(names, stalled, strict=True):
                with connection:
                    received = b"".join(iter(lambda: connection.recv(1 << 20), b""))  # noqa: B023 - called at once
                assert received.endswith(files[name])


@pytest.mark.scale
def test_many_clients_stall_in_one_large_file() -> None:
    """300 stalled clients of a large file hold bounded memory and few files, and get all bytes when they read on."""
    large = glb(random.Random(2).randbytes(STALLED_BYTES))
    with Simulator() as sim:
        sim.offer_export(
            {"tileset.json": tileset("small.glb", "large.glb"), "small.glb": glb(b"s"), "large.glb": large}
        )
        with server_process(IMODEL, "--cache-size", f"{CACHE_MB}M", sim=sim) as served, ExitStack() as exits:
            assert served.get("small.glb").status_code == 200
            folder = Path(f"/proc/{served.process.pid}/fd")
            began_mb, began_files = peak_memory_mb(served), len(list(folder.iterdir()))
            clients = [exits.enter_context(start_request(served, "large.glb")) for _ in range(STALLED_CLIENTS)]
            asked_at = time.monotonic()
            assert served.get("small.glb").status_code == 200
            assert time.monotonic() - asked_at < 10
            assert peak_memory_mb(served) - began_mb < STALLED_MB
            assert len(list(folder.iterdir())) - began_files < STALLED_CLIENTS + 80
            digests = read_to_end(clients)
            assert digests == [hashlib.sha256(large).hexdigest()] * STALLED_CLIENTS


def start_request(served: ServerProcess, name: str) -> socket.socket:
    """Request a file, and read only the first bytes of the answer."""
    address = urlsplit(served.url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    connection.connect((address.hostname, address.port))
    connection.sendall(f"GET /{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert connection.recv(15, socket.MSG_WAITALL) == b"HTTP/1.1 200 OK"
    return connection


def read_to_end(clients: list[socket.socket]) -> list[str]:
    """Read all answers at the same time; return the SHA-256 of each body."""
    heads, digests = dict.fromkeys(clients, b""), {client: hashlib.sha256() for client in clients}
    with selectors.DefaultSelector() as selector:
        for client in clients:
            client.setblocking(False)
            selector.register(client, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(60)
            assert ready
            for key, _ in ready:
                client = next(each for each in clients if each is key.fileobj)
                data = client.recv(1 << 18)
                if not data:
                    selector.unregister(client)
                elif b"\r\n\r\n" in heads[client]:
                    digests[client].update(data)
                else:
                    heads[client] += data
                    digests[client].update(heads[client].partition(b"\r\n\r\n")[2])
    return [digests[client].hexdigest() for client in clients]
