"""Fake blob service with one of six performance shapes, in its own process.

`python scripts/bench/shapes.py SHAPE FILES` prints its port, and serves one container until it is killed.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Final, cast
from urllib.parse import parse_qs, unquote, urlsplit

from data import LAST_MODIFIED_S, ListedBlob, build_glb, build_tileset, write_listing

CHUNK_BYTES: Final = 1 << 14
CHUNK_INTERVAL_S: Final = 0.05
"""Seconds between two chunks of a body on a slow connection."""

MEDIAN_TILE_BYTES: Final = 30_000


@dataclass(frozen=True)
class ServerShape:
    """Performance of a server. Rates are in bytes or requests per second, as the names say; 0 is no limit."""

    latency_s: float = 0.0
    connection_bytes_per_s: int = 0
    total_bytes_per_s: int = 0
    max_requests_per_s: int = 0
    loss_ratio: float = 0.0


SHAPES: Final = {
    "slow": ServerShape(latency_s=0.05, connection_bytes_per_s=60_000),
    "capped": ServerShape(latency_s=0.03, total_bytes_per_s=8_000_000),
    "refusing": ServerShape(latency_s=0.1, max_requests_per_s=400),
    "far": ServerShape(latency_s=0.6),
    "lossy": ServerShape(latency_s=0.05, loss_ratio=0.02),
    "fast": ServerShape(),
}


class SyntheticContainer:
    """Container of tiles that are generated on request."""

    def __init__(self, files: int) -> None:
        dice = random.Random(1)
        self._noise = dice.randbytes(1 << 21)
        self._sizes = {
            f"tiles/{number:06d}.glb": int(min(max(dice.lognormvariate(0, 0.9) * MEDIAN_TILE_BYTES, 300), 1_000_000))
            for number in range(files)
        }
        self._root = build_tileset(self._sizes)
        listed = [
            ListedBlob(name, len(self.body(name) or b""), "", LAST_MODIFIED_S)
            for name in [*self._sizes, "tileset.json"]
        ]
        with tempfile.TemporaryDirectory() as folder:
            write_listing(Path(folder), "bench", listed)
            self._pages = {page.stem: page.read_bytes() for page in Path(folder).iterdir() if page.stem.isdecimal()}

    def page(self, marker: str) -> bytes:
        """Return a page of the listing."""
        return self._pages[marker or "0"]

    def body(self, name: str) -> bytes | None:
        """Return a blob; None if there is none of this name."""
        if name == "tileset.json":
            return self._root
        size = self._sizes.get(name)
        return None if size is None else build_glb(self._noise[size % 4093 : size % 4093 + size])


class BlobServer:
    """State that all connections share."""

    def __init__(self, shape: ServerShape, container: SyntheticContainer) -> None:
        self.shape = shape
        self.container = container
        self.dice = random.Random(2)
        self._free_at = 0.0
        self._tokens, self._filled_at = shape.max_requests_per_s / 10, 0.0

    def try_accept(self, now: float) -> bool:
        """Return whether one more request is within the rate."""
        rate = self.shape.max_requests_per_s
        self._tokens = min(rate / 10, self._tokens + (now - self._filled_at) * rate)
        self._filled_at = now
        if rate and self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def reserve_send_time(self, now: float, size: int) -> float:
        """Reserve the time at which the next chunk may be sent over the shared bandwidth."""
        if not self.shape.total_bytes_per_s:
            return now
        self._free_at = max(now, self._free_at) + size / self.shape.total_bytes_per_s
        return self._free_at


class ServerConnection(asyncio.Protocol):
    """Connection that responds to one request after the other."""

    def __init__(self, server: BlobServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self._transport = cast("asyncio.Transport", transport)  # that of uvloop is no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop sending."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Respond to complete requests, after the latency."""
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if end:
            self._received = rest
            self._loop.call_later(self._server.shape.latency_s, self._respond, head.decode("latin-1"))

    def _respond(self, head: str) -> None:
        parts, shape = urlsplit(head.split(" ", 2)[1]), self._server.shape
        asked = parse_qs(parts.query, keep_blank_values=True)
        name = unquote(parts.path).split("/", 3)[3:]
        if "comp" in asked:
            page = self._server.container.page(asked.get("marker", [""])[0])
            self._write(_build_response("200 OK", page, "application/xml"))  # as soon as ever: blobs are compared
        elif not self._server.try_accept(self._loop.time()):
            busy = b"<Error><Code>ServerBusy</Code></Error>"
            self._send(
                _build_response(
                    "503 Busy", busy, "application/xml", "Retry-After: 1\r\nx-ms-error-code: ServerBusy\r\n"
                )
            )
        else:
            body = self._server.container.body(name[0] if name else "")
            answer = (
                _build_response("404 No", b"", "text/plain")
                if body is None
                else _build_response("200 OK", body, "model/gltf")
            )
            lost = self._server.dice.random() < shape.loss_ratio
            self._send(answer[: len(answer) // 2] if lost else answer, lost=lost)

    def _write(self, answer: bytes) -> None:
        if self._transport is not None:
            self._transport.write(answer)

    def _send(self, answer: bytes, *, lost: bool = False) -> None:
        """Send a chunk, and schedule the next one."""
        shape = self._server.shape
        if self._transport is None or not answer:
            if lost and self._transport is not None:
                self._transport.abort()
            return
        size = int(shape.connection_bytes_per_s * CHUNK_INTERVAL_S) or (
            CHUNK_BYTES if shape.total_bytes_per_s else len(answer)
        )
        self._transport.write(answer[:size])
        now = self._loop.time()
        wait = (
            CHUNK_INTERVAL_S
            if shape.connection_bytes_per_s
            else self._server.reserve_send_time(now, min(size, len(answer))) - now
        )
        if wait > 0:
            self._loop.call_later(wait, lambda: self._send(answer[size:], lost=lost))
        else:
            self._send(answer[size:], lost=lost)


def _build_response(status: str, body: bytes, kind: str, more: str = "") -> bytes:
    etag = f'ETag: "{LAST_MODIFIED_S:x}-{len(body):x}"\r\n' if status.startswith("200") else ""
    head = (
        f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nContent-Type: {kind}\r\n{etag}{more}"
        f"Last-Modified: {formatdate(LAST_MODIFIED_S, usegmt=True)}\r\n"
        "x-ms-blob-type: BlockBlob\r\nx-ms-version: 2024-05-04\r\nx-ms-request-id: 0\r\n\r\n"
    )
    return head.encode() + body


async def main(shape: str, files: int) -> None:
    """Run the server and print its address."""
    server = BlobServer(SHAPES[shape], SyntheticContainer(files))
    listening = await asyncio.get_running_loop().create_server(
        lambda: ServerConnection(server), "127.0.0.1", 0, backlog=1024
    )
    sys.stdout.write(f"{listening.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await listening.serve_forever()


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main(sys.argv[1], int(sys.argv[2])))
    else:
        uvloop.run(main(sys.argv[1], int(sys.argv[2])))
