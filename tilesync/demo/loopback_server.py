"""HTTP/1.1 server on a free port of 127.0.0.1, with a thread per connection. It ends with everything it started."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Headers = dict[str, str]

API_ROOTS = frozenset({"mesh-export", "imodels", "itwins"})
"""First parts of the paths of the APIs; any other path is that of a container or of the token endpoint."""

STOP_TIMEOUT_S = 2.0
"""How long `stop` waits for threads that still make a response."""


@dataclass
class FakeRequest:
    """A request as received."""

    path: str
    query: dict[str, str]
    headers: Any
    body: bytes = b""

    @property
    def is_listing(self) -> bool:
        """Return whether the request lists a container."""
        return self.query.get("comp") == "list"

    @property
    def is_api(self) -> bool:
        """Return whether the request goes to an API of the service, not to its storage or token endpoint."""
        return self.path.strip("/").partition("/")[0] in API_ROOTS

    @property
    def container_and_name(self) -> tuple[str, str]:
        """Return the container and the blob that the request is for; no blob for a listing."""
        container, _, name = unquote(self.path.lstrip("/")).partition("/")
        return container, name


@dataclass
class FakeResponse:
    """A response. With `sent_bytes`, only so many bytes of the body are sent, then the connection breaks. Without
    `has_content_length`, no header states the length, and the body ends with the connection.
    """

    status: int
    body: bytes = b""
    headers: Headers = field(default_factory=dict)
    sent_bytes: int | None = None
    has_content_length: bool = True


class LoopbackServer(TCPServer):
    """Server that runs from its creation to `stop`. `respond` is called from the thread of the connection."""

    request_queue_size = 256

    def __init__(self, respond: Callable[[FakeRequest], FakeResponse], read_clock: Callable[[], datetime]) -> None:
        super().__init__(("127.0.0.1", 0), _RequestHandler)
        self.respond = respond
        self.read_clock = read_clock
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._acceptor = self._start_thread(self.serve_forever, 0.02)

    @property
    def url(self) -> str:
        """Base URL of the server."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def stop(self) -> None:
        """Close the port and all connections, and wait for their threads."""
        self.shutdown()
        self._acceptor.join()
        self.server_close()
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):  # the other side may have closed it already
                    connection.shutdown(socket.SHUT_RDWR)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle the connection in a thread, which `stop` can end."""
        with self._lock:
            self._connections.add(request)
        living = [thread for thread in self._threads if thread.is_alive()]
        self._threads = [*living, self._start_thread(self._handle, request, client_address)]

    def shutdown_request(self, request: Any) -> None:
        """Close the connection."""
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def _handle(self, request: Any, client_address: Any) -> None:
        try:
            with suppress(OSError, ValueError):  # a client, or `stop`, may close the connection at any time
                self.finish_request(request, client_address)
        finally:
            self.shutdown_request(request)

    def _start_thread(self, target: Callable[..., object], *args: object) -> threading.Thread:
        thread = threading.Thread(target=target, args=args, name="fake-service", daemon=True)
        thread.start()
        return thread


class _RequestHandler(BaseHTTPRequestHandler):
    server: LoopbackServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        """Send the response in one write: a second write would wait for the acknowledgement of the first."""
        parts = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        response = self.server.respond(FakeRequest(parts.path, query, self.headers, body))
        length = {"Content-Length": str(len(response.body))} if response.has_content_length else {}
        headers = {"Date": http_date(self.server.read_clock()), **length, **response.headers}
        head = f"HTTP/1.1 {response.status} {_reason_phrase(response.status)}\r\n" + "".join(
            f"{k}: {v}\r\n" for k, v in headers.items()
        )
        body = response.body if response.sent_bytes is None else response.body[: response.sent_bytes]
        self.wfile.write(head.encode() + b"\r\n" + body)
        if response.sent_bytes is not None or not response.has_content_length:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    do_POST = do_GET


def _reason_phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Unknown"


def http_date(moment: datetime) -> str:
    """Format a time as an HTTP date (RFC 9110, section 5.6.7)."""
    return format_datetime(moment.astimezone(UTC), usegmt=True)
