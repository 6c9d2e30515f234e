"""HTTP servers on loopback for tests: responses that a test chooses, also broken ones."""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Handle = Callable[[BaseHTTPRequestHandler], None]


class LoopbackHttpServer(ThreadingHTTPServer):
    """HTTP server on a free port of 127.0.0.1, running from `__enter__` to `__exit__`; it counts its connections."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.accepted = 0
        self.scheme = "https" if tls else "http"
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    @property
    def port(self) -> int:
        """Port of this server."""
        return int(self.server_address[1])

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        """Return a URL of this server."""
        return f"{self.scheme}://{host}:{self.port}{path}"

    def get_request(self) -> tuple[socket.socket, Any]:
        """Count a connection."""
        self.accepted += 1
        return super().get_request()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors: a client may disconnect at any time."""

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class QuietHandler(BaseHTTPRequestHandler):
    """Handler of HTTP/1.1 requests that logs nothing and sends without delay."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class RecordingServer(LoopbackHttpServer):
    """RecordingServer that runs `handle` on each request, and records its path and headers."""

    def __init__(self, handle: Handle, tls: ssl.SSLContext | None = None) -> None:
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.handle = handle
        super().__init__(_RecordingHandler, tls)


class _RecordingHandler(QuietHandler):
    server: RecordingServer

    def do_GET(self) -> None:
        """Record the request, and let the test respond."""
        self.server.paths.append(self.path)
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        self.server.handle(self)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_CONNECT = do_GET  # noqa: N815 - the names that http.server looks for


def serving(handle: Handle, tls: ssl.SSLContext | None = None) -> RecordingServer:
    """Make a server that runs within a `with` block."""
    return RecordingServer(handle, tls)


def answer(body: bytes = b"hello", status: int = 200, **headers: str) -> Handle:
    """Always send the same response; underscores in header names stand for dashes."""

    def handle(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return handle


def in_turn(*handles: Handle) -> Handle:
    """Give each request the next response, and repeat the last one."""
    waiting = list(handles)

    def handle(request: BaseHTTPRequestHandler) -> None:
        (waiting.pop(0) if len(waiting) > 1 else waiting[0])(request)

    return handle


def cut(body: bytes, at: int) -> Handle:
    """Announce a body, and disconnect after `at` bytes of it."""

    def handle(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[:at])
        request.wfile.flush()
        request.close_connection = True

    return handle


def hang(after: bytes, until: threading.Event) -> Handle:
    """Send raw bytes, then nothing until the test is over."""

    def handle(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(after)
        request.wfile.flush()
        until.wait(30)
        request.close_connection = True

    return handle


def relay(near: socket.socket, far: socket.socket) -> None:
    """Forward bytes in both directions until one side ends."""
    while True:
        for one in select.select([near, far], [], [])[0]:
            data = one.recv(65536)
            if not data:
                return
            (far if one is near else near).sendall(data)


def tunnel(request: BaseHTTPRequestHandler) -> None:
    """Respond to CONNECT as a proxy: forward bytes in both directions."""
    host, _, port = request.path.rpartition(":")
    with socket.create_connection((host, int(port))) as far:
        request.send_response(200)
        request.end_headers()
        relay(request.connection, far)
        request.close_connection = True


@contextmanager
def full_backlog() -> Iterator[str]:
    """The URL of a host that lets no connection be made: those who listen there have no room for one more."""
    with socket.socket() as listening, ExitStack() as closing:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        for _ in range(8):
            waiting = closing.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        yield f"http://127.0.0.1:{address[1]}/x?sig=SECRET"


def sending(head: str, piece: bytes, *, every: float = 0.0, over: threading.Event) -> Handle:
    """Send this head, and pieces of a body until the client disconnects."""

    def handle(request: Any) -> None:
        try:
            request.wfile.write(f"HTTP/1.1 {head}\r\n\r\n".encode())
            while not over.wait(every):
                request.wfile.write(piece)
        except OSError:
            pass
        request.close_connection = True

    return handle


def raw(data: bytes, *, piece: int = 0) -> Handle:
    """Send exactly these bytes, in pieces with a pause after each, then disconnect."""

    def handle(request: BaseHTTPRequestHandler) -> None:
        request.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(data), piece or len(data)):
            request.wfile.write(data[at : at + (piece or len(data))])
            request.wfile.flush()
            if piece:
                time.sleep(0.001)
        request.close_connection = True

    return handle
